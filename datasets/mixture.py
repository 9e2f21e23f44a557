"""Deterministic order: which task, which bucket, which sample at a step, as pure functions.

Nothing here has state, so resuming at any step and any world size costs nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property, lru_cache

import numpy as np

from reelmill.errors import DatasetError

MAX_PERIOD = 10_000
BLOCK = 4096  # places that are shuffled at once


class Schedule:
    """A sequence over weighted choices whose counts never stray one whole unit from their shares.

    Tijdeman's solution of the chairman assignment problem (1980): after every n draws, choice k
    was drawn within 1 - 1/(2K-2) of n * weight_k. The sequence is periodic, so any position is
    looked up. Weights are taken as fractions of at most `MAX_PERIOD` parts.
    """

    def __init__(self, weights: Sequence[float]):
        if not weights or any(not np.isfinite(w) or w <= 0 for w in weights):
            raise DatasetError(f"mixture weights {list(weights)} must all be above zero.")
        total = sum(Fraction(w).limit_denominator(MAX_PERIOD) for w in weights)
        shares = [Fraction(w).limit_denominator(MAX_PERIOD) / total for w in weights]
        period = int(np.lcm.reduce([s.denominator for s in shares], dtype=object))
        if period > MAX_PERIOD:
            parts = [max(1, round(s * MAX_PERIOD)) for s in shares]
            period = sum(parts)
        else:
            parts = [int(s * period) for s in shares]
        self.period = period
        self.order = _chairman(parts, period)
        self._before = np.zeros((period + 1, len(parts)), dtype=np.int64)
        self._before[1:] = np.cumsum(np.eye(len(parts), dtype=np.int64)[self.order], axis=0)

    def choice(self, n: int) -> int:
        """The choice at position n >= 0."""
        return int(self.order[n % self.period])

    def visits(self, n: int, choice: int) -> int:
        """How often `choice` was drawn before position n."""
        whole, rest = divmod(n, self.period)
        return int(whole * self._before[-1, choice] + self._before[rest, choice])


def _chairman(parts: Sequence[int], period: int) -> np.ndarray:
    """Order of one period; parts are integer counts that sum to it."""
    if len(parts) == 1:
        return np.zeros(period, dtype=np.int64)
    # All in units of 1/(period * (2K - 2)), so that the arithmetic is exact.
    unit = 2 * len(parts) - 2
    share = np.array(parts, dtype=np.int64) * unit
    count = np.zeros(len(parts), dtype=np.int64)
    order = np.empty(period, dtype=np.int64)
    for n in range(1, period + 1):
        lack = share * n - count * period * unit  # how far each would lag if not drawn now
        eligible = lack >= period
        # The deadline: how many more draws a choice can wait before it lags too far.
        room = np.where(eligible, (period * (unit - 1) - lack) / share, np.inf)
        chosen = int(np.argmin(room))
        order[n - 1] = chosen
        count[chosen] += 1
    return order


def permute(index: int | np.ndarray, size: int, key: str) -> np.ndarray:
    """A keyed bijection of range(size): where each index goes. O(1) memory.

    Four Feistel rounds on the smallest even number of bits that holds `size`, walked along the
    cycle until the value falls inside. Shape of `index`, int64.
    """
    if size < 1:
        raise DatasetError("cannot shuffle an empty set of samples.")
    digest = hashlib.sha256(key.encode()).digest()
    keys = np.frombuffer(digest, dtype="<u8")
    half = max(1, (max(1, (size - 1).bit_length()) + 1) // 2)
    mask = np.uint64((1 << half) - 1)
    shift = np.uint64(half)
    value = np.atleast_1d(np.asarray(index, dtype=np.uint64)).copy()
    todo = np.ones(value.shape, dtype=bool)
    while todo.any():
        left, right = value[todo] >> shift, value[todo] & mask
        for round_key in keys:
            left, right = right, left ^ (_mix(right ^ round_key) & mask)
        value[todo] = (left << shift) | right
        todo = value >= np.uint64(size)
    return value.astype(np.int64).reshape(np.shape(index))


def _mix(value: np.ndarray) -> np.ndarray:
    """The finaliser of splitmix64 (Steele et al., 2014)."""
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


@dataclass(frozen=True)
class Pool:
    """Samples of one bucket that a task may draw. rows: their rows in the index, ascending.

    source: where they come from, of a mixture of sources. batch: slots of a global batch of them;
    0: as many as the mixture's.
    """

    bucket: tuple[int, int, int]
    rows: np.ndarray
    source: str = ""
    batch: int = 0


@dataclass(frozen=True)
class _Source:
    """Buckets of a task and a source, each visited so that all samples come up equally often."""

    pools: list[Pool]
    batch: int

    @cached_property
    def schedule(self) -> Schedule:
        if not any(pool.batch for pool in self.pools):
            return Schedule([len(pool.rows) for pool in self.pools])
        return Schedule([len(pool.rows) / (pool.batch or self.batch) for pool in self.pools])


@dataclass(frozen=True)
class Draw:
    """What a step trains on: a task, a bucket, and one row per slot of the global batch."""

    task: str
    bucket: tuple[int, int, int]
    rows: np.ndarray
    epochs: np.ndarray  # how often the pool was gone through before, per slot
    source: str = ""


@dataclass(frozen=True)
class Mixture:
    """Order of a training stage: a pure function of (seed, step).

    tasks: weight of each task. pools: buckets of each task. batch: slots of a global batch. All
    slots of a step share task and bucket, so every rank computes the same shapes. A pool is gone
    through in a new permutation each epoch; its tail wraps into the next one and is never dropped.
    sources: weight of each source within every task; none: buckets are taken by their size alone.
    A task that has nothing of a source draws from the others, by their weights.
    """

    tasks: Mapping[str, float]
    pools: Mapping[str, Sequence[Pool]]
    batch: int
    seed: int
    sources: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for task in self.tasks:
            if not any(len(pool.rows) for pool in self.pools.get(task, ())):
                raise DatasetError(
                    f"task {task!r} of the mixture has no sample to draw from: none of the latent "
                    "shards has what it needs. Encode clips that do, or take it out of the mixture."
                )
        there = {pool.source for pools in self.pools.values() for pool in pools if len(pool.rows)}
        for source in self.sources:
            if source not in there:
                raise DatasetError(
                    f"source {source!r} of the mixture has no sample to draw from; there are: "
                    f"{', '.join(sorted(there)) or 'none'}. Encode its shards, or take it out."
                )

    @cached_property
    def _schedules(self) -> tuple[Schedule, list[tuple[str, Schedule, list[_Source]]]]:
        inner = []
        for name in self.tasks:
            pools = [p for p in self.pools[name] if len(p.rows)]
            if self.sources:
                weights = {
                    s: w for s, w in self.sources.items() if any(p.source == s for p in pools)
                }
                if not weights:
                    raise DatasetError(
                        f"task {name!r} has no sample of any source of the mixture: "
                        f"{', '.join(self.sources)}. Name one that it can use."
                    )
                parts = [_Source([p for p in pools if p.source == s], self.batch) for s in weights]
                inner.append((name, Schedule(list(weights.values())), parts))
            else:
                inner.append((name, Schedule([1.0]), [_Source(pools, self.batch)]))
        return Schedule(list(self.tasks.values())), inner

    def draw(self, step: int) -> Draw:
        """The global batch of a step, from 0."""
        outer, inner = self._schedules
        choice = outer.choice(step)
        task, sources, parts = inner[choice]
        visit = outer.visits(step, choice)
        source = sources.choice(visit)
        pools, buckets = parts[source].pools, parts[source].schedule
        visit = sources.visits(visit, source)
        chosen = buckets.choice(visit)
        pool = pools[chosen]
        batch = pool.batch or self.batch
        first = buckets.visits(visit, chosen) * batch
        epochs, places = np.divmod(first + np.arange(batch), len(pool.rows))
        of = f"/{pool.source}" if self.sources else ""
        name = f"{self.seed}/{task}{of}/{pool.bucket}"
        blocks = places // BLOCK
        ends = np.flatnonzero((np.diff(blocks) != 0) | (np.diff(epochs) != 0)) + 1
        rows = []
        for first, last in zip([0, *ends.tolist()], [*ends.tolist(), batch], strict=True):
            block, epoch = int(blocks[first]), int(epochs[first])
            order = self._block(f"{name}/{epoch}", len(pool.rows), block)
            rows.append(pool.rows[order[places[first:last] - block * BLOCK]])
        return Draw(task, pool.bucket, np.concatenate(rows), epochs, pool.source)

    @cached_property
    def _block(self) -> Callable[[str, int, int], np.ndarray]:
        """Where BLOCK places in a row go in an epoch of a pool, remembered for steps to come."""

        @lru_cache(maxsize=64)
        def block(key: str, size: int, number: int) -> np.ndarray:
            return permute(np.arange(number * BLOCK, min((number + 1) * BLOCK, size)), size, key)

        return block

    def substitute(self, draw: Draw, slot: int, attempt: int) -> int:
        """Another row of the slot's pool, for one that cannot be read. attempt: 1, 2, ..."""
        pool = next(
            p
            for p in self.pools[draw.task]
            if (p.bucket, p.source) == (draw.bucket, draw.source) and len(p.rows)
        )
        place = int(np.searchsorted(pool.rows, draw.rows[slot])) + attempt
        return int(pool.rows[place % len(pool.rows)])
