"""Highlight: how much happens in a clip, from what was measured."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import exp
from typing import ClassVar

from reelmill.curation.stage import (
    Bound,
    ClipMedia,
    ClipStage,
    Fact,
    Facts,
    NotApplicable,
    NotMeasured,
    NoValue,
    WeightsStore,
    at_least,
)
from reelmill.datasets.sample import Kind

NAME = "highlight"
LIVELY = 0.15  # widths/s of the liveliest tenth: a person who walks past
QUIET, LOUD = -50.0, -15.0  # dBFS, mean volume
SUDDEN = 25.0  # dB from mean volume to peak: a clap, a shout
STEADY = 10.0  # the same of steady noise and of dense music


@dataclass(frozen=True, kw_only=True)
class Highlight(ClipStage):
    """From 0, nothing happens, to 1: the mean of movement, level and suddenness of sound.

    Movement is 1 - exp(-peak motion / 0.15 widths/s); level rises from -50 to -15 dBFS; suddenness
    from 10 to 25 dB of peak over mean volume, as far as the sound is heard at all. A clip without
    sound has none of both; where sound was not measured, movement alone counts. It reads facts, no
    media, and no network: it ranks clips for later stages of training, and knows of no story. The
    paper names highlight detection (section 3.4) and no method; the numbers are ours.
    """

    kinds: ClassVar = frozenset({Kind.VIDEO})
    needs: ClassVar = ("motion_peak",)
    reads: ClassVar = ("mean_volume", "peak")
    adds: ClassVar = (Fact(NAME, "", "How much happens: movement, level, suddenness."),)
    paper: ClassVar = "section 3.4, highlight detection in later stages"
    min_highlight: Bound = at_least(None, NAME, "nothing_happens")

    @contextmanager
    def session(
        self, weights: WeightsStore
    ) -> Iterator[Callable[[Sequence[ClipMedia]], list[Facts]]]:
        yield lambda clips: [self.judge(clip.facts) for clip in clips]

    def judge(self, facts: Facts) -> Facts:
        """The fact, from those that it needs."""
        motion = facts["motion_peak"]
        if isinstance(motion, NoValue):
            return {NAME: motion}
        parts = [1 - exp(-float(motion) / LIVELY)]
        unknown = NotMeasured("no stage measures it")
        volume, peak = (facts.get(name, unknown) for name in self.reads)
        if isinstance(volume, NotApplicable) or isinstance(peak, NotApplicable):
            parts += [0.0, 0.0]  # silence
        elif not (isinstance(volume, NoValue) or isinstance(peak, NoValue)):
            level = _share(float(volume), QUIET, LOUD)
            sudden = _share(float(peak) - float(volume), STEADY, SUDDEN)
            parts += [level, sudden if level > 0 else 0.0]
        return {NAME: sum(parts) / len(parts)}


def _share(value: float, low: float, high: float) -> float:
    return min(1.0, max(0.0, (value - low) / (high - low)))
