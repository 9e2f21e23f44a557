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


@dataclass(frozen=True, slots=True)
class Objection:
    """One bound that a unit breaks, whether or not that stage was reached."""

    stage: str
    reason: str
    fact: str = ""


@dataclass
class Decisions:
    """Verdicts over units. ended[row] is the name of the stage that ended a unit, if any."""

    units: Units
    alive: np.ndarray
    ended: dict[int, tuple[str, Verdict]] = field(default_factory=dict)
    objections: dict[int, list[Objection]] = field(default_factory=dict)

    REJECTED: ClassVar = 1
    FAILED: ClassVar = 2

    @classmethod
    def start(cls, units: Units) -> Decisions:
        return cls(units, np.ones(len(units), dtype=bool))

    def end(self, row: int, stage: str, verdict: Verdict) -> None:
        if self.alive[row]:
            self.alive[row] = False
            self.ended[row] = (stage, verdict)

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
        objection, text = Objection(stage.name, bound.reason, bound.fact), str(bound)
        for row, value in zip(rows.tolist(), column.values[rows].tolist(), strict=True):
            self.objections.setdefault(row, []).append(objection)
            if self.alive[row]:
                self.end(row, stage.name, Verdict(Outcome.REJECTED, bound.reason, value, text))

    def _select(self, stage: TableStage, findings: Mapping[str, np.ndarray] | None) -> None:
        rows = np.flatnonzero(self.alive)
        for i, no in sorted(stage.select(self.units.table(rows, findings)).items()):
            row = int(rows[i])
            self.objections.setdefault(row, []).append(Objection(stage.name, no.reason))
            self.end(
                row, stage.name, Verdict(Outcome.REJECTED, no.reason, no.value, no.bound, no.detail)
            )

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
        return len(self.objections.get(row, ())) == 1

    def verdicts(self) -> Iterator[tuple[int, str, Verdict]]:
        """Row, stage that ended it ('' if kept) and verdict, for every unit."""
        for row in range(len(self.units)):
            stage, verdict = self.ended.get(row, ("", Verdict(Outcome.KEPT)))
            yield row, stage, verdict
