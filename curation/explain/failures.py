"""Retry: forgetting recorded failures, so that the next run tries them again.

A damaged file stays failed until its bytes, the code or the weights change. This is for when the
cause lay elsewhere: a full memory, a broken mount, a codec that was mended outside.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from reelmill.datasets.ledger import Ledger
from reelmill.datasets.workspace import Workspace

_ROOTS = {"ledger/media": "Ingest", "ledger/decoded": "decode"}


@dataclass(frozen=True)
class Failure:
    """A recorded failure. stage: Ingest (probing), decode, or a stage's name."""

    stage: str
    unit: str
    cause: str


def forget_failures(workspace: Workspace, stage: str = "") -> list[Failure]:
    """Takes recorded failures out of the ledger; of one stage, or all. Returns them.

    Facts stay. Raises WorkspaceError while a run is writing.
    """
    found: list[Failure] = []

    def lost(folder: str, table: pa.Table) -> np.ndarray:
        name = _stage_of(folder)
        if not name or "cause" not in table.column_names or (stage and name != stage):
            return np.zeros(table.num_rows, dtype=bool)
        causes, units = table["cause"].to_pylist(), table["unit"].to_pylist()
        found.extend(Failure(name, u, c) for u, c in zip(units, causes, strict=True) if c)
        return np.array([cause is not None for cause in causes], dtype=bool)

    with workspace.lock():
        Ledger(workspace).drop(lost)
    return sorted(set(found), key=lambda f: (f.stage, f.unit))


def _stage_of(folder: str) -> str:
    root, _, _ = folder.rpartition("/")
    if root.startswith("ledger/facts/"):
        return root.removeprefix("ledger/facts/")
    return _ROOTS.get(root, "")
