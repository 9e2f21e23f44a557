"""Diff: which rule moved how many units between two runs, and which of them changed side."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import duckdb

from reelmill.curation.explain.verdict_table import VerdictTable
from reelmill.curation.run_record import KindRecord
from reelmill.datasets.workspace import Workspace
from reelmill.errors import DatasetError

_QUERY = """
with side as (
    select 1 as run, level, unit, path, outcome, stage, reason from read_parquet($before)
    union all
    select 2, level, unit, path, outcome, stage, reason from read_parquet($after)
), named as (
    select *, case outcome when 'kept' then 'kept'
        else outcome || ' by ' || stage || ': ' || reason end as fate
    from side where level in ('asset', 'clip')
)
select coalesce(a.level, b.level) as level, coalesce(a.unit, b.unit) as unit,
    coalesce(b.path, a.path) as path,
    coalesce(a.fate, 'absent') as before, coalesce(b.fate, 'absent') as after
from (from named where run = 1) a
full outer join (from named where run = 2) b on a.level = b.level and a.unit = b.unit
order by level, unit
"""


@dataclass(frozen=True)
class Move:
    """Units that went from one fate to another.

    before, after: `kept`, `absent`, or `rejected by STAGE: REASON` (`failed by ...`).
    """

    level: str
    before: str
    after: str
    units: tuple[str, ...]

    @property
    def changed_side(self) -> bool:
        return (self.before == "kept") != (self.after == "kept")


@dataclass(frozen=True)
class Difference:
    """What changed from run `before` to run `after`. All units of both runs are counted.

    same: units with the same fate in both, by level. changes: in the recipes, in words, by kind.
    """

    before: str
    after: str
    same: Mapping[str, int]
    moves: tuple[Move, ...]
    changes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @classmethod
    def of(cls, workspace: Workspace, before: str, after: str) -> Difference:
        """Raises UsageError for a run that is not there, DatasetError for one that is damaged."""
        a, b = VerdictTable(workspace, before), VerdictTable(workspace, after)
        try:
            with duckdb.connect() as database:
                paths = {"before": str(a.path), "after": str(b.path)}
                rows = database.execute(_QUERY, paths).fetchall()
        except duckdb.Error as error:
            raise DatasetError(
                f"the verdicts of {before} and {after} cannot be compared: {error}"
            ) from error
        same: dict[str, int] = {"asset": 0, "clip": 0}
        moved: dict[tuple[str, str, str], list[str]] = {}
        for level, unit, _, was, now in rows:
            if was == now:
                same[level] += 1
            else:
                moved.setdefault((level, was, now), []).append(unit)
        moves = [Move(*key, tuple(units)) for key, units in moved.items()]
        moves.sort(key=lambda m: (m.level, not m.changed_side, -len(m.units), m.before, m.after))
        kinds = sorted(a.record.kinds.keys() & b.record.kinds.keys())
        changes = {str(k): _changes(a.record.kinds[k], b.record.kinds[k]) for k in kinds}
        return cls(a.record.run, b.record.run, same, tuple(moves), changes)

    def count(self, level: str, *, lost: bool) -> int:
        """Units that were kept and are not any more, or the other way round."""
        side = "before" if lost else "after"
        return sum(
            len(move.units)
            for move in self.moves
            if move.level == level and move.changed_side and getattr(move, side) == "kept"
        )


def _changes(before: KindRecord, after: KindRecord) -> tuple[str, ...]:
    """Stages that came, went or moved a field, in words."""
    old = {stage.name: stage for stage in before.stages}
    new = {stage.name: stage for stage in after.stages}
    found = [f"{name} is gone" for name in old if name not in new]
    found += [f"{name} is new" for name in new if name not in old]
    for name in (name for name in new if name in old):
        was: dict[str, Any] = {**old[name].fields, **_values(old[name].bounds)}
        now: dict[str, Any] = {**new[name].fields, **_values(new[name].bounds)}
        found += [
            f"{name}.{field} {was.get(field)} -> {now.get(field)}"
            for field in now
            if was.get(field) != now.get(field)
        ]
        if old[name].key != new[name].key and old[name].fields == new[name].fields:
            found.append(f"{name} measures anew: its code, weights, version or needs changed")
    return tuple(found)


def _values(bounds: Mapping[str, Any]) -> dict[str, Any]:
    return {name: bound.value for name, bound in bounds.items()}
