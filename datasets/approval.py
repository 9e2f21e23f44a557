"""Approvals: a person's word on a data set, bound to the bytes that were looked at.

    <workspace>/approvals/<digest of the shard manifest>.json

An approval names the digest of the shard manifest (which holds the sha256 of every shard) and the
digest of the run's report. When either changes by one byte it no longer applies. Training asks
`check` before it reads a shard.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError

from reelmill.datasets.index import MANIFEST, read_manifest
from reelmill.datasets.workspace import Workspace, commit_bytes, open_workspace
from reelmill.errors import DatasetError, UsageError

REPORT = "run.json"
MAX_BYTES = 1 << 20

Decision = Literal["approved", "rejected"]


class Approval(BaseModel):
    """dataset: sha256 of the shard manifest; report: sha256 of the run's run.json."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: Literal[1] = 1
    decision: Decision
    run: str
    kind: str
    dataset: str
    report: str
    reviewer: str
    note: str = ""
    time: AwareDatetime


def manifest_digest(shards: Path) -> str:
    """sha256 of a shard folder's manifest. Raises DatasetError when it has none."""
    return _digest(shards / MANIFEST)


def approve(workspace: Path, run: str, reviewer: str, note: str = "") -> list[Approval]:
    """Approves every shard folder that a run's report describes. run: its name, or `last`.

    Raises UsageError for a run that is not there or that made no shards, DatasetError when the
    shards are no longer those of the report.
    """
    return _decide(workspace, run, reviewer, note, "approved")


def reject(workspace: Path, run: str, reviewer: str, note: str = "") -> list[Approval]:
    """As `approve`, with the other decision; it takes an earlier approval back."""
    return _decide(workspace, run, reviewer, note, "rejected")


def check(shards: Path) -> Approval | None:
    """The approval of a shard folder, or None where nobody approved these bytes.

    None too when the decision was `rejected`, or when the report changed since.
    """
    root = next((p for p in shards.resolve().parents if (p / "workspace.json").is_file()), None)
    if root is None:
        return None
    dataset = manifest_digest(shards)
    path = root / "approvals" / f"{dataset}.json"
    if not path.is_file():
        return None
    found = _read(path)
    report = root / "runs" / found.run / REPORT
    if found.decision != "approved" or found.dataset != dataset or not report.is_file():
        return None
    return found if _digest(report) == found.report else None


def run_folder(workspace: Path, run: str) -> Path:
    """The folder of a run, by its name or `last` for the newest. Raises UsageError."""
    runs = open_workspace(workspace, create=False).runs
    known = sorted(path.parent.name for path in runs.glob(f"*/{REPORT}"))
    if run == "last" and known:
        return runs / known[-1]
    if run not in known:
        raise UsageError(f"no run {run!r} in {workspace}; there are: {', '.join(known) or 'none'}.")
    return runs / run


def _decide(root: Path, run: str, reviewer: str, note: str, decision: Decision) -> list[Approval]:
    if not reviewer.strip():
        raise UsageError("an approval needs the name of its reviewer: --reviewer NAME.")
    workspace = open_workspace(root, create=False)
    folder = run_folder(root, run)
    run, report = folder.name, folder / REPORT
    made = []
    for shards, dataset in _described(workspace, report):
        approval = Approval(
            decision=decision,
            run=run,
            kind=shards.name,
            dataset=dataset,
            report=_digest(report),
            reviewer=reviewer.strip(),
            note=note,
            time=datetime.now(UTC),
        )
        path = workspace.root / "approvals" / f"{dataset}.json"
        commit_bytes(path, (approval.model_dump_json(indent=1) + "\n").encode())
        made.append(approval)
    if not made:
        raise UsageError(f"run {run} wrote no shards, so there is nothing to approve.")
    return made


def _described(workspace: Workspace, report: Path) -> Iterator[tuple[Path, str]]:
    """Shard folders of the workspace, with their digests; all that the report lists is in them."""
    try:
        listed = {shard["sha256"] for shard in json.loads(report.read_bytes())["shards"]}
    except (ValueError, KeyError, TypeError) as error:
        raise DatasetError(f"report {report} is damaged ({error!r}). Curate again.") from error
    for path in sorted((workspace.root / "shards").glob(f"*/{MANIFEST}")):
        there = {shard.sha256 for shard in read_manifest(path.parent)}
        if there and there <= listed:
            yield path.parent, _digest(path)
            listed -= there
    if listed:
        raise DatasetError(
            f"{len(listed)} of the shards that {report} describes are no longer in "
            f"{workspace.root / 'shards'}: a later run wrote others. Review that run instead."
        )


def _read(path: Path) -> Approval:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise DatasetError(f"approval {path} is larger than {MAX_BYTES} bytes.")
        return Approval.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise DatasetError(
            f"approval {path} is damaged ({first['msg']}). Delete it and approve again."
        ) from error


def _digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error.strerror}.") from error
