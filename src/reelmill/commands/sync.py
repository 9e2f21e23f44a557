"""`reelmill sync`: a network of one's own that tells whether lips and speech are in time."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reelmill import console
from reelmill.commands.options import Json, Seed, Via, WeightsDir, examples

if TYPE_CHECKING:
    from reelmill.curation.lips.sync_training import SyncOptions, SyncTrained

app = typer.Typer(help="Lips and speech: a SyncNet of one's own.", no_args_is_help=True)
EPILOG = examples(
    "reelmill sync train work/shards/video --output nets/syncnet --weights nets",
    "reelmill sync train talks/ --held-out other_talks/ --output nets/syncnet --weights nets",
)


@app.command(epilog=EPILOG)
def train(
    ctx: typer.Context,
    sources: Annotated[
        list[Path],
        typer.Argument(
            help="Clips in sync: shards, videos or folders of them.", metavar="SOURCE..."
        ),
    ],
    output: Annotated[
        Path, typer.Option(help="Folder of the network; name it `syncnet` to put it to use.")
    ],
    held_out: Annotated[
        list[Path] | None,
        typer.Option(help="Clips that are not trained on. Default: a fifth of the files."),
    ] = None,
    steps: Annotated[int, typer.Option(min=1, help="Of training.")] = 600,
    batch: Annotated[int, typer.Option(min=2, help="Clips in a step.")] = 8,
    channels: Annotated[int, typer.Option(help="Of the widest layer.")] = 96,
    device: Annotated[str, typer.Option(help="Of torch: cpu, cuda.")] = "cpu",
    threads: Annotated[int, typer.Option(help="Of torch; 0 leaves them as they are.")] = 0,
    seed: Seed = 0,
    weights: WeightsDir = None,
    as_json: Json = False,
) -> None:
    """Trains a small SyncNet on clips in sync and measures it on held-out ones."""
    from reelmill.curation.lips.sync_training import SyncOptions

    options = SyncOptions(
        sources=tuple(sources),
        output=output,
        held_out=tuple(held_out or ()),
        steps=steps,
        batch=batch,
        channels=channels,
        device=device,
        seed=seed,
        weights=weights,
        threads=threads,
    )
    result = through_prefect(options) if ctx.obj is Via.FLOW else directly(options)
    show(result)
    console.answer(as_object(result))


def directly(options: SyncOptions) -> SyncTrained:
    """Trains in this process, with a progress bar."""
    from reelmill.curation.lips.sync_training import train_sync

    with console.bar("sync") as bar:
        return train_sync(options, bar.at)


def through_prefect(options: SyncOptions) -> SyncTrained:
    """Trains as a task of a Prefect flow."""
    from reelmill.flows import settings

    settings.start(options.output / ".prefect")
    from reelmill.flows.sync import sync as flow

    with settings.connected():
        return flow(
            sources=list(options.sources),
            output=options.output,
            held_out=list(options.held_out),
            steps=options.steps,
            batch=options.batch,
            channels=options.channels,
            device=options.device,
            threads=options.threads,
            seed=options.seed,
            weights=options.weights,
        )


def show(result: SyncTrained) -> None:
    """The result for a person."""
    found = result.figures
    console.say(
        f"{result.trained_on} clips trained on, {result.calibrated_on} calibrated on, "
        f"{found.clips} held out, {len(result.skipped)} skipped; {result.seconds:.0f} s"
    )
    console.say(f"loss                     {result.loss_start:.3f} -> {result.loss_end:.3f}")
    console.say(f"shifts within one frame  {found.accuracy:.1%} of -6 to +6 frames")
    console.say(f"passed in sync           {found.in_sync:.1%}")
    console.say(f"passed with swapped sound {found.swapped_passed} of {found.swapped} pairs")
    if not result.separated:
        console.say("Clips in sync and swapped ones could not be told apart: do not use it.")
    console.say(f"network    {result.output}")


def as_object(result: SyncTrained) -> dict[str, Any]:
    found = result.figures
    return {
        "output": str(result.output),
        "clips": {
            "trained_on": result.trained_on,
            "calibrated_on": result.calibrated_on,
            "held_out": found.clips,
            "skipped": result.skipped,
        },
        "loss_start": result.loss_start,
        "loss_end": result.loss_end,
        "accuracy": found.accuracy,
        "in_sync": found.in_sync,
        "swapped": found.swapped,
        "swapped_passed": found.swapped_passed,
        "separated": result.separated,
        "seconds": result.seconds,
    }
