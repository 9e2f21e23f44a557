"""A reviewer's decision as a flow: its form in Prefect's page is the review's last step.

It says what was decided as events that deployments are triggered by (see prefect.yaml):

    reelmill.data.approved     starts `encode`
    reelmill.data.rejected
    reelmill.bounds.moved      with moved bounds, besides: starts the `curate` that decides anew
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from prefect import flow
from prefect.events import emit_event
from pydantic import Field, TypeAdapter

from reelmill.curation.engine import CurateOptions, Curation
from reelmill.curation.request import read_request
from reelmill.datasets import approval
from reelmill.datasets.ingest.remote import Rules
from reelmill.datasets.workspace import open_workspace
from reelmill.errors import UsageError
from reelmill.flows import artifacts
from reelmill.flows.form import form
from reelmill.flows.tasks import ended, run_task

APPROVED, REJECTED = "reelmill.data.approved", "reelmill.data.rejected"
MOVED = "reelmill.bounds.moved"
SELECTION = ("only", "since", "until", "date_column")


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
        Field(description="With reject: bounds to decide anew with, Stage.field=value."),
    ] = [],  # noqa: B006 - a form wants a list
) -> list[approval.Approval]:
    """Approves or rejects a run's shards, bound to their bytes and to the report's.

    With moved bounds, the same sources are decided anew. Raises UsageError and DatasetError as
    `reelmill review` does, and RecipeError for a bound that there is not.
    """
    if bounds and decision == "approve":
        raise UsageError("bounds are moved by rejecting: what is approved was made with others.")
    root = open_workspace(workspace, create=False).root.resolve()
    again = _again(root, run, bounds) if bounds else None
    decide = approval.approve if decision == "approve" else approval.reject
    told = "; ".join(filter(None, (note, "moved bounds: " + ", ".join(bounds) if bounds else "")))
    made = run_task(
        "decide",
        lambda: decide(workspace, run, reviewer, told),
        lambda found: _said(decision, found),
        label=decision,
    )
    artifacts.approved(made)
    resource = {
        "prefect.resource.id": f"reelmill.workspace.{root}",
        "prefect.resource.name": root.name,
    }
    emit_event(
        event=APPROVED if decision == "approve" else REJECTED,
        resource=resource,
        payload={
            "workspace": str(root),
            "run": made[0].run,
            "reviewer": reviewer,
            "shards": [str(root / "shards" / a.kind) for a in made if a.kind != "audio"],
            "latents": str(root / "latents"),
            "bounds": bounds,
        },
    )
    if again is not None:
        emit_event(event=MOVED, resource=resource, payload=again)
    return ended(made, _said(decision, made))


def _said(decision: str, made: list[approval.Approval]) -> str:
    kinds = ", ".join(a.kind for a in made)
    return f"{decision}: {kinds} of run {made[0].run}, by {made[0].reviewer}"


def _again(root: Path, run: str, bounds: list[str]) -> dict[str, Any]:
    """Parameters of the run that decides anew, tried on a Curation so that none is wrong."""
    request = read_request(approval.run_folder(root, run))
    given = request.moved(root, bounds)
    named: dict[str, Any] = {"workspace": root}
    named["ingest"] = TypeAdapter(Rules).validate_python(given["ingest"])
    named |= {name: tuple(given[name]) for name in ("sources", "overrides")}
    if given["weights"] is not None:
        named["weights"] = Path(given["weights"])
    options = {name: value for name, value in given.items() if name not in SELECTION}
    Curation(CurateOptions(**options | named, select=request.select))
    return given
