"""`reelmill plan`: what a run would measure, and why, before it runs."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from reelmill import console
from reelmill.commands.options import (
    CacheGb,
    DateColumn,
    FileGb,
    Json,
    Only,
    Roots,
    Schemes,
    Settings,
    Since,
    Until,
    WeightsDir,
    Workspace,
    examples,
    fetching,
    selecting,
)

EPILOG = examples(
    "reelmill plan media/ --workspace work",
    "reelmill plan media/ -w work --set Shots.min_shot_seconds=0.5",
)


def plan(
    sources: Annotated[
        list[str],
        typer.Argument(
            help="Folders, files or patterns of media; http, https or s3 locations; CSV, TSV or "
            "Parquet with a column `path` or `url` and others of your own.",
            metavar="SOURCE",
        ),
    ],
    workspace: Workspace,
    recipe: Annotated[
        str | None, typer.Option(help="video, image, audio or a YAML file; as of `curate`.")
    ] = None,
    settings: Settings = None,
    weights: WeightsDir = None,
    allow_missing: Annotated[bool, typer.Option("--allow-missing", help="As of `curate`.")] = False,
    measure_all: Annotated[bool, typer.Option("--measure-all", help="As of `curate`.")] = False,
    root: Roots = None,
    allow_scheme: Schemes = None,
    cache_gb: CacheGb = 200.0,
    file_gb: FileGb = 32.0,
    only: Only = None,
    since: Since = None,
    until: Until = None,
    date_column: DateColumn = None,
    as_json: Json = False,
) -> None:
    """Says what `curate` would measure and why: new input, changed bytes, what made a key stale.

    Writes nothing and opens no media. Give it the options that `curate` will get.
    """
    from reelmill.curation.engine import CurateOptions
    from reelmill.curation.explain.plan import make_plan

    options = CurateOptions(
        sources=tuple(sources),
        workspace=workspace,
        recipe=recipe,
        overrides=tuple(settings or ()),
        weights=weights,
        allow_missing=allow_missing,
        measure_all=measure_all,
        ingest=fetching(root, allow_scheme, cache_gb, file_gb),
        select=selecting(only, since, until, date_column),
    )
    found = make_plan(options)
    console.say(f"{found.files} files, {found.assets} assets; {found.gone} left since the last run")
    for line in found.lines:
        if line.todo:
            name = f"{line.kind} {line.stage}".strip()
            console.say(f"{name:22} {line.todo:6} {line.unit}s to measure, {line.have} reused")
            for reason, count in line.reasons.items():
                console.say(f"{'':22} {count:6} {reason}")
    if found.waiting:
        console.say(f"{found.waiting} assets wait for their decode: their clips are not known yet")
    if not found.todo:
        console.say("nothing to measure")
    for kind, what in found.shards.items():
        console.say(f"{kind} shards: {what}")
    console.answer(asdict(found) | {"todo": found.todo})
