"""`reelmill rejected`: what a stage threw away, to look at and listen to."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from reelmill import console
from reelmill.commands.options import Json, Run, Workspace, examples

EPILOG = examples(
    "reelmill rejected --workspace work",
    "reelmill rejected -w work --stage Blur --export blurred",
    "reelmill rejected -w work --stage Blur --reason blurred --export blurred --copies",
)
SHOWN = 40


def rejected(
    workspace: Workspace,
    stage: Annotated[str, typer.Option(help="Only what this stage threw away.")] = "",
    reason: Annotated[str, typer.Option(help="Only what was thrown away for this reason.")] = "",
    export: Annotated[
        Path | None, typer.Option(help="Folder for the list and the previews.", metavar="DIR")
    ] = None,
    copies: Annotated[
        bool, typer.Option("--copies", help="Export clips at full size, not previews.")
    ] = False,
    failed: Annotated[bool, typer.Option("--failed", help="List what failed too.")] = False,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 1000,
    run: Run = "last",
    as_json: Json = False,
) -> None:
    """Lists what was thrown away, with value and bound; exports previews or copies of it."""
    from reelmill.curation.explain import rejects
    from reelmill.curation.explain.verdict_table import VerdictTable
    from reelmill.datasets.workspace import open_workspace

    table = VerdictTable(open_workspace(workspace, create=False), run)
    everything = rejects.rejects(table, stage=stage, reason=reason, failed=failed)
    found = everything[:limit]
    if export is not None:
        with console.bar("export", len(found)) as advance:
            found = rejects.export(table, found, export, copies=copies, advance=advance)
    for item in found[:SHOWN]:
        value = f" {item.value} (must be {item.bound})" if item.bound else f" {item.detail}"
        said = f"{item.stage}: {item.reason}{value}".rstrip()
        console.say(f"{item.level:5} {item.unit[:48]}  {item.path}  {said}")
        if item.note:
            console.say(f"      not exported: {item.note}")
    counts = Counter(f"{item.stage}: {item.reason}" for item in everything)
    for name, count in counts.most_common():
        console.say(f"{count:6} {name}")
    if not everything:
        console.say("nothing was thrown away")
    if export is not None:
        files = sum(len(item.files) for item in found)
        console.say(f"{len(found)} of {len(everything)} listed in {export}, {files} files")
    console.answer(
        {
            "run": table.record.run,
            "total": len(everything),
            "reasons": dict(counts),
            "export": str(export) if export is not None else None,
            "rejected": [asdict(item) for item in found],
        }
    )
