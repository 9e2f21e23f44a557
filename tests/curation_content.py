"""What a workspace's ledger says, to compare workspaces by."""

from __future__ import annotations

from pathlib import Path

from reelmill.datasets.ledger import Ledger
from reelmill.datasets.workspace import open_workspace


def content(workspace: Path) -> dict[str, list[dict]]:
    """Rows of each folder, sorted, once, whatever files they lie in."""
    ledger = Ledger(open_workspace(workspace))
    found = {}
    for folder in sorted({str(p.parent.relative_to(workspace)) for p in _tables(workspace)}):
        table = ledger.table(folder)
        if table is not None:
            rows = {repr(row): row for row in table.to_pylist()}
            found[folder] = [rows[key] for key in sorted(rows)]
    return found


def _tables(workspace: Path) -> list[Path]:
    return [
        path
        for path in [
            *workspace.glob("ledger/*/**/*.parquet"),
            *workspace.glob("tracks/**/*.parquet"),
        ]
        if path.parent.name != "verdicts"
    ]
