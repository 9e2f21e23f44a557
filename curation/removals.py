"""Assets that someone asked to be removed. Only their digests are kept, so that they stay away.

ledger/removed/<sha256>    an empty file for each
"""

from __future__ import annotations

import re

from reelmill.datasets.workspace import Workspace, commit_bytes

_SHA256 = re.compile(r"[0-9a-f]{64}")


def removed_assets(workspace: Workspace) -> frozenset[str]:
    """Digests of all assets that must not be curated again."""
    names = (path.name for path in (workspace.ledger / "removed").glob("*"))
    return frozenset(name for name in names if _SHA256.fullmatch(name))


def note_removal(workspace: Workspace, sha256: str) -> None:
    """Keeps an asset out of all later runs."""
    commit_bytes(workspace.ledger / "removed" / sha256, b"")
