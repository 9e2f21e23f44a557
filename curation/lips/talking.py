"""Talking: is the voice that is heard that of a face that is seen? From it, the sound's route."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from reelmill.curation.lips.crops import grey_middles
from reelmill.curation.lips.people import FPS, frames_of, people_of
from reelmill.curation.lips.track import AREA
from reelmill.curation.models.silero import RATE, SpeechProbability, speech_spans
from reelmill.curation.models.yunet import YuNet
from reelmill.curation.stage import (
    ClipMedia,
    ClipStage,
    Fact,
    Facts,
    FactValue,
    NotApplicable,
    NotMeasured,
    NoValue,
    Resources,
    WeightsStore,
)
from reelmill.datasets.sample import Kind

if TYPE_CHECKING:
    from reelmill.curation.models.light_asd import LightASD

LIPS, VOICE_OVER, SCENE, BACKGROUND = "lips", "voice_over", "scene", "background"
LEAST_FRAMES = 10  # of a face
TALKS = 0.25
_SAMPLES = RATE // FPS


@dataclass(frozen=True, kw_only=True)
class Talking(ClipStage):
    """Whether a face talks while there is speech or singing (Light-ASD), and the sound's route.

    `talking_share`: of the frames with speech, those in which a face talks; below
    `on_screen_share` the voice comes from off screen. On 17 real clips with one speaker in the
    picture the share is 0.99 or more, on a narrated one with faces 0.34, so 0.5 is ours. Light-ASD
    does not tell whether the words are those of the lips: AVSync does.

    `route` rejects nothing. `lips`: a face talks, so AVSync judges it. `voice_over`: people are
    seen, the voice is none of theirs. `scene`: people, but no voice. `background`: nobody is seen,
    so that the paper's person-free clips are kept, their sound as background (section 3.4).
    """

    kinds: ClassVar = frozenset({Kind.VIDEO})
    needs: ClassVar = ("people", "speech_ratio", "sound_class")
    adds: ClassVar = (
        Fact("talking_share", "", "Share of the time with speech in which a face talks."),
        Fact("talkers", "people", "Faces that talk.", 0, 5, int),
        Fact(
            "talker", "", "Number of the face that talks most; 0: the one seen longest.", 0, 4, int
        ),
        Fact("voice", "", "on_screen or off_screen.", dtype=str),
        Fact("route", "", "lips, voice_over, scene or background.", dtype=str),
    )
    paper: ClassVar = "section 3.4, synchronisation: who is filtered by it"
    resources: ClassVar = Resources(memory_gb=2.5, weights=("light_asd", "face_yunet"))
    batch_size: ClassVar = 1
    on_screen_share: float = 0.5

    @contextmanager
    def session(
        self, weights: WeightsStore
    ) -> Iterator[Callable[[Sequence[ClipMedia]], list[Facts]]]:
        folders = [weights.path(name) for name in self.resources.weights]
        absent = [n for n, f in zip(self.resources.weights, folders, strict=True) if f is None]
        loaded: list[tuple[LightASD, YuNet]] = []

        def models() -> tuple[LightASD, YuNet] | None:
            speaker, face = folders
            if speaker is None or face is None:
                return None
            if not loaded:
                from reelmill.curation.models.light_asd import LightASD  # loads torch

                loaded.append((LightASD(speaker), YuNet(face)))
            return loaded[0]

        yield lambda clips: [self._facts(clip, models, absent) for clip in clips]

    def _facts(
        self,
        media: ClipMedia,
        models: Callable[[], tuple[LightASD, YuNet] | None],
        absent: Sequence[str],
    ) -> Facts:
        people, speech, sound = (media.facts[name] for name in self.needs)
        if isinstance(speech, NotApplicable):
            return self._without(speech, speech)
        if people == "none":
            unseen: FactValue | NoValue = "off_screen" if has_voice(speech, sound) else "none"
            return self._without(NotApplicable("no face"), BACKGROUND, voice=unseen)
        if isinstance(people, NoValue):
            return self._without(people, people)
        if not has_voice(speech, sound):
            return self._without(NotApplicable("no voice"), SCENE)
        given = models()
        if given is None:
            why = NotMeasured(f"weights '{absent[0]}' absent")
            return self._without(why, why)
        frames = frames_of(media, AREA)
        if frames is None:
            why = NotMeasured("a clip too long for faces at 25 frames a second")
            return self._without(why, why)
        return self._listen(frames, media.audio(RATE), given)

    def _listen(
        self, frames: np.ndarray, sound: np.ndarray, models: tuple[LightASD, YuNet]
    ) -> Facts:
        speaker, find = models
        voiced = voiced_frames(sound, len(frames))
        talks = np.zeros(len(frames), bool)
        each = []
        for person in people_of(frames, find, LEAST_FRAMES):
            own = slice(person.first, person.first + person.frames)
            heard = sound[person.first * _SAMPLES :]
            if len(heard) < _SAMPLES:
                continue
            talking = (speaker.score(grey_middles(person.faces), heard) > 0) & voiced[own]
            talks[own] |= talking
            each.append(int(talking.sum()))
        if not each:
            why = NotApplicable("no face is large enough for long enough")
            return self._without(why, VOICE_OVER, voice="off_screen")
        share = float(talks[voiced].mean())
        on_screen = share >= self.on_screen_share
        return {
            "talking_share": share,
            "talkers": sum(count >= TALKS * voiced.sum() for count in each),
            "talker": int(np.argmax(each)) if max(each) else NotApplicable("no face talks"),
            "voice": "on_screen" if on_screen else "off_screen",
            "route": LIPS if on_screen else VOICE_OVER,
        }

    def _without(
        self, why: NoValue, route: FactValue | NoValue, voice: FactValue | NoValue | None = None
    ) -> Facts:
        measured = {"talking_share": why, "talkers": why, "talker": why}
        none = NotApplicable("no voice")
        said = why if voice is None else none if voice == "none" else voice
        return measured | {"voice": said, "route": route}


def has_voice(speech: FactValue | NoValue, sound: FactValue | NoValue) -> bool:
    """Whether somebody speaks or sings, by `speech_ratio` and `sound_class`."""
    return (isinstance(speech, float) and speech > 0) or sound == "singing"


def voiced_frames(sound: np.ndarray, count: int) -> np.ndarray:
    """bool [count] at 25 a second: where the VAD hears speech; all of them where it hears none.

    sound: float32 at 16 kHz. Singing need not be speech to the VAD.
    """
    probability = SpeechProbability()
    probability.push(sound)
    voiced = np.zeros(count, bool)
    for first, last in speech_spans(probability.finish(), len(sound)):
        voiced[first // _SAMPLES : -(-last // _SAMPLES)] = True
    return voiced if voiced.any() else np.ones(count, bool)
