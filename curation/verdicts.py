"""The ledger's verdict rows: what a run decided, one row per file, asset and clip."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from reelmill.curation.level import Level
from reelmill.datasets.manifest import printable
from reelmill.datasets.sample import Outcome, Verdict
from reelmill.datasets.workspace import commit_bytes, table_bytes

if TYPE_CHECKING:
    from reelmill.curation.engine import Curation

VERDICTS = pa.schema(
    [
        ("unit", pa.string()),
        ("level", pa.string()),
        ("kind", pa.string()),
        ("asset", pa.string()),
        ("path", pa.string()),
        ("outcome", pa.string()),
        ("stage", pa.string()),
        ("reason", pa.string()),
        ("value", pa.string()),
        ("bound", pa.string()),
        ("detail", pa.string()),
        ("only", pa.bool_()),
    ]
)


def save_verdicts(curation: Curation, levels: Sequence[Level]) -> None:
    """One row per file without a recipe, per asset and per clip: what `why` reads."""
    columns: list[list[Any]] = [[] for _ in VERDICTS]

    def row(
        unit: str, of: str, kind: str, asset: str, path: str, stage: str, v: Verdict, only: bool
    ) -> None:
        value = None if v.value is None else str(v.value)
        cells = (
            unit, of, kind, asset, printable(path), v.outcome.value, stage, v.reason, value,
            v.bound, v.detail, only,
        )  # fmt: skip
        for column, cell in zip(columns, cells, strict=True):
            column.append(cell)

    for u in curation.ingest.manifest.unreadable:
        verdict = Verdict(Outcome.FAILED, "transient", detail=u.error)
        row(u.id, "file", "", u.id, u.path, "Ingest", verdict, True)
    for asset in curation.ingest.manifest.assets:
        for path in asset.paths[1:]:
            kept = Verdict(Outcome.REJECTED, "exact_duplicate", detail=printable(asset.name))
            verdict = curation.ingest.ended.get(asset.sha256, (asset, kept))[1]
            row(asset.sha256, "file", "", asset.sha256, path, "Ingest", verdict, True)
    for asset, verdict in curation.ingest.ended.values():
        row(asset.sha256, "asset", "", asset.sha256, asset.name, "Ingest", verdict, True)
    for level in levels:
        kind = str(level.recipe.kind)
        for of, decisions in (("asset", level.asset_decisions), ("clip", level.clips)):
            for index, stage, verdict in decisions.verdicts():
                clip = decisions.units.clips[index]
                source = level.by_id[clip.asset].name
                unit = decisions.units.ids[index]
                row(unit, of, kind, clip.asset, source, stage, verdict, decisions.only(index))
    table = pa.table(columns, schema=VERDICTS)
    commit_bytes(
        curation.workspace.ledger / "verdicts" / f"{curation.run}.parquet", table_bytes(table)
    )
