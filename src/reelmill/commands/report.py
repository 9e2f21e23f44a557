"""`reelmill report`: the page of a run, of two runs, of a training; and all of them, served."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from reelmill import console
from reelmill.commands.options import Json, Workspace, examples

if TYPE_CHECKING:
    from reelmill.reports.diff import Moved

app = typer.Typer(
    help="Reports: HTML files that need no network, and a server for many.", no_args_is_help=True
)


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


@app.command(epilog=examples("reelmill report diff 20260301-101500-a1b2 last --workspace work"))
def diff(
    before: Annotated[str, typer.Argument(help="A run's name.", metavar="RUN")],
    after: Annotated[str, typer.Argument(help="A run's name, or `last`.", metavar="RUN")],
    workspace: Workspace,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Default: diff-RUN.html in the later run's folder."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Renders what differs between two runs: stages, reasons, scores that drifted, recipes, units.

    `reelmill diff` says in the terminal which rule moved which units.
    """
    from reelmill.datasets.approval import run_folder
    from reelmill.reports.diff import render_diff, write_diff
    from reelmill.reports.drift import alarms
    from reelmill.reports.page import load

    folders = run_folder(workspace, before), run_folder(workspace, after)
    old, new = (load(folder) for folder in folders)
    page = render_diff(old, new, _moves(workspace, folders[0].name, folders[1].name))
    path = write_diff(page, output or folders[1] / f"diff-{folders[0].name}.html")
    found = [str(alarm) for alarm in alarms(old, new)]
    console.say(str(path))
    for line in found:
        console.note(f"drift: {line}")
    console.answer({"report": str(path), "alarms": found})


def _moves(workspace: Path, before: str, after: str) -> list[Moved] | None:
    """Units that went elsewhere; None where the ledger of a run is gone."""
    from reelmill.curation.explain.difference import Difference
    from reelmill.datasets.workspace import open_workspace
    from reelmill.errors import DatasetError, UsageError
    from reelmill.reports.diff import Moved

    try:
        found = Difference.of(open_workspace(workspace, create=False), before, after)
    except (UsageError, DatasetError):
        return None
    return [Moved(m.level, m.before, m.after, m.units, m.changed_side) for m in found.moves]


@app.command(epilog=examples("reelmill report train work/checkpoints/demo"))
def train(
    folder: Annotated[
        Path, typer.Argument(help="A training run's folder: checkpoints/CURRICULUM.")
    ],
    as_json: Json = False,
) -> None:
    """Renders the page of a training run: losses by task and time, samples, data mix, speed.

    `reelmill train` writes it at the end; while it runs, this shows how far it is.
    """
    from reelmill.reports.training import write_training

    path = write_training(folder)
    console.say(str(path))
    console.answer({"report": str(path)})


@app.command(
    epilog=examples("reelmill report serve -w work", "reelmill report serve -w a -w b --port 8000")
)
def serve(
    workspace: Annotated[
        list[Path], typer.Option("--workspace", "-w", help="Workspace to show. Repeatable.")
    ],
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: one that is free.")] = 0,
    as_json: Json = False,
) -> None:
    """Serves all runs of workspaces, with a search, and takes reviewers' votes. Ctrl-C ends it.

    Votes come back as the precision of each stage, in these reports and in later runs'.
    """
    from reelmill.datasets.workspace import open_workspace
    from reelmill.reports.serve import ReportServer

    roots = [open_workspace(place, create=False).root.resolve() for place in workspace]
    with ReportServer(roots, host, port, _moves) as server:
        console.say(server.link)
        if not server.loopback:
            console.note("anyone who can reach this address and has the link can read and vote.")
        console.answer({"link": server.link})
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            console.say("stopped")
