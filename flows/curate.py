"""Curation as a Prefect flow: each step of the engine is one task."""

from __future__ import annotations

from contextlib import closing
from datetime import date
from pathlib import Path
from typing import Annotated, Literal

from prefect import flow
from pydantic import Field

from reelmill.curation.engine import CurateOptions, Curation, Step, StepOutcome
from reelmill.curation.result import CurateResult
from reelmill.datasets.ingest.remote import Rules
from reelmill.datasets.ingest.select import Selection
from reelmill.flows import artifacts
from reelmill.flows.form import form
from reelmill.flows.limit import Limit, StepTimeout, Timeout
from reelmill.flows.tasks import ended, run_task


def run_step(step: Step, limit: Limit) -> StepOutcome:
    """Runs one step of the engine as a task."""

    def work() -> StepOutcome:
        progress = artifacts.Progress(step.name, step.label, step.total)
        outcome = step.run(progress)
        progress.done()
        return outcome

    return run_task(
        step.name,
        work,
        str,
        label=step.label,
        reused=lambda outcome: not outcome.measured,
        limit=limit,
    )


@flow(name="curate", flow_run_name="curate into {workspace}", retries=0)
@form
def curate(
    sources: Annotated[list[str], Field(description="Folders, files or patterns of media.")],
    workspace: Annotated[Path, Field(description="Folder that holds all that a pipeline makes.")],
    recipe: Annotated[
        str | None,
        Field(description="video, image, audio or a YAML file; empty: each file's own kind."),
    ] = None,
    overrides: Annotated[
        list[str], Field(description="Changes to the recipe, each as Stage.field=value.")
    ] = [],  # noqa: B006 - Prefect copies parameters, and a form wants a list
    weights: Annotated[Path | None, Field(description="Folder of pretrained weights.")] = None,
    allow_missing: Annotated[
        bool, Field(description="Run without absent weights; scores read 'not measured'.")
    ] = False,
    measure_all: Annotated[bool, Field(description="Measure rejected clips too.")] = False,
    max_failed: Annotated[
        float | None, Field(ge=0, le=1, description="Failure budget; empty: the recipe's.")
    ] = None,
    workers: Annotated[
        int | None, Field(ge=0, description="Processes that open media; empty: one a core.")
    ] = None,
    engine: Annotated[
        Literal["local", "ray"], Field(description="Where media are opened: here, or on Ray.")
    ] = "local",
    address: Annotated[
        str | None, Field(description="Of a Ray cluster; empty: one on this machine for the run.")
    ] = None,
    ingest: Annotated[Rules, Field(description="What may be fetched, and how.")] = Rules(),  # noqa: B008
    only: Annotated[
        list[str],
        Field(description="Backfill: beginnings of paths or locations, or patterns; empty: all."),
    ] = [],  # noqa: B006
    since: Annotated[
        date | None, Field(description="Backfill: first day, UTC, of a file's last change.")
    ] = None,
    until: Annotated[date | None, Field(description="Backfill: last day.")] = None,
    date_column: Annotated[
        str | None, Field(description="Column of a manifest to read the day from instead.")
    ] = None,
    timeout: Timeout = None,
    step_timeout: StepTimeout = None,
) -> CurateResult:
    """Measures, decides, cuts what is kept, writes shards and a report.

    Raises what the engine raises, and TimedOut. More failures than the budget allows do not fail
    the flow: its result says so, and the report.
    """
    limit = Limit(timeout, step_timeout)
    options = CurateOptions(
        sources=tuple(sources),
        workspace=workspace,
        recipe=recipe,
        overrides=tuple(overrides),
        weights=weights,
        allow_missing=allow_missing,
        measure_all=measure_all,
        max_failed=max_failed,
        workers=workers,
        command="flow curate",
        engine=engine,
        address=address,
        ingest=ingest,
        select=Selection(tuple(only), since, until, date_column or ""),
    )
    with limit.within("looking at what is asked for"):
        curation = Curation(options)
    with closing(curation.steps()) as steps:
        for step in steps:
            run_step(step, limit)
    result = curation.result()
    artifacts.curated(result)
    over = f" Over budget: {result.over_budget}" if result.over_budget else ""
    return ended(result, f"clips {result.clips}; {result.redone} measured anew.{over}")
