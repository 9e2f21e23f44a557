"""A histogram with edges that its fact declares, so that histograms of partitions add up."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Literal

import numpy as np
from pydantic import Field, model_validator

from reelmill.reports.tally import Count, Record

MAX_BINS = 200
Op = Literal["<", "<=", ">", ">="]


def closed_side(op: str) -> Literal["left", "right"]:
    """The closed side of bins that makes counts beyond an edge exact for `value op edge`."""
    return "left" if op in ("", ">=", "<") else "right"


class Histogram(Record):
    """Counts of one fact over the units that came into a stage and did not fail in it.

    low, high, bins, log: the edges, declared by the fact and never taken from the data, so that
    histograms of partitions add up. closed: the side on which a bin includes its edge, `left`
    [a, b) or `right` (a, b]. kept, rejected: bins + 2 counts: below the first edge, one per bin,
    above the last. shipped: of the kept, those that end in the shards. only: of the rejected, those
    that nothing but this fact's bounds keeps out of them, as far as it was measured. None: unknown.
    nan, not_applicable, not_measured: units with no value, by why.
    """

    fact: str
    unit: str = ""
    what: str = ""
    low: float
    high: float
    bins: int = Field(default=40, ge=1, le=MAX_BINS)
    log: bool = False
    closed: Literal["left", "right"] = "left"
    kept: list[Count]
    rejected: list[Count]
    shipped: list[Count] | None = None
    only: list[Count] | None = None
    nan: Count = 0
    not_applicable: Count = 0
    not_measured: Count = 0

    @model_validator(mode="after")
    def _consistent(self) -> Histogram:
        if not self.low < self.high:
            raise ValueError(f"{self.fact}: low {self.low} must be below high {self.high}")
        if self.log and self.low <= 0:
            raise ValueError(f"{self.fact}: a log axis cannot start at {self.low}")
        edges = self.edges
        if not all(a < b for a, b in pairwise(edges)):
            raise ValueError(f"{self.fact}: {self.bins} bins are too fine for [{edges[0]}, ...]")
        for name in ("kept", "rejected", "shipped", "only"):
            counts = getattr(self, name)
            if counts is not None and len(counts) != self.bins + 2:
                raise ValueError(f"{self.fact}: {name} has {len(counts)} counts, not bins + 2")
        for part, whole in (("shipped", "kept"), ("only", "rejected")):
            some, all_ = getattr(self, part), getattr(self, whole)
            if some is not None and any(a > b for a, b in zip(some, all_, strict=True)):
                raise ValueError(f"{self.fact}: a bin has more {part} than {whole}")
        return self

    @property
    def edges(self) -> list[float]:
        """bins + 1 edges, rounded so that they read well; the bins are between these."""
        return list(_edges(self.low, self.high, self.bins, self.log))

    @classmethod
    def of(
        cls,
        fact: str,
        values: np.ndarray,
        rejected: np.ndarray,
        *,
        low: float,
        high: float,
        bins: int = 40,
        log: bool = False,
        op: str = "",
        shipped: np.ndarray | None = None,
        only: np.ndarray | None = None,
        unit: str = "",
        what: str = "",
        not_applicable: int = 0,
        not_measured: int = 0,
    ) -> Histogram:
        """Counts `values` [n]. rejected, shipped, only: bool [n]. op: that of the fact's bound.

        Units without a value are left out of `values` and given as counts; NaN among the values
        goes to `nan`.
        """
        empty = [0] * (bins + 2)
        self = cls(
            fact=fact, unit=unit, what=what, low=low, high=high, bins=bins, log=log,
            closed=closed_side(op), kept=empty, rejected=empty,
        )  # fmt: skip
        values = np.asarray(values, dtype=np.float64)
        rejected = np.asarray(rejected, dtype=bool)
        number = ~np.isnan(values)
        side: Literal["left", "right"] = "right" if self.closed == "left" else "left"
        place = np.searchsorted(np.asarray(self.edges), values, side=side)

        def counts(mask: np.ndarray) -> list[int]:
            return [int(n) for n in np.bincount(place[mask & number], minlength=bins + 2)]

        return self.model_copy(
            update={
                "kept": counts(~rejected),
                "rejected": counts(rejected),
                "shipped": None if shipped is None else counts(np.asarray(shipped, dtype=bool)),
                "only": None if only is None else counts(np.asarray(only, dtype=bool)),
                "nan": int((~number).sum()),
                "not_applicable": not_applicable,
                "not_measured": not_measured,
            }
        )

    def __add__(self, other: Histogram) -> Histogram:
        """Of both sets of units. ValueError unless fact and edges are the same."""
        for name in ("fact", "unit", "low", "high", "bins", "log", "closed"):
            if getattr(self, name) != getattr(other, name):
                raise ValueError(
                    f"histograms of {self.fact} and {other.fact} do not add: {name} is "
                    f"{getattr(self, name)!r} and {getattr(other, name)!r}"
                )

        def plus(a: Sequence[int] | None, b: Sequence[int] | None) -> list[int] | None:
            if a is None or b is None:
                return None
            return [x + y for x, y in zip(a, b, strict=True)]

        return self.model_copy(
            update={
                "kept": plus(self.kept, other.kept),
                "rejected": plus(self.rejected, other.rejected),
                "shipped": plus(self.shipped, other.shipped),
                "only": plus(self.only, other.only),
                "nan": self.nan + other.nan,
                "not_applicable": self.not_applicable + other.not_applicable,
                "not_measured": self.not_measured + other.not_measured,
            }
        )

    @property
    def counts(self) -> list[int]:
        """Kept and rejected together, bins + 2."""
        return [a + b for a, b in zip(self.kept, self.rejected, strict=True)]

    @property
    def measured(self) -> int:
        return sum(self.counts)

    @property
    def valueless(self) -> int:
        return self.nan + self.not_applicable + self.not_measured

    def passing(self, op: Op, edge: int) -> int:
        """Units with a value for which `value op edges[edge]` holds.

        Exact where `closed` is `closed_side(op)`; else off by the values equal to the edge.
        """
        counts = self.counts
        return sum(counts[edge + 1 :] if op in (">", ">=") else counts[: edge + 1])

    def quantile(self, q: float) -> float | None:
        """The q-quantile read from the bins, linear inside one; None without values.

        Off by at most a bin's width inside [low, high]; a quantile beyond reads low or high.
        """
        if not 0 <= q <= 1:
            raise ValueError(f"quantile {q} is not from 0 to 1")
        counts, edges = self.counts, self.edges
        if not (total := sum(counts)):
            return None
        target, below = q * total, 0.0
        for place, count in enumerate(counts):
            if count and below + count >= target:
                if place == 0:
                    return self.low
                if place == self.bins + 1:
                    return self.high
                a, b = edges[place - 1], edges[place]
                share = (target - below) / count
                return float(a * (b / a) ** share if self.log else a + (b - a) * share)
            below += count
        return self.high


@lru_cache(maxsize=1024)
def _edges(low: float, high: float, bins: int, log: bool) -> tuple[float, ...]:
    space = np.geomspace if log else np.linspace
    inner = space(low, high, bins + 1)[1:-1]
    rounded = [float(f"{edge:.{4 if log else 12}g}") for edge in inner]
    edges = (low, *rounded, high)
    if log and not all(a < b for a, b in pairwise(edges)):
        return (low, *(float(edge) for edge in inner), high)
    return edges
