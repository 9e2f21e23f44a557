"""Options that several commands share, so that they read the same everywhere."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from reelmill import console


class Via(Enum):
    """How a command reaches its work: `reelmill NAME` or `reelmill flow NAME`."""

    ENGINE = "engine"
    FLOW = "flow"


def _set_json(on: bool) -> bool:
    console.set_json(on)
    return on


Workspace = Annotated[
    Path, typer.Option("--workspace", "-w", help="Folder that holds all that a pipeline makes.")
]
Json = Annotated[
    bool,
    typer.Option("--json", callback=_set_json, is_eager=True, help="One JSON object on stdout."),
]
Run = Annotated[str, typer.Option(help="A run's name, or `last`.", metavar="RUN")]
Seed = Annotated[
    int, typer.Option(help="Seed of all that is random. The same seed, the same bytes.")
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="Stage.field=value", help="Change one field of a recipe. Repeatable."
    ),
]
WeightsDir = Annotated[
    Path | None,
    typer.Option(
        "--weights",
        help="Folder of pretrained weights. Default: REELMILL_WEIGHTS, then the user's cache.",
        metavar="DIR",
    ),
]


def examples(*lines: str) -> str:
    """The epilog of a command's help: one example a line."""
    return "\n\n".join(("Examples:", *(f"$ {line}" for line in lines)))
