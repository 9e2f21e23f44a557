"""Raters who are simulated, so that what they think is known.

Import as `from tests.evaluation.raters import ...`.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np

from reelmill.evaluation.vote import OVERALL, Choice, PairVote

SIDES = (Choice.LEFT, Choice.SAME, Choice.RIGHT)


def chances(gap: float, ties: float, side: float) -> np.ndarray:
    """Of left, same, right, after Davidson: strengths differ by `gap`, left gains by `side`."""
    logits = np.array([(gap + side) / 2, ties, -(gap + side) / 2])
    p = np.exp(logits - logits.max())
    return p / p.sum()


def votes_of(
    rater: str,
    truth: Mapping[str, float],
    prompts: Sequence[str],
    rng: np.random.Generator,
    *,
    ties: float = -0.5,
    side: float = 0.0,
    skill: float = 1.0,
    tired: float | None = None,
    gold: int = 0,
    repeats: int = 0,
) -> list[PairVote]:
    """One vote on every pair of systems for every prompt, then gold pairs and repeats.

    skill: 1 sees the true strengths, 0 none. tired: skill in the second half, if another.
    """
    pairs = [(a, b, p) for p in prompts for a, b in itertools.combinations(sorted(truth), 2)]
    pairs = [pairs[i] for i in rng.permutation(len(pairs))]
    pairs += [pairs[i] for i in rng.integers(0, len(pairs), repeats)]
    made = []
    for at, (a, b, prompt) in enumerate(pairs):
        left, right = (a, b) if rng.random() < 0.5 else (b, a)
        now = tired if tired is not None and at >= len(pairs) // 2 else skill
        p = chances(now * (truth[left] - truth[right]), ties, side)
        choice = SIDES[rng.choice(3, p=p)]
        made.append(vote(rater, prompt, left, right, choice, at))
    for i in range(gold):
        whole = Choice.LEFT if rng.random() < 0.5 else Choice.RIGHT
        gap = 4.0 * skill * (1 if whole is Choice.LEFT else -1)
        choice = SIDES[rng.choice(3, p=chances(gap, -2.0, side))]
        made.append(vote(rater, f"gold{i}", "x", "x", choice, len(pairs) + i, gold=whole))
    return made


def vote(
    rater: str,
    prompt: str,
    left: str,
    right: str,
    choice: Choice,
    at: float = 0.0,
    gold: Choice | None = None,
) -> PairVote:
    return PairVote(
        rater=rater,
        prompt=prompt,
        left=left,
        right=right,
        choices={OVERALL: choice},
        at=at,
        gold=gold,
    )


def panel(
    truth: Mapping[str, float], seed: int, *, raters: int = 5, prompts: int = 30, **how
) -> list[PairVote]:
    rng = np.random.default_rng(seed)
    names = [f"p{i}" for i in range(prompts)]
    return [v for r in range(raters) for v in votes_of(f"r{r}", truth, names, rng, **how)]
