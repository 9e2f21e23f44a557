"""Why: the whole path of an asset or clip through a run, from the ledger alone.

    history = History.of(workspace, "clip.mp4")

Each stage is shown with its facts, its bounds and what it said; stages after the one that ended
the unit say what they would have said, as far as they measured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import duckdb

from reelmill.curation.explain.verdict_table import Row, VerdictTable
from reelmill.curation.run_record import BoundRecord, StageRecord
from reelmill.curation.stage import OPS
from reelmill.datasets.ledger import Ledger
from reelmill.datasets.sample import Kind, Outcome, Status
from reelmill.datasets.workspace import Workspace
from reelmill.errors import DatasetError


@dataclass(frozen=True)
class FactLine:
    """One fact of one unit. status: of reelmill.datasets.sample.Status; why: for no value."""

    name: str
    unit: str
    value: float | int | bool | str | None
    status: str
    why: str = ""


@dataclass(frozen=True)
class BoundLine:
    """One decision. holds None: off, or nothing was measured that it could be held against."""

    field: str
    text: str
    holds: bool | None


@dataclass(frozen=True)
class StageLine:
    """One stage of a unit's path.

    outcome: passed, rejected, failed, or not reached. verdict: reason, value, bound and detail of
    the stage that ended the unit; empty for the others.
    """

    stage: str
    outcome: str
    facts: tuple[FactLine, ...] = ()
    bounds: tuple[BoundLine, ...] = ()
    verdict: Mapping[str, Any] | None = None

    @property
    def objects(self) -> bool:
        """Whether it rejects the unit, or would if it were reached."""
        return any(bound.holds is False for bound in self.bounds)


@dataclass(frozen=True)
class UnitHistory:
    """The path of one asset or clip."""

    unit: str
    level: str
    path: str
    outcome: str
    stages: tuple[StageLine, ...]


@dataclass(frozen=True)
class History:
    """What became of what a user asked about.

    paths: every file of it. asset: its own path, None where no recipe saw it (`files` then says
    why). clips: the one asked for, or all of the asset.
    """

    run: str
    sha256: str
    kind: str
    files: tuple[Mapping[str, Any], ...]
    asset: UnitHistory | None
    clips: tuple[UnitHistory, ...]

    @classmethod
    def of(cls, workspace: Workspace, text: str, run: str = "last") -> History:
        """Raises UsageError when the run saw no such thing, DatasetError for a damaged ledger."""
        table = VerdictTable(workspace, run)
        found = table.find(text)
        sha256 = found[0]["asset"]
        wanted = {row["unit"] for row in found if row["level"] == "clip"}
        everything = table.rows("asset = ?", [sha256])
        assets = [row for row in everything if row["level"] == "asset"]
        clips = [row for row in everything if row["level"] == "clip" and row["unit"] in wanted]
        kind = next((row["kind"] for row in everything if row["kind"]), "")
        files = tuple(
            {"path": row["path"], **_verdict(row)} for row in everything if row["level"] == "file"
        )
        if not kind:
            asset = _before_any_recipe(assets[0]) if assets else None
            return cls(table.record.run, sha256, "", files, asset, ())
        stages = table.record.kinds[Kind(kind)].stages
        facts = _Facts(Ledger(workspace), stages, [row["unit"] for row in (*assets, *clips)])
        on_assets = [stage for stage in stages if stage.level == "asset"]
        on_clips = [stage for stage in stages if stage.level == "clip"]
        return cls(
            table.record.run,
            sha256,
            kind,
            files,
            facts.history(assets[0], on_assets) if assets else None,
            tuple(facts.history(row, on_clips) for row in clips),
        )


def _verdict(row: Row) -> dict[str, Any]:
    return {k: row[k] for k in ("outcome", "stage", "reason", "value", "bound", "detail")}


def _before_any_recipe(row: Row) -> UnitHistory:
    line = StageLine("Ingest", row["outcome"], verdict=_verdict(row))
    return UnitHistory(row["unit"], "asset", row["path"], row["outcome"], (line,))


class _Facts:
    """Rows of the facts tables of some units, by stage and unit."""

    def __init__(self, ledger: Ledger, stages: Sequence[StageRecord], units: Sequence[str]):
        self._rows: dict[str, dict[str, Row]] = {}
        with duckdb.connect() as database:
            for stage in stages:
                files = [str(path) for path in ledger.files(stage.folder)]
                self._rows[stage.name] = _read(database, files, units) if files else {}

    def history(self, row: Row, stages: Sequence[StageRecord]) -> UnitHistory:
        """The path of the unit of a verdict row through its stages."""
        ended = row["stage"]
        reached = True
        lines = []
        for stage in stages:
            here = stage.name == ended and row["outcome"] != Outcome.KEPT
            facts = self._rows[stage.name].get(row["unit"], {})
            outcome = row["outcome"] if here else "passed" if reached else "not reached"
            lines.append(
                StageLine(
                    stage.name,
                    outcome,
                    tuple(_fact(name, unit, facts) for name, unit in stage.facts.items()),
                    tuple(_bound(name, b, facts) for name, b in stage.bounds.items()),
                    _verdict(row) if here else None,
                )
            )
            reached = reached and not here
        return UnitHistory(row["unit"], row["level"], row["path"], row["outcome"], tuple(lines))


def _read(
    database: duckdb.DuckDBPyConnection, files: Sequence[str], units: Sequence[str]
) -> dict[str, Row]:
    query = "select * from read_parquet(?) where list_contains(?, unit)"
    try:
        found = database.execute(query, [list(files), list(units)])
        names = [column[0] for column in found.description or ()]
        rows = [dict(zip(names, row, strict=True)) for row in found.fetchall()]
    except duckdb.Error as error:
        raise DatasetError(f"ledger files {files[0]}, ... cannot be read: {error}") from error
    return {row["unit"]: row for row in rows}


def _fact(name: str, unit: str, facts: Row) -> FactLine:
    value, why = facts.get(name), facts.get(f"{name}?")
    if value is not None:
        return FactLine(name, unit, value, str(Status.MEASURED))
    if facts.get("cause"):
        return FactLine(name, unit, None, str(Status.FAILED))
    status, _, reason = (why or "").partition(": ")
    return FactLine(name, unit, None, status or str(Status.NOT_MEASURED), reason)


def _bound(field: str, bound: BoundRecord, facts: Row) -> BoundLine:
    value = facts.get(bound.fact)
    text = str(bound) if bound.fact else f"{field} = {bound.value}"
    if bound.value is None or not bound.fact or not isinstance(value, int | float):
        return BoundLine(field, text, None)
    return BoundLine(field, text, bool(OPS[bound.op](value, bound.value)))
