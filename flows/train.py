"""Training as a Prefect flow: a curriculum, or some of its stages, is one task."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from prefect import flow
from pydantic import Field

from reelmill.flows import artifacts, promotion
from reelmill.flows.form import form
from reelmill.flows.limit import Limit, Timeout
from reelmill.flows.tasks import LogProgress, ended, run_task
from reelmill.training.config import Execution, TrainOptions, TrainResult
from reelmill.training.curricula import CURRICULA
from reelmill.training.curricula import curriculum as built_in
from reelmill.training.curriculum import read_gate


@flow(name="train", flow_run_name="train {curriculum}", retries=0)
@form
def train(
    latents: Annotated[Path, Field(description="Folder of latent shards.")],
    output: Annotated[Path, Field(description="The run's folder: checkpoints, metrics, export.")],
    curriculum: Annotated[
        str,
        Field(
            description="Name of a built-in curriculum.",
            json_schema_extra={"enum": sorted(CURRICULA)},
        ),
    ] = "demo",
    stages: Annotated[list[str], Field(description="Stages to run; empty: all.")] = [],  # noqa: B006
    seed: Annotated[int, Field(description="Seed of all that is random.")] = 0,
    unreviewed: Annotated[
        bool, Field(description="Train without approvals; checkpoints record it.")
    ] = False,
    tensorboard: Annotated[bool, Field(description="Write TensorBoard logs too.")] = False,
    threads: Annotated[int, Field(ge=0, description="Of torch; 0 leaves them as they are.")] = 0,
    base: Annotated[
        Path | None, Field(description="Exported model that a Refiner is trained for.")
    ] = None,
    gate: Annotated[
        Path | None, Field(description="YAML of what no stage's clips may lose, or it ends there.")
    ] = None,
    ranks: Annotated[int, Field(ge=1, description="Processes that share each batch.")] = 1,
    timeout: Timeout = None,
) -> TrainResult:
    """Trains the stages of a curriculum in order; goes on from the newest checkpoint."""
    chosen = built_in(curriculum)
    limit = Limit(timeout)
    options = TrainOptions(
        latents=latents,
        output=output,
        curriculum=chosen.gated(read_gate(gate)) if gate else chosen,
        stages=tuple(stages),
        seed=seed,
        unreviewed=unreviewed,
        tensorboard=tensorboard,
        threads=threads,
        base=base,
        execution=Execution(ranks=ranks),
    )
    result = run_task(
        "train",
        lambda: promotion.train(options, LogProgress("train")),
        _said,
        label=f"train {curriculum}",
        reused=lambda r: r.resumed_from == r.steps,
        resumes=True,
        limit=limit,
    )
    artifacts.trained(result)
    return ended(result, _said(result))


def _said(result: TrainResult) -> str:
    lost = f"{result.loss_start:.4f} -> {result.loss_end:.4f}"
    return f"{result.steps} steps, held-out loss {lost}"
