"""Drift: which figures of a run are not those of an earlier run, beyond what chance explains.

Scores are compared by the population stability index over at most ten bins that hold equal parts
of the earlier run: psi = sum of (q - p) ln(q / p). 0.25 is the usual mark of a changed population
(Siddiqi, Credit Risk Scorecards, 2006). Of two samples of one population, of n and m units, psi is
about (1/n + 1/m) chi-squared with bins - 1 degrees of freedom (Yurdakul, 2018); an alarm is above
both the mark and the 99.9 % point of that. Shares (rejected, failed, without a value) are alarmed
when they moved by 5 points and by more than 3.3 standard errors.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from reelmill.reports.histogram import Histogram
from reelmill.reports.schema import RunReport, StageReport

MARK = 0.25
BINS = 10
POINTS = 0.05
Z = 3.29  # 99.9 % of a normal variable lie within
LEAST = 30  # units in each run; below, nothing is compared
_EDGES = ("fact", "low", "high", "bins", "log", "closed")


@dataclass(frozen=True)
class Alarm:
    """One figure of one stage that drifted. what: in words, with both values."""

    stage: str
    what: str

    def __str__(self) -> str:
        return f"{self.stage}: {self.what}"


@dataclass(frozen=True)
class Shift:
    """How far a score moved. limit: of psi, above which it is an alarm. distance: the
    Jensen-Shannon distance, 0 (the same) to 1 (nothing in common)."""

    psi: float
    limit: float
    distance: float

    @property
    def alarming(self) -> bool:
        return self.psi > self.limit


def shift(before: Histogram, after: Histogram) -> Shift | None:
    """Of one fact in two runs; None where edges differ or either run has too few values."""
    if any(getattr(before, name) != getattr(after, name) for name in _EDGES):
        return None
    old, new = before.counts, after.counts
    if min(sum(old), sum(new)) < LEAST:
        return None
    groups = list(_groups(old))
    p = _shares([sum(old[a:b]) for a, b in groups])
    q = _shares([sum(new[a:b]) for a, b in groups])
    psi = sum((y - x) * math.log(y / x) for x, y in zip(p, q, strict=True))
    noise = (1 / sum(old) + 1 / sum(new)) * _chi_squared(len(groups) - 1)
    return Shift(psi, max(MARK, noise), _jensen_shannon(old, new))


def _groups(counts: list[int]) -> Iterator[tuple[int, int]]:
    """Runs of neighbouring bins, [a, b), with about a tenth of the counts each."""
    total, start, held, made = sum(counts), 0, 0, 0
    for place, count in enumerate(counts):
        held += count
        if held >= total * (made + 1) / BINS and place < len(counts) - 1 and held < total:
            yield start, place + 1
            start = place + 1
            made = int(held * BINS / total)
    yield start, len(counts)


def _shares(counts: list[int]) -> list[float]:
    """Half a unit is added to each count, so that none is zero."""
    total = sum(counts) + 0.5 * len(counts)
    return [(count + 0.5) / total for count in counts]


def _chi_squared(freedom: int) -> float:
    """The 99.9 % point of chi-squared (Wilson and Hilferty, 1931)."""
    if freedom < 1:
        return 0.0
    part = 2 / (9 * freedom)
    return freedom * (1 - part + 3.0902 * math.sqrt(part)) ** 3


def _jensen_shannon(old: list[int], new: list[int]) -> float:
    n, m, total = sum(old), sum(new), 0.0
    for a, b in zip(old, new, strict=True):
        x, y = a / n, b / m
        middle = (x + y) / 2
        total += sum(0.5 * s * math.log2(s / middle) for s in (x, y) if s)
    return math.sqrt(max(0.0, min(1.0, total)))


def alarms(before: RunReport, after: RunReport) -> list[Alarm]:
    """Everything that drifted, in the order of the stages of `after`."""
    old = {stage.slug: stage for stage in before.stages}
    return [
        Alarm(stage.slug, what)
        for stage in after.stages
        if stage.slug in old
        for what in _drifted(old[stage.slug], stage)
    ]


def _drifted(before: StageReport, after: StageReport) -> Iterator[str]:
    n, m = before.tally.into.count, after.tally.into.count
    for name in ("rejected", "failed"):
        a, b = getattr(before.tally, name).count, getattr(after.tally, name).count
        if _moved(a, n, b, m):
            yield f"{name} {a / n:.1%} -> {b / m:.1%}"
    old = {h.fact: h for h in before.histograms}
    for histogram in after.histograms:
        earlier = old.get(histogram.fact)
        if earlier is None:
            continue
        n, m = (h.measured + h.valueless for h in (earlier, histogram))
        if _moved(earlier.valueless, n, histogram.valueless, m):
            yield (
                f"{histogram.fact} without a value {earlier.valueless / n:.1%} -> "
                f"{histogram.valueless / m:.1%}"
            )
        found = shift(earlier, histogram)
        if found is not None and found.alarming:
            a, b = (h.quantile(0.5) or 0.0 for h in (earlier, histogram))
            yield (
                f"{histogram.fact} has moved, median {a:.4g} -> {b:.4g} "
                f"(psi {found.psi:.2f}, alarm above {found.limit:.2f})"
            )


def _moved(a: int, n: int, b: int, m: int) -> bool:
    if min(n, m) < LEAST or abs(b / m - a / n) < POINTS:
        return False
    pooled = (a + b) / (n + m)
    error = math.sqrt(pooled * (1 - pooled) * (1 / n + 1 / m))
    return abs(b / m - a / n) > Z * error
