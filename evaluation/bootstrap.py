"""Intervals by the bootstrap: prompts are drawn, their seeds come along.

Clips of one prompt are alike, so prompts are the units that are drawn with replacement; a mean over
clips as if they were independent would have intervals too short.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

DRAWS = 2000
LEVEL = 0.95
FEWEST = 5  # prompts: with fewer, intervals are too wide to say anything


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean over prompts, and the interval that holds its true value at `LEVEL`, or as asked.

    low and high are None where there are fewer than five prompts. prompts, clips: how many.
    """

    mean: float
    low: float | None
    high: float | None
    prompts: int
    clips: int

    @property
    def excludes_zero(self) -> bool:
        return self.low is not None and self.high is not None and not self.low <= 0 <= self.high


Pair = tuple[Hashable, Hashable]  # prompt, seed


def mean_interval(
    values: Mapping[Pair, float], *, seed: int = 0, level: float = LEVEL
) -> Interval | None:
    """Mean over prompts of the mean over their seeds; None without values.

    values: by (prompt, seed). The studentised bootstrap (Efron and Tibshirani 1993, 12.5): the
    plain percentiles are too narrow at the few dozen prompts that a bench has.
    """
    groups: dict[Hashable, list[float]] = {}
    for (prompt, _), value in values.items():
        groups.setdefault(prompt, []).append(value)
    if not groups:
        return None
    means = np.array([np.mean(group) for group in groups.values()])
    mean, n = float(means.mean()), len(means)
    if n < FEWEST:
        return Interval(mean, None, None, n, len(values))
    error = means.std(ddof=1) / np.sqrt(n)
    if error <= 1e-12 * max(1.0, abs(mean)):
        return Interval(mean, mean, mean, n, len(values))
    drawn = means[np.random.default_rng([seed, n]).integers(0, n, (DRAWS, n))]
    errors = drawn.std(axis=1, ddof=1) / np.sqrt(n)
    usable = errors > 1e-3 * error
    t = (drawn.mean(axis=1)[usable] - mean) / errors[usable]
    tail = (1 - level) / 2
    high_t, low_t = np.quantile(t, [tail, 1 - tail])
    return Interval(mean, mean - low_t * error, mean - high_t * error, n, len(values))


def paired_interval(
    first: Mapping[Pair, float],
    second: Mapping[Pair, float],
    *,
    seed: int = 0,
    level: float = LEVEL,
) -> Interval | None:
    """`first` less `second` over the (prompt, seed) that both have; None where they share none."""
    both = {pair: first[pair] - second[pair] for pair in first if pair in second}
    return mean_interval(both, seed=seed, level=level)


def resampled(prompts: Sequence[Hashable], draws: int, seed: int) -> np.ndarray:
    """int64 [draws, n]: how often each of n prompts is drawn, every row sums to n."""
    n = len(prompts)
    rng = np.random.default_rng([seed, n, draws])
    return rng.multinomial(n, np.full(n, 1 / n), size=draws)
