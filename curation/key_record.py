"""What a measurement key was made of, kept in the ledger so that a stale key can be explained.

    ledger/keys/<Stage>/<key>.json    the components of one key (reelmill.curation.keys)

Written when a run begins, before anything is measured under the key.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from reelmill.datasets.workspace import Workspace, commit_bytes
from reelmill.errors import DatasetError

COMPONENTS = ("fields", "version", "code", "weights", "needs")
MAX_BYTES = 1 << 20
_KEY = re.compile(r"[0-9a-f]{8,64}")


def save_components(workspace: Workspace, stage: str, key: str, parts: Mapping[str, Any]) -> None:
    """Records the components of a key, once."""
    path = workspace.ledger / "keys" / stage / f"{key}.json"
    if not path.exists():
        commit_bytes(path, json.dumps(parts, indent=1, sort_keys=True, default=str).encode())


def past_components(workspace: Workspace, stage: str) -> dict[str, dict[str, Any]]:
    """Components of every key that a stage ever had here, the newest first.

    Raises DatasetError for a record that is damaged.
    """
    paths = [
        path
        for path in (workspace.ledger / "keys" / stage).glob("*.json")
        if _KEY.fullmatch(path.stem)
    ]
    found = {}
    for path in sorted(paths, key=lambda p: (-p.stat().st_mtime_ns, p.name)):
        try:
            if path.stat().st_size > MAX_BYTES:
                raise ValueError(f"larger than {MAX_BYTES} bytes")
            parts = json.loads(path.read_bytes())
            if not isinstance(parts, dict):
                raise ValueError("not an object")
        except (OSError, ValueError, RecursionError) as error:
            raise DatasetError(
                f"key record {path} is damaged ({error}). Delete it: only its explanation is lost."
            ) from error
        found[path.stem] = parts
    return found


def changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, str]:
    """The components that differ between two keys, each in words."""
    new = json.loads(json.dumps(new, default=str))
    found = {}
    for name in COMPONENTS:
        before, after = old.get(name), new.get(name)
        if before == after:
            continue
        if isinstance(before, dict) and isinstance(after, dict):
            parts = [
                _change(part, before.get(part), after.get(part), short=name != "fields")
                for part in sorted(before.keys() | after.keys())
                if before.get(part) != after.get(part)
            ]
            found[name] = ", ".join(parts)
        else:
            found[name] = _change(name, before, after, short=name == "code")
    return found


def _change(name: str, before: Any, after: Any, *, short: bool) -> str:
    """Of digests only the first digits: they tell versions apart, no more."""

    def text(value: Any) -> str:
        if value is None:
            return "nothing"
        return str(value)[:8] if short and isinstance(value, str) and value else repr(value)

    return f"{name} {text(before)} -> {text(after)}"
