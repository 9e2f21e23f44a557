"""SphinxTranscript: what is said in English, by PocketSphinx, with the time of every word."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from reelmill.curation.models.silero import SpeechProbability, speech_spans
from reelmill.curation.models.sphinx import RATE, Sphinx, Word
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
    at_most,
)

SLACK = RATE // 5
_NAMES = ("sphinx_transcript", "sphinx_words", "words_outside_speech")


def outside(words: Sequence[Word], spans: np.ndarray) -> float:
    """Share of words whose middle lies more than 0.2 s outside every span of speech.

    spans: int64 [spans, 2], samples at 16 kHz. There must be words.
    """
    middles = np.array([(word.first + word.last) / 2 for word in words])[:, None]
    inside = (spans[:, 0] - SLACK <= middles) & (middles <= spans[:, 1] + SLACK)
    return float(1 - inside.any(axis=1).mean())


@dataclass(frozen=True, kw_only=True)
class SphinxTranscript(ClipStage):
    """What PocketSphinx hears, for clips with speech: a second, named recogniser beside Whisper.

    Its text is a fact of its own, so that neither is ever taken for the other. It knows US English
    only; other languages come out as English nonsense. It gives times of words, so it can say which
    of them lie where nobody speaks; the VAD's own threshold for that is `speech_threshold`.
    """

    kinds: ClassVar = AUDIBLE
    needs: ClassVar = ("speech_ratio",)
    adds: ClassVar = (
        Fact("sphinx_transcript", "", "All speech of the clip as English text.", dtype=str),
        Fact("sphinx_words", "words", "Words that PocketSphinx heard.", 0, 100, int),
        Fact("words_outside_speech", "", "Share of them where the VAD hears no speech."),
    )
    paper: ClassVar = "section 3.4"
    resources: ClassVar = Resources(weights=("pocketsphinx",))
    speech_threshold: float = 0.5
    max_outside: Bound = at_most(None, "words_outside_speech", "words_outside_speech")

    @contextmanager
    def session(
        self, weights: WeightsStore
    ) -> Iterator[Callable[[Sequence[ClipMedia]], list[Facts]]]:
        folder = weights.path("pocketsphinx")
        model = None if folder is None else Sphinx(folder)
        yield lambda clips: [self._facts(clip, model) for clip in clips]

    def _facts(self, media: ClipMedia, model: Sphinx | None) -> Facts:
        speech = media.facts["speech_ratio"]
        if isinstance(speech, NoValue):
            return dict.fromkeys(_NAMES, speech)
        if speech == 0:
            return dict.fromkeys(_NAMES, NotApplicable("no speech"))
        if model is None:
            return dict.fromkeys(_NAMES, NotMeasured("weights 'pocketsphinx' absent"))
        sound = media.audio(RATE)
        words = model(sound)
        heard = SpeechProbability()
        heard.push(sound)
        spans = speech_spans(heard.finish(), len(sound), threshold=self.speech_threshold)
        none = NotApplicable("no words")
        return {
            "sphinx_transcript": " ".join(word.text for word in words),
            "sphinx_words": len(words),
            "words_outside_speech": outside(words, spans) if words else none,
        }
