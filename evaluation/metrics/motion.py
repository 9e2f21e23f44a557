"""Movement: does it run evenly, and does what is seen stay itself?"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import cv2
import numpy as np

from reelmill.evaluation.clip import ClipMedia
from reelmill.evaluation.damage import Damage
from reelmill.evaluation.metric import MOTION, Better, Metric, NotApplicable, Value
from reelmill.evaluation.taxonomy import Stream

BLOCKS = 16


@dataclass(frozen=True, kw_only=True)
class MotionDegree(Metric):
    """Mean speed of everything in the picture. More is not better: chaos moves most."""

    version: ClassVar = 2
    unit: ClassVar = "widths/s"
    better: ClassVar = Better.NEITHER
    high: ClassVar = 50.0
    part: ClassVar = "vividness"
    stream: ClassVar = Stream.VIDEO
    applies_to: ClassVar = (MOTION,)

    def _value(self, clip: ClipMedia) -> Value:
        speed = clip.flow.speed
        if not np.isfinite(speed).any():
            return NotApplicable("no two frames in one shot")
        return float(np.nanmean(speed))


@dataclass(frozen=True, kw_only=True)
class Jerk(Metric):
    """How unevenly the picture advances: second difference of its steps over their mean.

    A step is the mean difference of two neighbouring frames; 0 if all are alike. Skipped and
    repeated frames make it jump. On real clips it follows skipped frames better than the same
    number taken of optical flow, which errs most where motion is large.
    """

    better: ClassVar = Better.LOWER
    high: ClassVar = 4.0
    part: ClassVar = "fluidity"
    stream: ClassVar = Stream.VIDEO
    applies_to: ClassVar = (MOTION,)
    claims: ClassVar = frozenset({Damage.DROPPED_FRAMES, Damage.REPEATED_FRAMES})
    least_step: float = 0.1

    def _value(self, clip: ClipMedia) -> Value:
        bends, steps = [], []
        for shot in clip.shots():
            gray = clip.gray[shot]
            pairs = pairwise(gray)
            step = np.array([cv2.norm(a, b, cv2.NORM_L1) / a.size for a, b in pairs])
            steps.append(step)
            bends.append(np.abs(np.diff(step, n=2)))
        bend, mean = np.concatenate(bends), float(np.concatenate(steps).mean())
        if not len(bend):
            return NotApplicable("no four frames in one shot")
        if mean < self.least_step:
            return NotApplicable("nothing moves")
        return float(bend.mean()) / mean


@dataclass(frozen=True, kw_only=True)
class WarpingError(Metric):
    """What optical flow cannot explain: mean difference after warping (Lai et al. 2018).

    Over pixels visible in both frames. Fine detail and fast motion raise it too, so compare clips
    of one prompt.
    """

    version: ClassVar = 2
    unit: ClassVar = "grey levels"
    better: ClassVar = Better.LOWER
    high: ClassVar = 255.0
    part: ClassVar = "temporal_consistency"
    stream: ClassVar = Stream.VIDEO
    applies_to: ClassVar = (MOTION,)
    claims: ClassVar = frozenset({Damage.FLICKER, Damage.PICTURE_NOISE})
    min_cover: float = 0.2

    def _value(self, clip: ClipMedia) -> Value:
        usable = np.nan_to_num(clip.flow.cover) >= self.min_cover
        usable &= np.isfinite(clip.flow.residual)
        if not usable.any():
            return NotApplicable("flow explains too little of the picture")
        return float(clip.flow.residual[usable].mean())


@dataclass(frozen=True, kw_only=True)
class Flicker(Metric):
    """Trembling brightness: how far a frame's brightness is from the middle of its neighbours'.

    Measured in 4 x 4 parts of the picture, whose median is taken, so that a moving thing in a few
    of them does not count; nothing is compared across cuts. Repeated frames do not hide it.
    """

    unit: ClassVar = "grey levels"
    better: ClassVar = Better.LOWER
    high: ClassVar = 255.0
    part: ClassVar = "stability"
    stream: ClassVar = Stream.VIDEO
    applies_to: ClassVar = (MOTION,)
    claims: ClassVar = frozenset({Damage.FLICKER})
    parts: int = 4

    def _value(self, clip: ClipMedia) -> Value:
        size = (self.parts, self.parts)
        means = np.stack(
            [
                cv2.resize(g.astype(np.float32), size, interpolation=cv2.INTER_AREA).ravel()
                for g in clip.gray
            ]
        )
        off = []
        for shot in clip.shots():
            part = means[shot]
            off.append(np.abs(part[1:-1] - (part[2:] + part[:-2]) / 2))
        tremble = np.concatenate(off) if off else np.zeros((0, 1))
        if not len(tremble):
            return NotApplicable("no three frames in one shot")
        return float(np.median(tremble, axis=1).mean())


@dataclass(frozen=True, kw_only=True)
class DuplicateFrames(Metric):
    """Share of frame times at which nothing new is shown though the clip moves.

    A frame repeats the one before if no block of the picture (a sixteenth of its longer side)
    changes by more than `tolerance` grey levels on average. A gap of k typical frame lengths
    counts as k - 1 repeats: on screen it is the same. NotApplicable where nearly nothing moves.
    """

    better: ClassVar = Better.LOWER
    part: ClassVar = "fluidity"
    stream: ClassVar = Stream.VIDEO
    applies_to: ClassVar = (MOTION,)
    claims: ClassVar = frozenset({Damage.REPEATED_FRAMES})
    tolerance: float = 1.0
    most: float = 0.9

    def _value(self, clip: ClipMedia) -> Value:
        changes = np.array([_largest_change(a, b) for a, b in pairwise(clip.gray)])
        gaps = np.diff(clip.times)
        missing = int((np.rint(gaps / np.median(gaps)) - 1).clip(0).sum())
        repeated = int((changes <= self.tolerance).sum())
        if repeated > self.most * len(changes):
            return NotApplicable("the picture stands still")
        return (repeated + missing) / (len(changes) + missing)


def _largest_change(first: np.ndarray, second: np.ndarray) -> float:
    side = max(1, max(first.shape) // BLOCKS)
    size = (max(1, first.shape[1] // side), max(1, first.shape[0] // side))
    change = cv2.absdiff(first, second).astype(np.float32)
    return float(cv2.resize(change, size, interpolation=cv2.INTER_AREA).max())
