"""`reelmill review`: a person's word on what a run made."""

from __future__ import annotations

import getpass
import os
from typing import TYPE_CHECKING, Annotated

import typer

from reelmill import console
from reelmill.commands.options import Json, Workspace, examples

if TYPE_CHECKING:
    from reelmill.datasets.approval import Approval

app = typer.Typer(help="Approve or reject the shards of a run.", no_args_is_help=True)

Run = Annotated[str, typer.Argument(help="A run's name, or `last`.", metavar="RUN")]
Reviewer = Annotated[str, typer.Option(help="Who looked at the report. Default: the login name.")]
Note = Annotated[str, typer.Option(help="What was seen.")]


def _login() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"


def _show(made: list[Approval]) -> None:
    for a in made:
        console.say(f"{a.decision} by {a.reviewer}: {a.kind} shards of run {a.run} ({a.dataset})")
    console.answer({"approvals": [a.model_dump(mode="json") for a in made]})


@app.command(
    epilog=examples(
        "reelmill review approve last --workspace work --note 'looked at 60 clips'",
        "reelmill review approve 20260301-101500-a1b2 -w work --reviewer 'A. Reviewer'",
    )
)
def approve(
    run: Run, workspace: Workspace, reviewer: Reviewer = "", note: Note = "", as_json: Json = False
) -> None:
    """Approves a run's shards for training, bound to their bytes and to the report's."""
    from reelmill.datasets import approval

    _show(approval.approve(workspace, run, reviewer or _login(), note))


@app.command(epilog=examples("reelmill review reject last --workspace work --note 'too dark'"))
def reject(
    run: Run, workspace: Workspace, reviewer: Reviewer = "", note: Note = "", as_json: Json = False
) -> None:
    """Rejects a run's shards; an earlier approval of the same bytes is taken back."""
    from reelmill.datasets import approval

    _show(approval.reject(workspace, run, reviewer or _login(), note))
