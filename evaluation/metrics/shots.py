"""Shots: as many as asked for, cut when asked for?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from scipy.optimize import linear_sum_assignment

from reelmill.evaluation.clip import ClipMedia
from reelmill.evaluation.damage import Damage
from reelmill.evaluation.metric import MOTION, PROMPT, Better, Metric, NotApplicable, Value
from reelmill.evaluation.taxonomy import Stream


@dataclass(frozen=True, kw_only=True)
class ShotCount(Metric):
    """Shots too many or too few, by PySceneDetect's adaptive detector."""

    unit: ClassVar = "shots"
    better: ClassVar = Better.LOWER
    high: ClassVar = 1000.0
    part: ClassVar = "multi_shot_consistency"
    stream: ClassVar = Stream.VIDEO
    applies_to: ClassVar = (MOTION, PROMPT)
    truth: ClassVar = True
    claims: ClassVar = frozenset({Damage.WRONG_CUT})

    def _value(self, clip: ClipMedia) -> Value:
        assert clip.prompt is not None
        return float(abs(len(clip.cuts) - len(clip.prompt.cuts)))


@dataclass(frozen=True, kw_only=True)
class CutTiming(Metric):
    """Mean seconds between the cuts asked for and those made, paired one to one at least cost.

    A cut that is missing, or further away than `most_s`, costs `most_s`. Cuts too many are for
    ShotCount to say. Times are scaled to the length asked for, if the clip is longer or shorter.
    """

    unit: ClassVar = "s"
    better: ClassVar = Better.LOWER
    high: ClassVar = 60.0
    part: ClassVar = "multi_shot_consistency"
    stream: ClassVar = Stream.VIDEO
    applies_to: ClassVar = (MOTION, PROMPT)
    truth: ClassVar = True
    most_s: float = 1.0

    def _value(self, clip: ClipMedia) -> Value:
        assert clip.prompt is not None
        asked = np.array(clip.prompt.cuts)
        if not len(asked):
            return NotApplicable("the prompt asks for no cut")
        made = clip.times[list(clip.cuts)] * (clip.prompt.seconds / clip.end)
        cost = np.minimum(np.abs(asked[:, None] - made[None]), self.most_s)
        rows, columns = linear_sum_assignment(cost)
        missing = len(asked) - len(rows)
        return float((cost[rows, columns].sum() + missing * self.most_s) / len(asked))
