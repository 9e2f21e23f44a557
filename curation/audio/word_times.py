"""WordTimes: when each word of a transcript is said, and which are said where nobody speaks."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from reelmill.curation.audio.sphinx_transcript import outside
from reelmill.curation.audio.transcript import is_sung
from reelmill.curation.models.silero import RATE, SpeechProbability, speech_spans
from reelmill.curation.models.sphinx import Word
from reelmill.curation.stage import (
    AUDIBLE,
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
    at_least,
    at_most,
)

if TYPE_CHECKING:
    from reelmill.curation.models.aligner import Aligner

_NAMES = ("word_times", "word_score", "words_unspoken")
MOST_S = 120.0


@dataclass(frozen=True, kw_only=True)
class WordTimes(ClipStage):
    """Puts Whisper's words into time by a wav2vec 2.0 for the language (as WhisperX does).

    The folder `wav2vec2` among the weights holds one that spells, such as wav2vec2-base-960h for
    English; words in letters that it does not know have no time. `word_score` is low where the
    words are not what is said; `words_unspoken` counts those whose middle lies more than 0.2 s
    outside of what silero-vad takes for speech, and does not apply to singing.
    """

    kinds: ClassVar = AUDIBLE
    needs: ClassVar = ("transcript",)
    reads: ClassVar = ("sound_class",)
    adds: ClassVar = (
        Fact("word_times", "", "[word, first second, last second] of each: JSON.", dtype=str),
        Fact("word_score", "", "Mean probability of the words' letters."),
        Fact("words_unspoken", "", "Share of words where the VAD hears no speech."),
    )
    paper: ClassVar = "section 3.4"
    resources: ClassVar = Resources(memory_gb=2.0, weights=("wav2vec2",))
    speech_threshold: float = 0.5
    min_score: Bound = at_least(None, "word_score", "words_do_not_fit")
    max_unspoken: Bound = at_most(0.5, "words_unspoken", "words_outside_speech")

    @contextmanager
    def session(
        self, weights: WeightsStore
    ) -> Iterator[Callable[[Sequence[ClipMedia]], list[Facts]]]:
        folder = weights.path("wav2vec2")
        model: Aligner | None = None
        if folder is not None:
            from reelmill.curation.models.aligner import Aligner  # loads torch

            model = Aligner(folder)
        yield lambda clips: [self._facts(clip, model) for clip in clips]

    def _facts(self, media: ClipMedia, model: Aligner | None) -> Facts:
        text = media.facts["transcript"]
        if isinstance(text, NoValue):
            return dict.fromkeys(_NAMES, text)
        if not str(text).strip():
            return dict.fromkeys(_NAMES, NotApplicable("no words"))
        if model is None:
            return dict.fromkeys(_NAMES, NotMeasured("weights 'wav2vec2' absent"))
        if media.clip.seconds > MOST_S:
            return dict.fromkeys(_NAMES, NotMeasured(f"longer than {MOST_S:g} s"))
        sound = media.audio(RATE)
        words = model(sound, str(text))
        if not words:
            return dict.fromkeys(_NAMES, NotApplicable("its words cannot be put into the sound"))
        times = [[w.text, round(w.first / RATE, 3), round(w.last / RATE, 3)] for w in words]
        heard = SpeechProbability()
        heard.push(sound)
        spans = speech_spans(heard.finish(), len(sound), threshold=self.speech_threshold)
        plain = [Word(word.text, word.first, word.last) for word in words]
        sung = NotApplicable("singing: a detector of speech does not hear it")
        return {
            "word_times": json.dumps(times, ensure_ascii=False),
            "word_score": sum(word.score for word in words) / len(words),
            "words_unspoken": sung if is_sung(media.facts) else outside(plain, spans),
        }
