"""NoiseInClass: is the noise that Noise found a fault, or what the clip is a sound of?"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar

from reelmill.curation.stage import (
    AUDIBLE,
    Bound,
    ClipMedia,
    ClipStage,
    Fact,
    Facts,
    NotApplicable,
    NoValue,
    WeightsStore,
    at_least,
)

NAME = "judged_snr"


@dataclass(frozen=True, kw_only=True)
class NoiseInClass(ClipStage):
    """The SNR of Noise, for clips of which it says something. It reads facts, no media.

    Rain, surf, wind and engines are noise to any such measure. So effects are only judged when they
    are heard to hold hiss or hum besides: YAMNet's likeliest kind of bare noise scores `hiss` or
    more. On 15 s of real rain it scores at most 0.01, on tones under as loud white noise 0.22, on
    other effects at most 0.01. Speech, singing and music are always judged, and so is sound whose
    class was not measured. The paper filters by SNR and sorts into classes (section 3.4), and gives
    no number; 5 dB is ours.
    """

    kinds: ClassVar = AUDIBLE
    needs: ClassVar = ("snr", "sound_class", "noise_score")
    adds: ClassVar = (Fact(NAME, "dB", "SNR, where noise would be a fault.", -10.0, 60.0),)
    paper: ClassVar = "section 3.4"
    hiss: float = 0.1
    min_snr: Bound = at_least(5.0, NAME, "noisy")

    @contextmanager
    def session(
        self, weights: WeightsStore
    ) -> Iterator[Callable[[Sequence[ClipMedia]], list[Facts]]]:
        yield lambda clips: [self.judge(clip.facts) for clip in clips]

    def judge(self, facts: Facts) -> Facts:
        """The fact, from those that it needs."""
        ratio, kind, noise = (facts[name] for name in self.needs)
        if isinstance(ratio, NoValue):
            return {NAME: ratio}
        bare = isinstance(noise, float) and noise >= self.hiss
        if kind == "effects" and not bare:
            return {NAME: NotApplicable("effects without hiss: their noise is their sound")}
        return {NAME: ratio}
