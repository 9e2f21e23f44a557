"""Lips and speech: are they in time? It needs a face detector, so an adapter runs it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import ClassVar

import numpy as np

from reelmill.evaluation.clip import ClipMedia
from reelmill.evaluation.damage import Damage
from reelmill.evaluation.lag import AGREE_S, Lag
from reelmill.evaluation.lips import MAX_LAG_S, FaceFinder, lip_lag, loudness, mouths
from reelmill.evaluation.metric import (
    Better,
    Metric,
    NotApplicable,
    NotMeasured,
    Value,
)
from reelmill.evaluation.metrics.sync import BOTH
from reelmill.evaluation.taxonomy import Stream

# Tuned on eight clips; there, sound of another clip passes in 6 of 100 pairs.
MIN_LEAD, MIN_Z = 1.2, 3.0
SHORTEST_S = 3.0


@lru_cache(maxsize=1)
def _finder(model: str) -> FaceFinder:
    return FaceFinder(Path(model))


@dataclass(frozen=True, kw_only=True)
class LipLag(Metric):
    """Seconds by which speech follows the mouth that speaks it (lips.py); positive: late.

    Mouths open before they are heard: real clips lie between 0 and 0.2 s. Looked for within 0.8 s.
    Applies where a face of 24 pixels or more is there all the time, and one lag stands out from all
    others and is that of a half of the clip by itself. Of several faces, the one that agrees best.
    """

    unit: ClassVar = "s"
    better: ClassVar = Better.ZERO
    low: ClassVar = -MAX_LAG_S
    high: ClassVar = MAX_LAG_S
    part: ClassVar = "lip_sync"
    stream: ClassVar = Stream.BOTH
    applies_to: ClassVar = BOTH
    claims: ClassVar = frozenset({Damage.SHIFTED_SOUND})
    detector: str = ""

    def _value(self, clip: ClipMedia) -> Value:
        if not self.detector:
            return NotMeasured("weights 'face_yunet' are absent")
        if clip.seconds < SHORTEST_S:
            return NotApplicable(f"shorter than {SHORTEST_S:g} s")
        level = loudness(clip.mono, clip.rate)
        found = [
            lag
            for patches in mouths(clip.path, clip.info, _finder(self.detector))
            if (lag := lip_lag(patches, clip.times, clip.end, level, clip.sound_start))
        ]
        if not found:
            return NotApplicable("no face of 24 pixels is there all the time")
        return _clear(max(found, key=lambda lag: lag.z))


def _clear(lag: Lag) -> Value:
    if lag.lead < MIN_LEAD or lag.z < MIN_Z:
        return NotApplicable(
            f"no clear lag: the best leads by {lag.lead:.2f}, {lag.z:.1f} standard deviations"
        )
    if min(np.abs(np.array([lag.first, lag.second]) - lag.seconds)) > AGREE_S:
        return NotApplicable(
            f"neither half agrees: {lag.first:+.2f} s, {lag.second:+.2f} s, all {lag.seconds:+.2f}"
        )
    return lag.seconds
