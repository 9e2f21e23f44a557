"""`reelmill status`: what a workspace holds."""

from __future__ import annotations

import fcntl
import json
from pathlib import Path
from typing import Any

from reelmill import console
from reelmill.commands.options import Json, Workspace, examples

EPILOG = examples("reelmill status --workspace work", "reelmill status -w work --json")
SHOWN = 10
COSTLY = 6


def status(workspace: Workspace, as_json: Json = False) -> None:
    """Says what a workspace holds, and what waits: runs, what the stages of the last one cost,
    shards and their approvals, latents, checkpoints; and which process writes to it now."""
    from reelmill.datasets.workspace import open_workspace

    place = open_workspace(workspace, create=False)
    found: dict[str, Any] = {
        "workspace": str(place.root),
        "running": _running(place.root / ".lock"),
        "runs": [_run(path) for path in sorted(place.runs.glob("*/run.json"))],
        "shards": [_shards(path.parent) for path in sorted(place.root.glob("shards/*/*.json"))],
        "latents": [_latents(path) for path in sorted(place.root.glob("latents/**/manifest.json"))],
        "checkpoints": [str(path) for path in _newest(place.checkpoints)],
    }
    if found["running"]:
        console.say(f"running    {found['running']} writes here")
    for run in found["runs"][-SHOWN:]:
        clips = run["clips"]
        kept = f"{clips['kept']} of {clips['in']} clips kept, {clips['failed']} failed"
        console.say(f"run        {run['run']}  {kept}  {run['report']}")
    last: dict[str, float] = found["runs"][-1]["cost_seconds"] if found["runs"] else {}
    costs = sorted(last.items(), key=lambda cost: -cost[1])
    told = [f"{stage} {seconds:.1f} s" for stage, seconds in costs[:COSTLY] if seconds >= 0.05]
    if told:
        console.say(f"cost       of the last run: {', '.join(told)}")
    for shards in found["shards"]:
        by = f"approved by {shards['approved_by']}" if shards["approved_by"] else "not approved"
        console.say(
            f"shards     {shards['folder']}  {shards['shards']} shards, "
            f"{shards['bytes'] / 1e6:.1f} MB, {by}"
        )
    for latents in found["latents"]:
        console.say(f"latents    {latents['folder']}  {latents['samples']} samples")
    for path in found["checkpoints"]:
        console.say(f"checkpoint {path}")
    if not any(found[name] for name in ("runs", "shards", "latents", "checkpoints")):
        console.say(f"{workspace} is empty: `reelmill curate SOURCE -w {workspace}` fills it.")
    console.answer(found)


def _running(lock: Path) -> str:
    """Who holds the lock of a workspace; empty: nobody."""
    try:
        with lock.open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return file.read(200).decode(errors="replace").strip() or "a process"
    except OSError:
        return ""
    return ""


def _run(path: Path) -> dict[str, Any]:
    from reelmill.reports.page import load

    run = load(path.parent)
    tally = run.totals.clips
    counts = {"in": tally.into.count, "kept": tally.kept.count}
    counts |= {"rejected": tally.rejected.count, "failed": tally.failed.count}
    finished = run.finished.isoformat() if run.finished is not None else None
    report = path.parent / "report.html"
    return {
        "run": path.parent.name,
        "finished": finished,
        "clips": counts,
        "cost_seconds": {stage.slug: round(stage.cost_seconds, 3) for stage in run.stages},
        "report": str(report) if report.is_file() else "",
    }


def _shards(folder: Path) -> dict[str, Any]:
    from reelmill.datasets.approval import check

    files = sorted(folder.glob("*.tar"))
    approval = check(folder)
    return {
        "folder": str(folder),
        "shards": len(files),
        "bytes": sum(file.stat().st_size for file in files),
        "approved_by": approval.reviewer if approval else "",
    }


def _latents(manifest: Path) -> dict[str, Any]:
    from reelmill.errors import DatasetError

    try:
        samples = int(json.loads(manifest.read_bytes())["samples"])
    except (ValueError, KeyError, TypeError) as error:
        raise DatasetError(f"{manifest} is damaged ({error!r}). Encode again.") from error
    return {"folder": str(manifest.parent), "samples": samples}


def _newest(folder: Path) -> list[Path]:
    """The newest checkpoint of every stage that was trained."""
    newest: dict[Path, Path] = {}
    for path in sorted(folder.glob("**/step-*/manifest.json")):
        newest[path.parent.parent] = path.parent
    return list(newest.values())
