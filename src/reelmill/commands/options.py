"""Options that several commands share, so that they read the same everywhere."""

from __future__ import annotations

from datetime import datetime
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from reelmill import console

if TYPE_CHECKING:
    from reelmill.datasets.ingest.remote import Rules
    from reelmill.datasets.ingest.select import Selection


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


Roots = Annotated[
    list[str] | None,
    typer.Option(
        "--root",
        metavar="DIR",
        help="Folder that paths in a manifest may lie in, beside the manifest's own. Repeatable.",
    ),
]
Schemes = Annotated[
    list[str] | None,
    typer.Option(
        "--allow-scheme",
        metavar="SCHEME",
        help="Store (of fsspec) that may be named beside http, https and s3. Repeatable.",
    ),
]
CacheGb = Annotated[
    float, typer.Option(min=0.001, help="Room for fetched files in the workspace, in GB.")
]
FileGb = Annotated[float, typer.Option(min=0.001, help="Largest file that is fetched, in GB.")]


Only = Annotated[
    list[str] | None,
    typer.Option(
        "--only",
        metavar="PREFIX",
        help="Backfill: only files whose path or location begins so, or fits a pattern, beside "
        "those that earlier runs took up. Repeatable.",
    ),
]
Since = Annotated[
    datetime | None,
    typer.Option(
        formats=["%Y-%m-%d"], help="Backfill: only files last changed on this day (UTC) or later."
    ),
]
Until = Annotated[
    datetime | None,
    typer.Option(formats=["%Y-%m-%d"], help="Backfill: only files last changed by this day."),
]
DateColumn = Annotated[
    str | None,
    typer.Option(
        metavar="NAME", help="Column of a manifest that --since and --until read instead."
    ),
]


def selecting(
    only: list[str] | None, since: datetime | None, until: datetime | None, column: str | None
) -> Selection:
    """Which files are taken up, from a command's options."""
    from reelmill.datasets.ingest.select import Selection

    first, last = (None if day is None else day.date() for day in (since, until))
    return Selection(tuple(only or ()), first, last, column or "")


def fetching(
    roots: list[str] | None, schemes: list[str] | None, cache_gb: float, file_gb: float
) -> Rules:
    """What may be fetched, from a command's options."""
    from reelmill.datasets.ingest.remote import Rules

    usual = Rules()
    return Rules(
        schemes=(*usual.schemes, *(scheme.lower() for scheme in schemes or ())),
        roots=tuple(roots or ()),
        cache_bytes=int(cache_gb * 1e9),
        max_bytes=int(file_gb * 1e9),
    )


def examples(*lines: str) -> str:
    """The epilog of a command's help: one example a line."""
    return "\n\n".join(("Examples:", *(f"$ {line}" for line in lines)))
