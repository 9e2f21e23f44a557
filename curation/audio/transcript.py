"""Transcript: what is said, and in which language."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar

from reelmill.curation.models.whisper import RATE, Whisper
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
)

_NAMES = ("transcript", "language", "language_probability", "words")
# Scripts that put no spaces between words: each character counts.
_WORD = re.compile(
    r"[\u0e00-\u0eff\u1000-\u109f\u3040-\u30ff\u3400-\u9fff]|[^\W_]+(?:['\u2019-]\w+)*"
)


def count_words(text: str) -> int:
    """Words of a text; in Chinese, Japanese, Thai, Lao and Burmese, characters."""
    return len(_WORD.findall(text))


def is_sung(facts: Facts) -> bool:
    """Whether a clip is one of singing, by its class."""
    return facts.get("sound_class") == "singing"


@dataclass(frozen=True, kw_only=True)
class Transcript(ClipStage):
    """What Whisper hears (WhisperX), for clips with speech, and for clips whose class is singing.

    Of speech it is given what the VAD takes for speech; of singing, which a VAD passes over, all.

    Any Whisper in CTranslate2 form serves: the folder `whisper` among the weights. Its digest is
    part of the measurement. The paper transcribes speech and singing (section 3.4) and names no
    bound; Emilia keeps languages recognised with more than 0.8 (arXiv 2407.05361).
    """

    kinds: ClassVar = AUDIBLE
    version: ClassVar = 2
    needs: ClassVar = ("speech_ratio",)
    reads: ClassVar = ("sound_class",)
    adds: ClassVar = (
        Fact("transcript", "", "All speech of the clip as text.", dtype=str),
        Fact("language", "", "ISO 639 code.", dtype=str),
        Fact("language_probability", "", "How sure the model is of the language."),
        Fact("words", "words", "Words, or characters where none are spaced.", 0, 100, int),
    )
    paper: ClassVar = "section 3.4"
    resources: ClassVar = Resources(memory_gb=4.0, weights=("whisper",))
    compute_type: str = "int8"
    device: str = "cpu"
    beam_size: int = 5
    min_language_probability: Bound = at_least(None, "language_probability", "unsure_language")

    @contextmanager
    def session(
        self, weights: WeightsStore
    ) -> Iterator[Callable[[Sequence[ClipMedia]], list[Facts]]]:
        folder = weights.path("whisper")
        loaded: list[Whisper] = []

        def model() -> Whisper:
            assert folder is not None
            if not loaded:
                options = {"device": self.device, "compute_type": self.compute_type}
                loaded.append(Whisper(folder, beam_size=self.beam_size, **options))
            return loaded[0]

        def measure(clips: Sequence[ClipMedia]) -> list[Facts]:
            return [self._facts(clip, model if folder is not None else None) for clip in clips]

        yield measure

    def _facts(self, media: ClipMedia, model: Callable[[], Whisper] | None) -> Facts:
        speech = media.facts["speech_ratio"]
        if isinstance(speech, NoValue):
            return dict.fromkeys(_NAMES, speech)
        sung = is_sung(media.facts)
        if speech == 0 and not sung:
            return dict.fromkeys(_NAMES, NotApplicable("no speech"))
        if model is None:
            return dict.fromkeys(_NAMES, NotMeasured("weights 'whisper' absent"))
        found = model()(media.audio(RATE), self.batch_size, sung=sung)
        if found is None:
            return dict.fromkeys(_NAMES, NotApplicable("no speech of 250 ms inside the clip"))
        single = NotApplicable("the model knows one language")
        return {
            "transcript": found.text,
            "language": found.language,
            "language_probability": single if found.probability is None else found.probability,
            "words": count_words(found.text),
        }
