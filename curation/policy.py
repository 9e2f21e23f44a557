"""Deciding: from stored facts to verdicts, with no media in sight.

Stages decide in recipe order. A unit's verdict is that of the first stage that rejects or fails
it; what later stages would have said is still counted, so that a report can tell for how many
units a reason was the only one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from reelmill.curation.stage import Bound, Stage, TableStage
from reelmill.curation.units import Units
from reelmill.datasets.sample import Outcome, Verdict


@dataclass
class Decisions:
    """Verdicts over units. A plan only asks who is alive, so they are made when they are asked for.

    objections: how many bounds each unit breaks, whether or not their stages were reached, int16
    [units]; broken: how many of those are bounds of one stage on one fact, int8 [units] each.
    """

    units: Units
    alive: np.ndarray
    _ended: dict[int, tuple[str, Verdict]] = field(default_factory=dict)
    _ending: list[tuple[str, Iterator[tuple[int, Verdict]]]] = field(default_factory=list)
    objections: np.ndarray = field(init=False)
    broken: dict[tuple[str, str], np.ndarray] = field(default_factory=dict)

    REJECTED: ClassVar = 1
    FAILED: ClassVar = 2

    def __post_init__(self) -> None:
        self.objections = np.zeros(len(self.units), np.int16)

    @classmethod
    def start(cls, units: Units) -> Decisions:
        return cls(units, np.ones(len(units), dtype=bool))

    @property
    def ended(self) -> Mapping[int, tuple[str, Verdict]]:
        """The stage that ended a unit, and its verdict, by row."""
        for stage, verdicts in self._ending:
            self._ended.update((row, (stage, verdict)) for row, verdict in verdicts)
        self._ending.clear()
        return self._ended

    def _end(self, stage: str, rows: np.ndarray, verdicts: Iterator[Verdict]) -> None:
        """Ends units that are alive; their verdicts are taken later."""
        self.alive[rows] = False
        self._ending.append((stage, zip(rows.tolist(), verdicts, strict=True)))

    def end(self, row: int, stage: str, verdict: Verdict) -> None:
        if self.alive[row]:
            self._end(stage, np.array([row]), iter([verdict]))

    def apply(self, stage: Stage, findings: Mapping[str, np.ndarray] | None = None) -> None:
        """Decides one stage for all units; its facts must be loaded.

        findings: of a TableStage, over all units.
        """
        for row, (cause, message) in self.units.errors.get(stage.name, {}).items():
            self.end(row, stage.name, Verdict(Outcome.FAILED, cause, detail=message))
        if isinstance(stage, TableStage):
            self._select(stage, findings)
            return
        for bound in stage.bounds().values():
            if bound.fact and bound.value is not None:
                self._bound(stage, bound)

    def _bound(self, stage: Stage, bound: Bound) -> None:
        column = self.units.columns[bound.fact]
        rows = np.flatnonzero(~bound.holds(column.values))
        self._object(stage, bound.fact, rows)
        rows = rows[self.alive[rows]]
        values, reason, text = column.values[rows].tolist(), bound.reason, str(bound)
        verdicts = (Verdict(Outcome.REJECTED, reason, value, text) for value in values)
        self._end(stage.name, rows, verdicts)

    def _object(self, stage: Stage, fact: str, rows: np.ndarray) -> None:
        broken = self.broken.setdefault((stage.name, fact), np.zeros(len(self.units), np.int8))
        broken[rows] += 1
        self.objections[rows] += 1

    def only_by(self, stage: str, fact: str, rows: np.ndarray) -> np.ndarray:
        """Which of these rows break no bound but those of one stage on one fact, bool [rows]."""
        broken = self.broken.get((stage, fact))
        if broken is None:
            return np.zeros(len(rows), dtype=bool)
        return (broken[rows] > 0) & (broken[rows] == self.objections[rows])

    def _select(self, stage: TableStage, findings: Mapping[str, np.ndarray] | None) -> None:
        rows = np.flatnonzero(self.alive)
        found = stage.select(self.units.table(rows, findings))
        places = np.array(sorted(found), np.int64)
        verdicts = (
            Verdict(Outcome.REJECTED, no.reason, no.value, no.bound, no.detail)
            for no in map(found.__getitem__, places.tolist())
        )
        self._object(stage, "", rows[places])
        self._end(stage.name, rows[places], verdicts)

    def ended_in(self, stage: str) -> np.ndarray:
        """int8 [units]: REJECTED or FAILED where that stage ended a unit, else 0."""
        codes = {Outcome.REJECTED: self.REJECTED, Outcome.FAILED: self.FAILED}
        found = np.zeros(len(self.units), np.int8)
        for row, (name, verdict) in self.ended.items():
            if name == stage:
                found[row] = codes[verdict.outcome]
        return found

    def only(self, row: int) -> bool:
        """Whether the unit would have been kept but for the one reason that it was rejected for."""
        return bool(self.objections[row] == 1)

    def verdicts(self) -> Iterator[tuple[int, str, Verdict]]:
        """Row, stage that ended it ('' if kept) and verdict, for every unit."""
        for row in range(len(self.units)):
            stage, verdict = self.ended.get(row, ("", Verdict(Outcome.KEPT)))
            yield row, stage, verdict
