"""The command line. Each command imports its work when it runs, so that `--help` stays quick.

Exit codes: 0 all well, 1 failed, 2 usage, 3 more clips failed than the recipe allows, 4 data not
approved, 70 training diverged, 75 interrupted and resumable.
"""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType
from typing import Annotated, NoReturn

import typer

import reelmill
from reelmill import console
from reelmill.commands import (
    arena,
    corpus,
    curate,
    demo,
    diff,
    doctor,
    encode,
    enhance,
    evaluate,
    forget,
    generate,
    join,
    kernels,
    model,
    plan,
    recipe,
    rejected,
    report,
    retry,
    review,
    status,
    sync,
    train,
    views,
    weights,
    where,
    why,
)
from reelmill.commands.options import Via
from reelmill.errors import Interrupted, ReelmillError, UsageError

CTRL_C = 130  # what typer makes of a KeyboardInterrupt

app = typer.Typer(
    name="reelmill",
    help="Raw media in; curated shards, a joint video-audio model and generated clips out.",
    epilog="Start with `reelmill demo`. Exit codes: 0 all well, 1 failed, 2 usage, 3 too many "
    "clips failed, 4 data not approved, 70 training diverged, 75 interrupted (run it again).",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
flow = typer.Typer(
    help="The same commands as Prefect flows, with history and artifacts. Same bytes.",
    no_args_is_help=True,
)


def _version(asked: bool) -> None:
    if asked:
        print(f"reelmill {reelmill.__version__}")
        raise typer.Exit


@app.callback()
def _face(
    ctx: typer.Context,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log details too.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Say the version.")
    ] = False,
) -> None:
    console.set_logging(verbose)
    ctx.obj = Via.ENGINE


@flow.callback()
def _flow(ctx: typer.Context) -> None:
    ctx.obj = Via.FLOW


app.command(epilog=demo.EPILOG)(demo.demo)
app.add_typer(corpus.app, name="corpus")
for through in (app, flow):
    through.command(epilog=curate.EPILOG)(curate.curate)
    through.command(epilog=encode.EPILOG)(encode.encode)
    through.add_typer(train.app, name="train")
    through.command(epilog=generate.EPILOG)(generate.generate)
    through.add_typer(sync.app, name="sync")
app.command(epilog=join.EPILOG)(join.join)
app.command(epilog=views.EPILOG)(views.views)
app.command(epilog=plan.EPILOG)(plan.plan)
app.command(epilog=why.EPILOG)(why.why)
app.command(epilog=where.EPILOG)(where.where)
app.command(epilog=rejected.EPILOG)(rejected.rejected)
app.command(epilog=diff.EPILOG)(diff.diff)
app.command(epilog=retry.EPILOG)(retry.retry)
app.command(epilog=forget.EPILOG)(forget.forget)
app.add_typer(recipe.app, name="recipe")
app.add_typer(report.app, name="report")
app.add_typer(review.app, name="review")
app.add_typer(model.app, name="model")
app.add_typer(evaluate.app, name="evaluate")
app.add_typer(arena.app, name="arena")
app.command(epilog=enhance.EPILOG)(enhance.enhance)
app.add_typer(kernels.app, name="kernels")
app.add_typer(weights.app, name="weights")
app.command(epilog=status.EPILOG)(status.status)
app.command(epilog=doctor.EPILOG)(doctor.doctor)
app.add_typer(flow, name="flow")


def _terminated(signum: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def main() -> NoReturn:
    """Entry point: runs a command and turns errors into messages and exit codes."""
    signal.signal(signal.SIGTERM, _terminated)
    try:
        app()
    except ReelmillError as error:
        if os.environ.get("REELMILL_TRACEBACK"):
            raise
        console.fail(str(error), type(error).__name__, error.exit_code)
        sys.exit(error.exit_code)
    except SystemExit as stop:
        if stop.code != CTRL_C:
            raise
        console.fail(
            "stopped from outside. What is committed stays; the same command goes on from there.",
            Interrupted.__name__,
            Interrupted.exit_code,
        )
        sys.exit(Interrupted.exit_code)
    except OSError as error:
        if os.environ.get("REELMILL_TRACEBACK") or error.strerror is None:
            raise
        where = f"{error.filename}: " if error.filename else ""
        console.fail(f"{where}{error.strerror}", UsageError.__name__, 1)
        sys.exit(1)
    sys.exit(0)


if __name__ == "__main__":
    main()
