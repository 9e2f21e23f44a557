"""Other networks than DNSMOS that rate speech: NISQA, SQUIM and UTMOS, each by choice."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from reelmill.curation.audio.mos import unfit
from reelmill.curation.stage import (
    AUDIBLE,
    Bound,
    ClipMedia,
    ClipStage,
    Fact,
    Facts,
    NotApplicable,
    NotMeasured,
    Resources,
    WeightsStore,
    at_least,
)

Rate = Callable[[ClipMedia], np.ndarray]
MOST_RATE = 48_000


@dataclass(frozen=True, kw_only=True)
class SpeechRating(ClipStage):
    """Scores of a clip whose sound is mostly speech, each a fact of its own.

    As for MOS, speech has to make up `min_speech_share` of the time that is not silent. Without the
    weights every score reads `not measured`.
    """

    kinds: ClassVar = AUDIBLE
    needs: ClassVar = ("speech_ratio", "silence_ratio")
    paper: ClassVar = "section 3.4"
    min_speech_share: float = 0.5

    @abstractmethod
    def load(self, folder: Path) -> Rate:
        """The network: from a clip to as many scores as the stage adds facts."""

    @contextmanager
    def session(
        self, weights: WeightsStore
    ) -> Iterator[Callable[[Sequence[ClipMedia]], list[Facts]]]:
        (name,) = self.resources.weights
        folder = weights.path(name)
        rate = None if folder is None else self.load(folder)
        names = [fact.name for fact in self.adds]

        def measure(media: ClipMedia) -> Facts:
            if (reason := unfit(media, self.min_speech_share)) is not None:
                return dict.fromkeys(names, reason)
            if rate is None:
                return dict.fromkeys(names, NotMeasured(f"weights {name!r} absent"))
            scores = rate(media)
            if not np.isfinite(scores).all():
                return dict.fromkeys(names, NotApplicable("silent"))
            return dict(zip(names, map(float, scores), strict=True))

        yield lambda clips: [measure(clip) for clip in clips]


@dataclass(frozen=True, kw_only=True)
class NISQA(SpeechRating):
    """NISQA v2, 1 to 5: overall quality and four of its reasons. Its weights are CC BY-NC-SA."""

    adds: ClassVar = (
        Fact("nisqa_overall", "", "NISQA: quality of the speech.", 1.0, 5.0),
        Fact("nisqa_noisiness", "", "NISQA: how little noise is behind it.", 1.0, 5.0),
        Fact("nisqa_discontinuity", "", "NISQA: how little it breaks off.", 1.0, 5.0),
        Fact("nisqa_coloration", "", "NISQA: how little it is coloured.", 1.0, 5.0),
        Fact("nisqa_loudness", "", "NISQA: how well its level suits.", 1.0, 5.0),
    )
    resources: ClassVar = Resources(memory_gb=1.0, weights=("nisqa",))
    min_overall: Bound = at_least(2.0, "nisqa_overall", "low_nisqa")

    def load(self, folder: Path) -> Rate:
        from reelmill.curation.models import nisqa

        network = nisqa.NISQA(folder)

        def rate(media: ClipMedia) -> np.ndarray:
            own = media.info.audio.rate if media.info.audio else MOST_RATE
            return network(media.audio(min(own, MOST_RATE)), min(own, MOST_RATE))

        return rate


@dataclass(frozen=True, kw_only=True)
class SQUIM(SpeechRating):
    """torchaudio's SQUIM: what STOI, PESQ and SI-SDR would be, had one the clean speech."""

    adds: ClassVar = (
        Fact("squim_stoi", "", "SQUIM: intelligibility."),
        Fact("squim_pesq", "", "SQUIM: perceived quality.", 1.0, 4.6),
        Fact("squim_si_sdr", "dB", "SQUIM: speech over all that is not.", -10.0, 40.0),
    )
    resources: ClassVar = Resources(memory_gb=2.0, weights=("squim",))
    min_stoi: Bound = at_least(None, "squim_stoi", "low_stoi")
    min_pesq: Bound = at_least(None, "squim_pesq", "low_pesq")
    min_si_sdr: Bound = at_least(5.0, "squim_si_sdr", "low_si_sdr")

    def load(self, folder: Path) -> Rate:
        from reelmill.curation.models import squim

        network = squim.SQUIM(folder)
        return lambda media: network(media.audio(squim.RATE))


@dataclass(frozen=True, kw_only=True)
class UTMOS(SpeechRating):
    """UTMOS, 1 to 5: how natural speech sounds, as listeners of synthetic speech rate it."""

    adds: ClassVar = (Fact("utmos", "", "UTMOS of the speech.", 1.0, 5.0),)
    resources: ClassVar = Resources(memory_gb=2.0, weights=("utmos",))
    min_utmos: Bound = at_least(2.0, "utmos", "low_utmos")

    def load(self, folder: Path) -> Rate:
        from reelmill.curation.models import utmos

        network = utmos.UTMOS(folder)
        return lambda media: network(media.audio(utmos.RATE))
