"""`reelmill report`: the page of a run."""

from __future__ import annotations

from typing import Annotated

import typer

from reelmill import console
from reelmill.commands.options import Json, Workspace, examples

app = typer.Typer(help="The report of a run: one HTML file, no network.", no_args_is_help=True)


@app.command(epilog=examples("reelmill report render last --workspace work"))
def render(
    run: Annotated[str, typer.Argument(help="A run's name, or `last`.", metavar="RUN")],
    workspace: Workspace,
    as_json: Json = False,
) -> None:
    """Renders report.html again, from the JSON that the run left."""
    from reelmill.datasets.approval import run_folder
    from reelmill.reports import page

    path = page.render(run_folder(workspace, run))
    console.say(str(path))
    console.answer({"report": str(path)})
