"""`reelmill corpus make`: media whose defects are known, to try everything on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from reelmill import console
from reelmill.commands.options import Json, Seed, examples

app = typer.Typer(help="Synthetic media with known truth.", no_args_is_help=True)


@app.command(
    epilog=examples(
        "reelmill corpus make corpus/", "reelmill corpus make corpus/ --training-clips 200"
    )
)
def make(
    folder: Annotated[Path, typer.Argument(help="Where to write it.", metavar="DIR")],
    seed: Seed = 0,
    size: Annotated[str, typer.Option(help="small (256x160) or large (512x320).")] = "small",
    training_clips: Annotated[
        int, typer.Option(help="How many clean clips to add in training/.")
    ] = 0,
    training_stills: Annotated[int, typer.Option(help="How many clean pictures, likewise.")] = 0,
    training_sounds: Annotated[int, typer.Option(help="How many sounds of 15 s, likewise.")] = 0,
    as_json: Json = False,
) -> None:
    """Writes small encoded files with planted defects, and truth.json beside them.

    Moving shapes whose bounces make tones: pitch by colour, pan by position. A corpus of the same
    options that is there unaltered is left as it is.
    """
    from reelmill.datasets.corpus.corpus import make_corpus

    with console.bar("make corpus") as advance:
        truth = make_corpus(
            folder,
            seed=seed,
            size=size,
            training_clips=training_clips,
            training_stills=training_stills,
            training_sounds=training_sounds,
            done=lambda name: advance(),
        )
    planted = sum(bool(file.defects) for file in truth.files)
    console.say(f"{folder}: {len(truth.files)} files, {planted} with a planted defect")
    console.say(f"speech: {truth.speech_note}")
    console.answer(
        {
            "folder": str(folder),
            "files": len(truth.files),
            "planted": planted,
            "training": sum(file.training for file in truth.files),
            "speech": truth.speech,
        }
    )
