"""`reelmill demo`: the whole way, on media made for it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reelmill import console
from reelmill.commands.options import Json, Seed, examples

if TYPE_CHECKING:
    from reelmill.flows.demo import DemoResult

EPILOG = examples("reelmill demo", "reelmill demo demo/ --full", "reelmill demo mini/ --mini")


def demo(
    folder: Annotated[Path, typer.Argument(help="Where to write it.", metavar="DIR")] = Path(
        "demo"
    ),
    full: Annotated[
        bool, typer.Option("--full", help="Train until sound and picture agree, and measure it.")
    ] = False,
    mini: Annotated[
        bool,
        typer.Option("--mini", help="Train all rows of the paper's curriculum, at CPU size."),
    ] = False,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Makes a corpus, curates it, writes the report, trains and generates, through Prefect.

    A few minutes on two cores, with --full or --mini about half an hour; run again, it goes on from
    what is there.
    """
    from reelmill.flows import settings

    settings.start(folder / ".prefect")
    from reelmill.flows.demo import demo as flow

    with settings.connected():
        result = flow(folder=folder, full=full, mini=mini, seed=seed)
    show(result)
    console.answer(as_object(result))


def show(result: DemoResult) -> None:
    """What came of it, for a person."""
    score, curated, trained = result.score, result.curated, result.trained
    say = console.say
    say(f"planted defects found  {score.found} of {len(score.planted)}")
    say(f"clean files kept       {score.spared} of {len(score.clean)}")
    for miss in score.misses:
        say(f"  missed: {miss}")
    for name in ("files", "assets", "clips"):
        say(f"{name:22} {getattr(curated, name)}")
    if len(trained.stages) <= 2:
        say(f"held-out loss          {trained.loss_start:.4f} -> {trained.loss_end:.4f}")
    else:  # each is measured on what it is for
        for stage in trained.stages:
            fell = f"{stage.loss_start:.4f} -> {stage.loss_end:.4f} of {stage.name}"
            say(f"held-out loss          {fell}, {stage.steps} steps, {stage.seconds:.0f} s")
    if result.sync:
        say(str(result.sync))
    say(f"report                 {curated.report}")
    for path in curated.shards:
        say(f"shard                  {path}")
    say(f"checkpoint             {trained.checkpoint}")
    say(f"clip                   {result.clip.output}")


def as_object(result: DemoResult) -> dict[str, Any]:
    score, curated, trained = result.score, result.curated, result.trained
    return {
        "planted": len(score.planted),
        "found": score.found,
        "clean": len(score.clean),
        "spared": score.spared,
        "missed": [str(miss) for miss in score.misses],
        "clips": curated.clips.to_json(),
        "assets": curated.assets.to_json(),
        "loss_start": trained.loss_start,
        "loss_end": trained.loss_end,
        "stages": {s.name: [s.loss_start, s.loss_end] for s in trained.stages},
        "sync": result.sync.to_json() if result.sync else None,
        "report": curated.report,
        "shards": list(curated.shards),
        "checkpoint": str(trained.checkpoint),
        "clip": str(result.clip.output),
    }
