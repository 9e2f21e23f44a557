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
    rows: list[dict[str, Any]] = []

    def row(
        unit: str, of: str, kind: str, asset: str, path: str, stage: str, v: Verdict, only: bool
    ):
        rows.append(
            {
                "unit": unit, "level": of, "kind": kind, "asset": asset, "path": printable(path),
                "outcome": str(v.outcome), "stage": stage, "reason": v.reason,
                "value": None if v.value is None else str(v.value), "bound": v.bound,
                "detail": v.detail, "only": only,
            }
        )  # fmt: skip

    for u in curation.ingest.manifest.unreadable:
        verdict = Verdict(Outcome.FAILED, "transient", detail=u.error)
        row(u.id, "file", "", u.id, u.path, "Ingest", verdict, True)
    for asset in curation.ingest.manifest.assets:
        for path in asset.paths[1:]:
            kept = Verdict(Outcome.REJECTED, "exact_duplicate", detail=printable(asset.path))
            verdict = curation.ingest.ended.get(asset.sha256, (asset, kept))[1]
            row(asset.sha256, "file", "", asset.sha256, path, "Ingest", verdict, True)
    for asset, verdict in curation.ingest.ended.values():
        row(asset.sha256, "asset", "", asset.sha256, asset.path, "Ingest", verdict, True)
    for level in levels:
        for of, decisions in (("asset", level.asset_decisions), ("clip", level.clips)):
            for index, stage, verdict in decisions.verdicts():
                clip = decisions.units.clips[index]
                source = level.by_id[clip.asset].path
                kind = str(level.recipe.kind)
                unit = decisions.units.ids[index]
                row(unit, of, kind, clip.asset, source, stage, verdict, decisions.only(index))
    table = pa.Table.from_pylist(rows, schema=VERDICTS)
    commit_bytes(
        curation.workspace.ledger / "verdicts" / f"{curation.run}.parquet", table_bytes(table)
    )
