from __future__ import annotations

import operator

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from tests.reports.planted_run import CLIP_RULES, OPS, plant

from reelmill.reports.histogram import Histogram, closed_side
from reelmill.reports.schema import BoundReport
from reelmill.reports.slider import exact, stops

values = st.lists(
    st.one_of(
        st.floats(-5, 5, allow_nan=False),
        st.sampled_from([0.0, 0.25, 0.5, 1.0, -1.0, 0.1, 0.3, float("nan")]),
    ),
    max_size=60,
)
ops = st.sampled_from(["<", "<=", ">", ">="])


def histogram(found, op="", bins=20, low=0.0, high=1.0, **more):
    array = np.asarray(found, dtype=float)
    rejected = np.asarray([i % 3 == 0 for i in range(len(array))], dtype=bool)
    return Histogram.of("f", array, rejected, low=low, high=high, bins=bins, op=op, **more)


@given(values, values, values, ops)
def test_parts_add_up_to_the_whole(a, b, c, op):
    def part(found, start):
        array = np.asarray(found, dtype=float)
        mask = np.arange(start, start + len(found)) % 3 == 0
        return Histogram.of(
            "f", array, mask, low=0, high=1, bins=20, op=op, shipped=~mask, only=mask,
            not_measured=len(found),
        )  # fmt: skip

    whole = part([*a, *b, *c], 0)
    x, y, z = part(a, 0), part(b, len(a)), part(c, len(a) + len(b))
    assert (x + y) + z == x + (y + z) == whole
    assert y + x == x + y
    assert x + part([], 0) == x


@given(values)
def test_every_value_is_in_one_place(found):
    h = histogram(found)
    assert h.measured + h.nan == len(found)
    assert h.nan == sum(np.isnan(v) for v in found)


@given(values, ops, st.integers(1, 40))
def test_counts_beyond_an_edge_are_exact(found, op, bins):
    h = histogram(found, op, bins)
    for i, edge in enumerate(h.edges):
        assert h.passing(op, i) == sum(OPS[op](v, edge) for v in found if not np.isnan(v))


@given(st.lists(st.floats(0.001, 1000), min_size=1, max_size=80), st.floats(0, 1), st.booleans())
def test_a_quantile_is_within_a_bin_of_the_true_one(found, q, log):
    low, high = (0.001, 1000.0) if log else (0.0, 1000.0)
    h = Histogram.of(
        "f", np.asarray(found), np.zeros(len(found), bool), low=low, high=high, log=log, op="<="
    )
    inside = [v for v in found if low < v <= high]
    assume(len(inside) == len(found))
    got = h.quantile(q)
    below = float(np.quantile(found, q, method="lower"))
    above = float(np.quantile(found, q, method="higher"))
    edges = np.asarray(h.edges)
    floor = edges[max(np.searchsorted(edges, below, side="left") - 1, 0)]
    ceiling = edges[min(np.searchsorted(edges, above, side="right"), len(edges) - 1)]
    assert floor - 1e-9 <= got <= ceiling + 1e-9


def test_edges_read_well_and_never_depend_on_the_data():
    h = histogram([0.1, 99, -3], bins=10)
    assert h.edges == [0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1]
    assert h.edges == histogram([], bins=10).edges
    log = Histogram.of("f", np.ones(1), np.ones(1), low=1, high=1e4, bins=4, log=True)
    assert log.edges == [1, 10, 100, 1000, 10000]


def test_other_edges_do_not_add():
    with pytest.raises(ValueError, match="bins is 20 and 10"):
        histogram([1], bins=20) + histogram([1], bins=10)
    with pytest.raises(ValueError, match="closed"):
        histogram([1], ">") + histogram([1], ">=")


@pytest.mark.parametrize(
    ("more", "what"),
    [
        ({"low": 1.0, "high": 1.0}, "must be below"),
        ({"low": -1.0, "log": True}, "log axis"),
        ({"low": 1.0, "high": 1.0 + 1e-14, "bins": 50}, "too fine"),
    ],
)
def test_axes_that_cannot_be(more, what):
    with pytest.raises(ValueError, match=what):
        histogram([], **more)


def test_no_values_no_quantile():
    assert histogram([]).quantile(0.5) is None
    assert histogram([float("nan")]).quantile(0.5) is None


@given(values, ops, st.floats(-0.5, 1.5), st.integers(1, 30))
def test_slider_counts_are_recounts(found, op, bound, bins):
    h = histogram(found, op, bins)
    numbers = [v for v in found if not np.isnan(v)]
    report = BoundReport(
        field="x", fact="f", op=op, value=bound, broken=sum(not OPS[op](v, bound) for v in numbers)
    )
    found_stops = stops(h, report)
    assert exact(h, report)
    assert [s.value for s in found_stops] == sorted({*h.edges, bound})
    assert [s.place for s in found_stops] == sorted(s.place for s in found_stops)
    assert [s.value for s in found_stops if s.current] == [bound]
    for stop in found_stops:
        assert stop.passing == sum(OPS[op](v, stop.value) for v in numbers)


def test_a_bound_that_is_off_starts_where_all_pass():
    for op, first in ((">=", True), ("<=", False)):
        found = stops(histogram([0.2, 0.7], op), BoundReport(field="x", fact="f", op=op))
        off = found[0 if first else -1]
        assert (off.value, off.passing, off.current) == (None, 2, True)


def test_bounds_on_other_facts_have_no_stops():
    assert stops(histogram([1]), BoundReport(field="x", fact="g", op=">", value=1)) == []
    assert stops(histogram([1]), BoundReport(field="x", value=1)) == []
    assert closed_side(">=") == closed_side("<") == "left"
    assert closed_side(">") == closed_side("<=") == "right"


def _shipped_with(planted, rule, moved, value):
    """Clips with a value here that every rule lets pass when one bound stands at `value`."""
    alive = 0
    for row in planted.came_into(rule.name):
        if row.facts[rule.fact] is None or row.fails_at:
            continue
        good = True
        for other in CLIP_RULES:
            fact = row.facts[other.fact]
            for field, op, bound, _ in other.bounds:
                at = value if (other, field) == (rule, moved) else bound
                good &= fact is None or at is None or getattr(operator, _NAMES[op])(fact, at)
        alive += good
    return alive


_NAMES = {"<": "lt", "<=": "le", ">": "gt", ">=": "ge"}


def test_what_reaches_the_shards_is_what_deciding_again_gives(tmp_path):
    planted = plant(tmp_path, clips=400, previews=0)
    checked = moved_something = 0
    for rule in CLIP_RULES:
        stage = next(s for s in planted.report.stages if s.name == rule.name)
        (h,) = stage.histograms
        for bound in stage.bounds:
            if not exact(h, bound):
                continue
            found = stops(h, bound, others=len(rule.bounds) > 1)
            now = next(s for s in found if s.current)
            for stop in found:
                assert stop.ends == _shipped_with(planted, rule, bound.field, stop.value), stop
                checked += 1
                moved_something += stop.ends != now.ends
    assert checked > 200
    assert moved_something > 100
