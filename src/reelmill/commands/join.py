"""`reelmill join`: short sounds of one class become samples of up to 15 s."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from reelmill import console
from reelmill.commands.options import Json, examples

EPILOG = examples("reelmill join work/shards/audio --output work/joined")


def join(
    shards: Annotated[Path, typer.Argument(help="Folder of audio shards.", metavar="SHARDS")],
    output: Annotated[Path, typer.Option(help="Folder of the new shards.")],
    max_seconds: Annotated[float, typer.Option(help="Length of a joined sample.")] = 15.0,
    by: Annotated[
        str, typer.Option(help="Fact that clips must share; without its value they stay alone.")
    ] = "sound_class",
    as_json: Json = False,
) -> None:
    """Joins short clips of sound of one class, with an exact map back to their sources.

    A run of the audio recipe does so itself, in joined/audio of its workspace; `forget` reaches
    those, and not what is joined elsewhere.
    """
    from reelmill.datasets.joining import JoinOptions, join_shards

    result = join_shards(shards, output, JoinOptions(max_seconds, by))
    console.say(
        f"{result.clips} clips: {result.parts} joined into {result.joined}, {result.alone} as they "
        f"were; {result.seconds:.1f} s, the longest {result.longest:.2f} s"
    )
    console.say(f"shards {result.output}")
    console.answer({**asdict(result), "output": str(result.output)})
