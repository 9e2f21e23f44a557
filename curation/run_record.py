"""The record of a run: under which keys and bounds it decided, so that its verdicts can be read.

    ledger/runs/<run>.json    this record, written after ledger/verdicts/<run>.parquet

A run without a record did not end.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from reelmill.datasets.ingest.remote import shown
from reelmill.datasets.manifest import printable
from reelmill.datasets.sample import Kind
from reelmill.datasets.workspace import Workspace, commit_bytes
from reelmill.errors import DatasetError, UsageError

if TYPE_CHECKING:
    from reelmill.curation.engine import Curation
    from reelmill.curation.level import Level

MAX_BYTES = 16 << 20


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class BoundRecord(_Record):
    """One decision of a stage; fact is empty for what the stage itself reads. value None: off."""

    fact: str = ""
    op: str = ""
    value: float | None = None
    reason: str = ""

    def __str__(self) -> str:
        return f"{self.fact} {self.op} {self.value:g}" if self.value is not None else "off"


class StageRecord(_Record):
    """One stage as it ran. facts: unit by name of fact. fields: what its measurement depends on."""

    name: str
    key: str
    level: Literal["asset", "clip"]
    fields: Mapping[str, Any]
    bounds: Mapping[str, BoundRecord]
    facts: Mapping[str, str]

    @property
    def folder(self) -> str:
        """Where the ledger keeps its facts."""
        return f"ledger/facts/{self.name}/{self.key}"


class KindRecord(_Record):
    """The recipe of one kind as it ran. segments: where the ledger keeps the clips' spans."""

    recipe: str
    segments: str
    stages: tuple[StageRecord, ...]


class RunRecord(_Record):
    """One run. media: where the ledger keeps what each asset holds."""

    schema_version: Literal[1] = 1
    run: str
    sources: tuple[str, ...]
    media: str
    decoded: str
    kinds: Mapping[Kind, KindRecord]

    def verdicts(self, workspace: Workspace) -> Path:
        """The run's verdicts. Raises DatasetError when they are gone."""
        path = workspace.ledger / "verdicts" / f"{self.run}.parquet"
        if not path.is_file():
            raise DatasetError(f"the verdicts of run {self.run} are missing: {path}. Curate again.")
        return path


def save_run(curation: Curation, levels: list[Level]) -> None:
    """Writes the record of a run whose verdicts are written."""
    record = RunRecord(
        run=curation.run,
        sources=tuple(printable(shown(source)) for source in curation.options.sources),
        media=curation.probing.media_folder,
        decoded=curation.probing.decoded_folder,
        kinds={level.recipe.kind: _kind(level) for level in levels},
    )
    path = curation.workspace.ledger / "runs" / f"{curation.run}.json"
    commit_bytes(path, record.model_dump_json(indent=1).encode())


def _kind(level: Level) -> KindRecord:
    stages = tuple(
        StageRecord(
            name=stage.name,
            key=level.passes.fact_key(stage.name),
            level="asset" if stage in level.asset_stages else "clip",
            fields=stage.measuring(),
            bounds={
                name: BoundRecord(fact=b.fact, op=b.op, value=b.value, reason=b.reason)
                for name, b in stage.bounds().items()
            },
            facts={fact.name: fact.unit for fact in stage.adds},
        )
        for stage in level.recipe.stages
    )
    return KindRecord(recipe=level.recipe.digest, segments=level.segments_folder, stages=stages)


def known_runs(workspace: Workspace) -> list[str]:
    """Names of the runs that ended, the oldest first."""
    return sorted(path.stem for path in (workspace.ledger / "runs").glob("*.json"))


def read_run(workspace: Workspace, run: str = "last") -> RunRecord:
    """The record of a run by its name, or `last`. Raises UsageError, DatasetError."""
    known = known_runs(workspace)
    if not known:
        raise UsageError(f"no run has ended in {workspace.root}: `reelmill curate` makes one.")
    name = known[-1] if run == "last" else run
    if name not in known:
        raise UsageError(
            f"no run {run!r} in {workspace.root}; there are: {', '.join(known[-10:])}."
        )
    path = workspace.ledger / "runs" / f"{name}.json"
    try:
        if path.stat().st_size > MAX_BYTES:
            raise DatasetError(f"run record {path} is larger than {MAX_BYTES} bytes.")
        record = RunRecord.model_validate_json(path.read_bytes())
    except (ValidationError, OSError, ValueError) as error:
        raise DatasetError(f"run record {path} is damaged. Curate again: {error}") from error
    if record.run != name:
        raise DatasetError(f"run record {path} is of run {record.run!r}. Curate again.")
    return record
