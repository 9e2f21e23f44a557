"""`reelmill curate`: raw media in, curated shards and a report out."""

from __future__ import annotations

import json
import shlex
import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

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
    Via,
    WeightsDir,
    Workspace,
    examples,
    fetching,
    selecting,
)

if TYPE_CHECKING:
    from reelmill.curation.engine import Curation
    from reelmill.curation.result import CurateResult

EPILOG = examples(
    "reelmill curate media/ --workspace work",
    "reelmill curate films.csv s3://bucket/films https://host/a.mp4 -w work",
    "reelmill curate s3://bucket -w work --only 's3://bucket/2026-10/' --since 2026-10-01",
    "reelmill curate 'media/**/*.mp4' -w work --recipe video --set Shots.threshold=30",
    "reelmill recipe show video > mine.yaml; reelmill curate media/ -w work --recipe mine.yaml",
    "reelmill curate /shared/media -w /shared/work --engine ray --address auto",
)


def curate(
    ctx: typer.Context,
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
        str | None,
        typer.Option(
            help="video, image, audio or a YAML file. Without it each file goes to the recipe of "
            "its kind."
        ),
    ] = None,
    settings: Settings = None,
    weights: WeightsDir = None,
    allow_missing: Annotated[
        bool,
        typer.Option(
            "--allow-missing", help="Run without absent weights; scores read 'not measured'."
        ),
    ] = False,
    measure_all: Annotated[
        bool,
        typer.Option("--measure-all", help="Measure rejected clips too, to explore bounds."),
    ] = False,
    max_failed: Annotated[
        float | None,
        typer.Option(help="Share of failed clips (0 to 1) above which the exit code is 3."),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            help="Processes that open media. Default: one for each core. 0: none, without "
            "protection from files that crash their decoder."
        ),
    ] = None,
    engine: Annotated[
        Literal["local", "ray"],
        typer.Option(help="Where media are opened: on this machine, or by a Ray cluster."),
    ] = "local",
    address: Annotated[
        str | None,
        typer.Option(
            help="Ray cluster that `--engine ray` works on: HOST:PORT, or auto for the one on "
            "this machine. Without it, one is started here and ends with the run.",
            metavar="ADDRESS",
        ),
    ] = None,
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
    """Curates media: measures, decides, cuts what is kept, writes shards and a report.

    Run it again to go on after an interruption, or after more media came or a bound moved: only
    what is missing is measured.
    """
    with server_beside(workspace) if ctx.obj is Via.FLOW else nullcontext():
        from reelmill.curation.engine import CurateOptions, Curation

        options = CurateOptions(
            sources=tuple(sources),
            workspace=workspace,
            recipe=recipe,
            overrides=tuple(settings or ()),
            weights=weights,
            allow_missing=allow_missing,
            measure_all=measure_all,
            max_failed=max_failed,
            workers=workers,
            command=shlex.join(["reelmill", *sys.argv[1:]]),
            engine=engine,
            address=address,
            ingest=fetching(root, allow_scheme, cache_gb, file_gb),
            select=selecting(only, since, until, date_column),
        )
        curation = Curation(options)
    for text in curation.open_gates:
        console.note(f"note: {text}")
    result = through_prefect(curation) if ctx.obj is Via.FLOW else directly(curation)
    show(result)
    console.answer(json.loads(result.to_json()))
    raise typer.Exit(result.exit_code)


def server_beside(workspace: Path) -> AbstractContextManager[None]:
    """Prefect's server comes up while what is asked for is looked at, unless that will be wrong."""
    from reelmill.datasets.workspace import may_hold
    from reelmill.flows import settings

    return settings.begun(workspace / ".prefect") if may_hold(workspace) else nullcontext()


def directly(curation: Curation) -> CurateResult:
    """Runs the engine in this process, with progress bars."""
    for step in curation.steps():
        with console.bar(step.label, step.total) as advance:
            outcome = step.run(advance)
        console.log.info("%s: %s", step.label, outcome)
    return curation.result()


def through_prefect(curation: Curation) -> CurateResult:
    """Runs the same steps as tasks of a Prefect flow."""
    from reelmill.flows import settings

    options = curation.options
    curation.warm_up()
    from reelmill.flows.curate import curate as flow

    with settings.connected():
        return flow(
            sources=list(options.sources),
            workspace=options.workspace,
            recipe=options.recipe,
            overrides=list(options.overrides),
            weights=options.weights,
            allow_missing=options.allow_missing,
            measure_all=options.measure_all,
            max_failed=options.max_failed,
            workers=options.workers,
            engine=options.engine,
            address=options.address,
            ingest=options.ingest,
            only=list(options.select.only),
            since=options.select.since,
            until=options.select.until,
            date_column=options.select.column or None,
        )


def show(result: CurateResult) -> None:
    """The result for a person."""
    for name in ("files", "assets", "clips"):
        console.say(f"{name:8} {getattr(result, name)}")
    console.say(f"measured {result.redone} anew, {result.seconds:.1f} s")
    console.say(f"report   {result.report}")
    for path in result.shards:
        console.say(f"shard    {path}")
    for text in result.notes:
        console.note(f"note: {text}")
    if result.over_budget:
        console.note(f"BudgetExceeded: {result.over_budget}")
