"""The arena: who wins, from votes of people who saw two clips and said left, same or right.

Ratings follow Bradley and Terry (1952) with ties after Davidson (1970), and one term for the side,
since raters lean to one (Davidson and Beaver 1977). Good, Same, Bad are counted beside them, as in
the paper (section 5.2).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import Field
from scipy.optimize import minimize
from scipy.stats import norm
from scipy.stats import t as student

from reelmill.evaluation.bootstrap import LEVEL, resampled
from reelmill.evaluation.vote import Choice, PairVote

PRIOR = 0.05  # ridge: keeps the rating of a system that never lost finite
DRAWS = 200
ELO = 400 / np.log(10)


@dataclass(frozen=True, slots=True)
class Bars:
    """Good, Same, Bad: how often `first` was called better than `second`, the same, worse."""

    first: str
    second: str
    good: int
    same: int
    bad: int

    @property
    def votes(self) -> int:
        return self.good + self.same + self.bad

    @property
    def score(self) -> float:
        """(G - B) / (G + S + B), from -1 to 1; show it beside the three bars, never alone."""
        return (self.good - self.bad) / self.votes


@dataclass(frozen=True, slots=True)
class Rating:
    """Log-strength of a system, the mean of all being 0, with its interval over prompts."""

    system: str
    strength: float
    low: float
    high: float

    @property
    def elo(self) -> float:
        """On the scale that 400 points are odds of 10 to 1; 1000 is the mean."""
        return 1000 + ELO * self.strength


@dataclass(frozen=True)
class Arena:
    """ratings: best first. ties: log of Davidson's nu. left: log-odds that the left side gains.

    differences: (first, second) -> (mean, low, high) of the difference of their strengths.
    """

    ratings: tuple[Rating, ...]
    ties: float
    left: float
    votes: int
    prompts: int
    differences: Mapping[tuple[str, str], tuple[float, float, float]]

    def tied(self, first: str, second: str) -> bool:
        """Whether the interval of their difference holds 0."""
        _, low, high = self.differences[first, second]
        return low <= 0 <= high


def bars(votes: Iterable[PairVote], dimension: str = "overall") -> list[Bars]:
    """Counts per pair of systems on one dimension, names in alphabetical order."""
    counts: dict[tuple[str, str], list[int]] = {}
    for vote in votes:
        choice = vote.choices.get(dimension)
        if choice is None or vote.left == vote.right:
            continue
        swapped = vote.left > vote.right
        pair = (vote.right, vote.left) if swapped else (vote.left, vote.right)
        place = {Choice.LEFT: 0, Choice.SAME: 1, Choice.RIGHT: 2}[choice]
        counts.setdefault(pair, [0, 0, 0])[2 - place if swapped else place] += 1
    return [Bars(*pair, *gsb) for pair, gsb in sorted(counts.items())]


Draws = Annotated[int, Field(ge=20)]


def rank(
    votes: Sequence[PairVote], dimension: str = "overall", *, draws: Draws = DRAWS, seed: int = 0
) -> Arena | None:
    """Ratings from all votes on one dimension; intervals by drawing prompts. None without votes.

    Gold pairs (a clip against its damaged self) have the same system on both sides and are left
    out; repeats of a pair by one rater count once, the first.
    """
    table = _Table(votes, dimension)
    if not len(table.left):
        return None
    best = table.fit(np.ones(len(table.left)))
    drawn = np.stack(
        [
            table.fit(times[table.prompt].astype(float), start=best)
            for times in resampled(table.prompts, draws, seed)
        ]
    )
    tail = 100 * _tail(len(table.prompts))
    k = len(table.systems)
    low, high = np.percentile(drawn[:, :k], [tail, 100 - tail], axis=0)
    ratings = [
        Rating(name, float(best[i]), float(low[i]), float(high[i]))
        for i, name in enumerate(table.systems)
    ]
    differences = {}
    for i, first in enumerate(table.systems):
        for j, second in enumerate(table.systems):
            if i != j:
                a, b = np.percentile(drawn[:, i] - drawn[:, j], [tail, 100 - tail])
                differences[first, second] = (float(best[i] - best[j]), float(a), float(b))
    return Arena(
        ratings=tuple(sorted(ratings, key=lambda r: (-r.strength, r.system))),
        ties=float(best[k]),
        left=float(best[k + 1]),
        votes=len(table.left),
        prompts=len(table.prompts),
        differences=differences,
    )


def strengths(
    votes: Sequence[PairVote], dimension: str = "overall"
) -> tuple[Mapping[str, float], float] | None:
    """(log-strength by system, log of Davidson's nu) as `rank` rates, without intervals."""
    table = _Table(votes, dimension)
    if not len(table.left):
        return None
    best = table.fit(np.ones(len(table.left)))
    k = len(table.systems)
    return dict(zip(table.systems, map(float, best[:k]), strict=True)), float(best[k])


def _tail(n: int) -> float:
    """Share of draws to cut at each end: percentiles of n drawn units are too narrow, and this
    widens them to Student's (Hesterberg 2015, What teachers should know about the bootstrap)."""
    if n < 2:
        return 0.0
    return float(norm.sf(np.sqrt(n / (n - 1)) * student.ppf((1 + LEVEL) / 2, n - 1)))


class _Table:
    """Votes as arrays, and the likelihood over them."""

    def __init__(self, votes: Sequence[PairVote], dimension: str):
        seen: set[tuple] = set()
        rows = []
        for vote in votes:
            choice = vote.choices.get(dimension)
            once = (vote.rater, vote.prompt, vote.seed, *sorted((vote.left, vote.right)))
            if choice is None or vote.left == vote.right or once in seen:
                continue
            seen.add(once)
            rows.append((vote.left, vote.right, choice, vote.prompt))
        self.systems = sorted({name for left, right, _, _ in rows for name in (left, right)})
        self.prompts = sorted({prompt for _, _, _, prompt in rows})
        system = {name: i for i, name in enumerate(self.systems)}
        place = {name: i for i, name in enumerate(self.prompts)}
        self.left = np.array([system[r[0]] for r in rows], int)
        self.right = np.array([system[r[1]] for r in rows], int)
        outcome = {Choice.LEFT: 0, Choice.SAME: 1, Choice.RIGHT: 2}
        self.outcome = np.array([outcome[r[2]] for r in rows], int)
        self.prompt = np.array([place[r[3]] for r in rows], int)

    def fit(self, weight: np.ndarray, start: np.ndarray | None = None) -> np.ndarray:
        """[strengths of mean 0, log nu, side] at the most likely, under the small prior."""
        k, n = len(self.systems), np.arange(len(self.left))

        def loss(x: np.ndarray) -> tuple[float, np.ndarray]:
            half = (x[self.left] - x[self.right] + x[k + 1]) / 2
            logits = np.stack([half, np.full(len(half), x[k]), -half], axis=1)
            logits -= logits.max(axis=1, keepdims=True)
            p = np.exp(logits)
            p /= p.sum(axis=1, keepdims=True)
            value = -float(weight @ np.log(p[n, self.outcome])) + PRIOR * float(x @ x)
            off = p.copy()
            off[n, self.outcome] -= 1
            off *= weight[:, None]
            slope = (off[:, 0] - off[:, 2]) / 2
            gradient = 2 * PRIOR * x
            np.add.at(gradient, self.left, slope)
            np.add.at(gradient, self.right, -slope)
            gradient[k] += off[:, 1].sum()
            gradient[k + 1] += slope.sum()
            return value, gradient

        begin = np.zeros(k + 2) if start is None else start
        found = minimize(loss, begin, jac=True, method="L-BFGS-B").x
        found[:k] -= found[:k].mean()
        return found
