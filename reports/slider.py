"""What would pass if a bound stood elsewhere: the stops of its slider.

All counts are worked out here, from the histogram; the page's script only looks them up.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass

from reelmill.reports.histogram import Histogram, closed_side
from reelmill.reports.schema import BoundReport


@dataclass(frozen=True)
class Stop:
    """passing: units with a value that this bound alone lets pass, were it at `value`.

    value None: the bound switched off. ends: of all units with a value, those that would end in
    the shards, as far as they were measured; None where that is unknown. place: on the axis, from
    0 (under) over 1 .. bins + 1 (edges) to bins + 2 (over).
    """

    value: float | None
    passing: int
    ends: int | None
    place: float
    current: bool = False


def exact(histogram: Histogram, bound: BoundReport) -> bool:
    """Whether counts at the stops are exact, values equal to an edge included."""
    return histogram.closed == closed_side(bound.op)


def stops(histogram: Histogram, bound: BoundReport, *, others: bool = False) -> list[Stop]:
    """Stops in axis order: every edge, and the bound's own value, exactly counted.

    others: another bound reads the same fact, so that `only` may be its doing: units that it
    keeps out are then no gain.
    """
    if not bound.op or bound.fact != histogram.fact:
        return []
    upward = bound.op in (">", ">=")
    counts, edges = histogram.counts, histogram.edges
    shipped, only = histogram.shipped, histogram.only
    known = shipped is not None and only is not None
    gain = list(only or [0] * len(counts))
    if others:
        now = len(counts) if bound.value is None else _bin_of(histogram, bound.value)
        for k in range(len(gain)):
            on_failing_side = bound.value is not None and (k <= now if upward else k >= now)
            gain[k] = gain[k] if on_failing_side else 0

    def ends(chosen: slice) -> int | None:
        return sum((shipped or ())[chosen]) + sum(gain[chosen]) if known else None

    found = []
    for i, edge in enumerate(edges):
        chosen = slice(i + 1, None) if upward else slice(None, i + 1)
        found.append(Stop(edge, sum(counts[chosen]), ends(chosen), i + 1.0, edge == bound.value))
    if bound.value is None:
        off = Stop(None, sum(counts), ends(slice(None)), 0.0 if upward else len(edges) + 1, True)
        found.insert(0 if upward else len(found), off)
    elif bound.broken is not None:
        place = _place(histogram, bound.value)
        passing = histogram.measured - bound.broken
        kept = sum(shipped) if shipped is not None and known else None
        found = [stop for stop in found if not stop.current]
        found.append(Stop(bound.value, passing, kept, place, True))
        found.sort(key=lambda stop: stop.value if stop.value is not None else 0.0)
    return found


def _bin_of(histogram: Histogram, value: float) -> int:
    """Index into counts of the bin where units that break a bound at `value` may begin."""
    find = bisect_right if histogram.closed == "left" else bisect_left
    return find(histogram.edges, value)


def _place(histogram: Histogram, value: float) -> float:
    """Position of a value on the axis of Stop.place."""
    edges = histogram.edges
    if value < edges[0]:
        return 0.5
    if value > edges[-1]:
        return len(edges) + 0.5
    i = min(bisect_right(edges, value), len(edges) - 1)
    a, b = edges[i - 1], edges[i]
    return i + (value - a) / (b - a)
