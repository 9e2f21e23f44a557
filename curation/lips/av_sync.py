"""AVSync: is the speech in time with the lips?"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from reelmill.curation.lips.people import FPS, Person, frames_of, people_of
from reelmill.curation.lips.talking import LIPS
from reelmill.curation.lips.track import AREA
from reelmill.curation.models.yunet import YuNet
from reelmill.curation.stage import (
    Bound,
    ClipMedia,
    ClipStage,
    Fact,
    Facts,
    NotApplicable,
    NotMeasured,
    NoValue,
    Resources,
    WeightsStore,
    above,
    at_least,
    at_most,
)
from reelmill.datasets.sample import Kind

if TYPE_CHECKING:
    from reelmill.curation.models.lip_sync import LipSync
    from reelmill.curation.models.syncnet import Sync

RATE = 16_000
REACH = 15  # frames, as SyncNet has it
_SAMPLES = RATE // FPS


@dataclass(frozen=True, kw_only=True)
class AVSync(ClipStage):
    """Offset between lips and speech, and how sure it is (SyncNet), for clips of route `lips`.

    The paper keeps |offset| <= 3 frames of 25 a second, confidence above 1.5 and mean volume of
    -60 dB and more (section 3.4). The face is the one that talks most; where that was not measured,
    the one that agrees best. An offset of `correct_from` frames and more (1 is what the network
    tells apart) that is sure, and the same within a frame in both halves, is taken for constant:
    the sound is moved by it in samples, measured again, and judged then. Cut moves it as well.

    Without weights nothing is measured. No other measure stands in: mouth opening against loudness
    found offset 0 in 1 of 21 clips in sync, Light-ASD the right sound in 1 of 13.
    """

    kinds: ClassVar = frozenset({Kind.VIDEO})
    needs: ClassVar = ("route", "talker", "mean_volume")
    adds: ClassVar = (
        Fact("sync_offset", "frames", "By how much speech is early, of 25 a second.", -15, 15, int),
        Fact("sync_error", "frames", "Size of that offset.", 0, 15, int),
        Fact("sync_confidence", "", "Median distance over offsets less the least.", 0, 10),
        Fact("sync_distance", "", "Least mean distance of lips and speech.", 0, 20),
        Fact("sync_volume", "dB", "Mean volume, where sync is judged.", -91, 0),
        Fact("sync_correction", "s", "By how much Cut puts the sound later.", -0.6, 0.6),
        Fact("sync_first_offset", "frames", "Offset before that.", -15, 15, int),
    )
    paper: ClassVar = "section 3.4, synchronisation"
    resources: ClassVar = Resources(memory_gb=2.5, weights=("syncnet", "face_yunet"), optional=True)
    batch_size: ClassVar = 1
    device: str = "cpu"
    least_frames: int = 50
    correct: bool = True
    correct_from: int = 2
    correct_confidence: float = 1.5
    max_offset: Bound = at_most(3.0, "sync_error", "out_of_sync")
    min_confidence: Bound = above(1.5, "sync_confidence", "unsure_sync")
    min_volume: Bound = at_least(-60.0, "sync_volume", "too_quiet_for_sync")

    @contextmanager
    def session(
        self, weights: WeightsStore
    ) -> Iterator[Callable[[Sequence[ClipMedia]], list[Facts]]]:
        folders = {name: weights.path(name) for name in self.resources.weights}
        absent = [name for name, folder in folders.items() if folder is None]
        loaded: list[tuple[LipSync, YuNet]] = []

        def models() -> tuple[LipSync, YuNet]:
            if not loaded:
                from reelmill.curation.models.lip_sync import LipSync  # loads torch

                lips, faces = folders.values()
                assert lips is not None
                assert faces is not None
                loaded.append((LipSync.load(lips, self.device), YuNet(faces)))
            return loaded[0]

        yield lambda clips: [self._facts(clip, models, absent) for clip in clips]

    def _facts(
        self,
        media: ClipMedia,
        models: Callable[[], tuple[LipSync, YuNet]],
        absent: Sequence[str],
    ) -> Facts:
        route, talker, volume = (media.facts[name] for name in self.needs)
        if isinstance(route, NotApplicable):
            return self._without(route)
        if isinstance(route, str) and route != LIPS:
            return self._without(NotApplicable(f"route {route}: no lips to compare with"))
        if isinstance(volume, NoValue):
            return self._without(volume)
        if absent:
            return self._without(NotMeasured(f"weights '{absent[0]}' absent"))
        network, find = models()
        frames = frames_of(media, AREA)
        if frames is None:
            return self._without(NotMeasured("a clip too long for faces at 25 frames a second"))
        people = [p for p in people_of(frames, find, 1)]
        if isinstance(talker, int | float) and int(talker) < len(people):
            people = [people[int(talker)]]
        people = [person for person in people if person.frames >= self.least_frames]
        if not people:
            return self._without(NotApplicable("no face is seen for long enough"))
        sound = media.audio(RATE)
        found = [self._judge_person(network, person, sound) for person in people]
        best = max(found, key=lambda one: float(one["sync_confidence"]))  # type: ignore[arg-type]
        return {**best, "sync_volume": volume}

    def _judge_person(
        self, network: LipSync, person: Person, sound: np.ndarray
    ) -> dict[str, float | int]:
        def speech(delay: int) -> np.ndarray:
            heard = moved(sound, person.first, person.frames, delay)
            return network.speech(heard, person.frames)

        return self.judge(network.lips(person.faces), speech)

    def judge(
        self, lips: np.ndarray, speech: Callable[[int], np.ndarray]
    ) -> dict[str, float | int]:
        """Facts of lips, but for the volume.

        lips: float32 [n, width]. speech: from frames by which the sound is put later, the same of
        it.
        """
        from reelmill.curation.models.syncnet import compare

        heard = speech(0)
        first = last = compare(lips, heard, REACH)
        delay = 0
        if self.correct and self._constant(lips, heard, first):
            delay = first.offset
            last = compare(lips, speech(delay), REACH)
        return {
            "sync_offset": last.offset,
            "sync_error": abs(last.offset),
            "sync_confidence": last.confidence,
            "sync_distance": last.distance,
            "sync_correction": delay / FPS,
            "sync_first_offset": first.offset,
        }

    def _constant(self, lips: np.ndarray, speech: np.ndarray, whole: Sync) -> bool:
        """Whether an offset is large and sure enough to be corrected, and that of both halves."""
        from reelmill.curation.models.syncnet import distances

        if not self.correct_from <= abs(whole.offset) < REACH:
            return False
        if whole.confidence <= self.correct_confidence:
            return False
        each = distances(lips, speech, REACH)
        halves = (each[: len(each) // 2], each[len(each) // 2 :])
        offsets = [REACH - int(half.mean(axis=0).argmin()) for half in halves]
        return all(abs(offset - whole.offset) <= 1 for offset in offsets)

    def _without(self, why: NoValue) -> Facts:
        return {fact.name: why for fact in self.adds}


def moved(sound: np.ndarray, first: int, frames: int, delay: int) -> np.ndarray:
    """float32 [frames * 640]: sound from frame `first` on, put `delay` frames later.

    sound: float32 at 16 kHz, of the whole clip; where it lacks, there is silence.
    """
    count, start = frames * _SAMPLES, (first - delay) * _SAMPLES
    inside = sound[max(0, start) : max(0, start + count)]
    before = min(count, max(0, -start))
    return np.pad(inside, (before, max(0, count - before - len(inside))))[:count]
