"""A reviewer's decision as a flow: its form in Prefect's page is the review's last step.

It says what was decided as an event, `reelmill.data.approved` or `reelmill.data.rejected`, that
deployments can be triggered by (see prefect.yaml).
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from prefect import flow
from prefect.events import emit_event
from pydantic import Field

from reelmill.datasets import approval
from reelmill.datasets.workspace import open_workspace
from reelmill.errors import UsageError
from reelmill.flows import artifacts
from reelmill.flows.form import form
from reelmill.flows.tasks import run_task

APPROVED, REJECTED = "reelmill.data.approved", "reelmill.data.rejected"


@flow(name="approve", flow_run_name="{decision} run {run} of {workspace}", retries=0)
@form
def approve(
    workspace: Annotated[Path, Field(description="Folder of the run.")],
    decision: Annotated[
        Literal["approve", "reject"], Field(description="May these shards be trained on?")
    ],
    reviewer: Annotated[str, Field(min_length=1, description="Who looked at the report.")],
    run: Annotated[str, Field(description="A run's name, or last.")] = "last",
    note: Annotated[str, Field(description="What was seen.")] = "",
    bounds: Annotated[
        list[str],
        Field(description="With reject: bounds to try next, Stage.field=value; they are recorded."),
    ] = [],  # noqa: B006 - a form wants a list
) -> list[approval.Approval]:
    """Approves or rejects a run's shards, bound to their bytes and to the report's.

    Raises UsageError and DatasetError as `reelmill review` does.
    """
    if bounds and decision == "approve":
        raise UsageError("bounds are moved by rejecting: what is approved was made with others.")
    decide = approval.approve if decision == "approve" else approval.reject
    told = "; ".join(filter(None, (note, "moved bounds: " + ", ".join(bounds) if bounds else "")))
    made = run_task(
        "decide",
        lambda: decide(workspace, run, reviewer, told),
        lambda found: f"{decision}: {', '.join(a.kind for a in found)} of run {found[0].run}",
        label=decision,
    )
    root = open_workspace(workspace, create=False).root.resolve()
    artifacts.approved(made)
    emit_event(
        event=APPROVED if decision == "approve" else REJECTED,
        resource={
            "prefect.resource.id": f"reelmill.workspace.{root}",
            "prefect.resource.name": root.name,
        },
        payload={
            "workspace": str(root),
            "run": made[0].run,
            "reviewer": reviewer,
            "shards": [str(root / "shards" / a.kind) for a in made if a.kind != "audio"],
            "latents": str(root / "latents"),
            "bounds": bounds,
        },
    )
    return made
