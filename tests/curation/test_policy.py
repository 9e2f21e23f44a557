"""Deciding: conservation, order, three outcomes, 'only reason'."""

from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reelmill.curation.policy import Decisions
from reelmill.curation.result import Count
from reelmill.curation.stage import (
    AssetStage,
    Bound,
    Fact,
    NotApplicable,
    NotMeasured,
    Rejection,
    TableStage,
    above,
    below,
)
from reelmill.curation.units import (
    FAILED,
    MEASURED,
    NOT_APPLICABLE,
    NOT_MEASURED,
    Units,
    facts_row,
    facts_schema,
    failed_row,
)
from reelmill.datasets.sample import Clip, Kind, Outcome
from reelmill.errors import ConservationError


@dataclass(frozen=True, kw_only=True)
class A(AssetStage):
    adds: ClassVar = (Fact("a", "", "A."), Fact("note", "", "Text.", dtype=str))
    max_a: Bound = below(0.2, "a", "a_high")

    def measure(self, path, info): ...


@dataclass(frozen=True, kw_only=True)
class B(AssetStage):
    adds: ClassVar = (Fact("b", "", "B."),)
    min_b: Bound = above(0.5, "b", "b_low")

    def measure(self, path, info): ...


@dataclass(frozen=True, kw_only=True)
class First(TableStage):
    """Keeps only the first two."""

    def select(self, table):
        return {i: Rejection("late", i, detail=table.clips[0].id) for i in range(2, len(table))}


def units(count):
    clips = [
        Clip(f"{i:016x}" * 4, Kind.VIDEO, 0, 10, Fraction(1, 10), 0, 0, 10) for i in range(count)
    ]
    return Units([c.id for c in clips], clips)


def load(held, stage, rows):
    held.load(stage, pa.Table.from_pylist(rows, schema=facts_schema(stage)))


value = st.one_of(st.floats(0, 1), st.sampled_from(["na", "nm", "failed", "absent"]))


@given(st.lists(st.tuples(value, value), min_size=1, max_size=30))
def test_every_unit_has_one_outcome_and_the_right_one(pairs):
    held = units(len(pairs))
    decisions = Decisions.start(held)
    for stage, name, column in ((A(), "a", 0), (B(), "b", 1)):
        rows = []
        for unit, pair in zip(held.ids, pairs, strict=True):
            v = pair[column]
            if v == "failed":
                rows.append(failed_row(unit, "corrupt", "no"))
            elif v != "absent":
                fact = {"na": NotApplicable("x"), "nm": NotMeasured("y")}.get(v, v)
                extra = {"note": "n"} if stage.name == "A" else {}
                rows.append(facts_row(unit, stage, {name: fact} | extra))
        load(held, stage, rows)
        decisions.apply(stage)

    def expected(pair):
        for v, good in zip(pair, (lambda v: v < 0.2, lambda v: v > 0.5), strict=True):
            if v == "failed":
                return Outcome.FAILED
            if isinstance(v, float) and not good(v):
                return Outcome.REJECTED
        return Outcome.KEPT

    outcomes = [verdict.outcome for _, _, verdict in decisions.verdicts()]
    assert outcomes == [expected(p) for p in pairs]
    Count.of(outcomes)
    for row, pair in enumerate(pairs):
        broken = sum(
            isinstance(v, float) and not good
            for v, good in ((pair[0], pair[0] < 0.2 if isinstance(pair[0], float) else True),
                            (pair[1], pair[1] > 0.5 if isinstance(pair[1], float) else True))
        )  # fmt: skip
        assert decisions.objections[row] == broken


@pytest.mark.parametrize(("a", "outcome"), [(0.19, "kept"), (0.2, "rejected"), (0.21, "rejected")])
def test_both_sides_of_a_bound(a, outcome):
    held = units(1)
    load(held, A(), [facts_row(held.ids[0], A(), {"a": a, "note": "n"})])
    decisions = Decisions.start(held)
    decisions.apply(A())
    ((_, stage, verdict),) = decisions.verdicts()
    assert verdict.outcome == outcome
    if outcome == "rejected":
        found = (stage, verdict.reason, verdict.value, verdict.bound)
        assert found == ("A", "a_high", a, "a < 0.2")


def test_what_has_no_value_is_told_apart():
    held = units(4)
    load(
        held,
        B(),
        [
            facts_row(held.ids[0], B(), {"b": 0.7}),
            facts_row(held.ids[1], B(), {"b": NotApplicable("no sound")}),
            facts_row(held.ids[2], B(), {"b": NotMeasured("weights absent")}),
            failed_row(held.ids[3], "corrupt", "bad"),
        ],
    )
    column = held.columns["b"]
    expected = [MEASURED, NOT_APPLICABLE, NOT_MEASURED, FAILED]
    assert column.status.tolist() == expected
    assert column.why == {1: "no sound", 2: "weights absent"}


def test_a_table_stage_sees_only_the_living():
    held = units(5)
    load(held, B(), [facts_row(u, B(), {"b": 0.9 if i else 0.1}) for i, u in enumerate(held.ids)])
    decisions = Decisions.start(held)
    decisions.apply(B())
    decisions.apply(First())
    ended = {row: (stage, verdict.reason) for row, (stage, verdict) in decisions.ended.items()}
    assert ended == {0: ("B", "b_low"), 3: ("First", "late"), 4: ("First", "late")}
    assert decisions.ended[3][1].detail == held.ids[1]
    assert decisions.only(0)


def test_a_stage_that_does_not_return_what_it_declares_is_refused():
    with pytest.raises(TypeError, match="declares"):
        facts_row("u", A(), {"a": 1.0})
    with pytest.raises(ValueError, match="no number"):
        facts_row("u", B(), {"b": float("nan")})


def test_counts_that_do_not_add_up_are_an_error():
    with pytest.raises(ConservationError, match="3 came in"):
        Count(3, 1, 1, 0)


def test_an_unset_bound_holds_for_all():
    assert Bound(None, "a", "<").holds(np.array([1.0, np.nan])).all()
