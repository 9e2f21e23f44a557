"""Do a rater's votes follow the clips? Measured against what the others' votes say of the systems.

Agreement with the majority of two or three others is a weak test: they are often split. All votes
of the others together rate the systems well, so they are what a rater is held against.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import norm

from reelmill.evaluation.agreement import ALARM
from reelmill.evaluation.arena import strengths
from reelmill.evaluation.vote import OVERALL, Choice, PairVote

FEWEST = 20  # votes of a rater
CHANCE = 0.05
SIGN = {Choice.LEFT: 1.0, Choice.SAME: 0.0, Choice.RIGHT: -1.0}


@dataclass(frozen=True, slots=True)
class Skill:
    """value: 1 where votes follow the systems' strengths as the others' do, 0 where not at all.

    none: beyond chance (`ALARM`) below what the others' votes let expect, and no better than chance
    or, beyond chance, less than half as good as the others.
    """

    value: float
    votes: int
    none: bool


def rater_skills(votes: Sequence[PairVote], dimension: str = OVERALL) -> dict[str, Skill]:
    """Skill of each rater of at least 20 votes on pairs of two systems that the others rated.

    votes: without repeats. Strengths come from the others alone, under the model of `rank`. A
    rater's statistic is the sum of the gap between left and right, times 1, 0 or -1 for left, same
    and right: its mean and variance are known under the model, and under votes by chance. Where
    systems are alike the two are alike too, and nobody is flagged.
    """
    plain = [v for v in votes if v.left != v.right and dimension in v.choices]
    found = {}
    for rater in sorted({vote.rater for vote in plain}):
        rated = strengths([v for v in plain if v.rater != rater], dimension)
        if rated is None:
            continue
        worth, ties = rated
        own = [v for v in plain if v.rater == rater and {v.left, v.right} <= worth.keys()]
        if len(own) < FEWEST:
            continue
        gap = np.array([worth[v.left] - worth[v.right] for v in own])
        said = np.array([SIGN[v.choices[dimension]] for v in own])
        found[rater] = _skill(gap, said, ties)
    return found


def _skill(gap: np.ndarray, said: np.ndarray, ties: float) -> Skill:
    left, same, right = np.exp(gap / 2), np.full(len(gap), np.exp(ties)), np.exp(-gap / 2)
    whole = left + same + right
    mean = (left - right) / whole
    variance = (left + right) / whole - mean**2
    expected, spread = gap @ mean, np.sqrt(np.square(gap) @ variance)
    by_chance = np.sqrt(np.square(gap).sum() * said.var())
    seen = gap @ said
    if expected <= 0 or spread <= 0:
        return Skill(0.0, len(gap), False)
    low = norm.cdf((seen - expected) / spread) < ALARM
    half = norm.cdf((seen - expected / 2) / spread) < CHANCE
    chance = by_chance <= 0 or norm.sf(seen / by_chance) > CHANCE
    return Skill(float(seen / expected), len(gap), bool(low and (half or chance)))
