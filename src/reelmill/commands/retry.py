"""`reelmill retry`: lets the next run try failures again."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from typing import Annotated

import typer

from reelmill import console
from reelmill.commands.options import Json, Workspace, examples
from reelmill.errors import UsageError

EPILOG = examples(
    "reelmill retry --failed --workspace work", "reelmill retry --failed -w work --stage Cut"
)


def retry(
    workspace: Workspace,
    failed: Annotated[
        bool, typer.Option("--failed", help="Forget every recorded failure; facts stay.")
    ] = False,
    stage: Annotated[
        str, typer.Option(help="Only of this stage (Ingest and decode count as stages).")
    ] = "",
    as_json: Json = False,
) -> None:
    """Forgets recorded failures, so that the next `curate` tries them again.

    Failures for a passing reason (a full disk, a lost mount) are not recorded: they are tried
    again by themselves.
    """
    from reelmill.curation.explain.failures import forget_failures
    from reelmill.datasets.workspace import open_workspace

    if not failed:
        raise UsageError("say what to try again: `reelmill retry --failed`.")
    found = forget_failures(open_workspace(workspace, create=False), stage)
    for name, count in sorted(Counter(item.stage for item in found).items()):
        console.say(f"{count:6} {name}")
    console.say(f"{len(found)} failures forgotten; the next `reelmill curate` tries them again")
    console.answer({"forgotten": [asdict(item) for item in found]})
