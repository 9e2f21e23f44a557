"""Training a SyncNet of one's own as a Prefect flow."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from prefect import flow
from pydantic import Field

from reelmill.curation.lips import sync_training as engine
from reelmill.curation.lips.sync_training import SyncOptions, SyncTrained
from reelmill.flows import artifacts
from reelmill.flows.form import form
from reelmill.flows.limit import Limit, Timeout
from reelmill.flows.tasks import LogProgress, run_task


@flow(name="sync", flow_run_name="train a SyncNet into {output}", retries=0)
@form
def sync(
    sources: Annotated[list[Path], Field(description="Clips in sync: shards, videos, folders.")],
    output: Annotated[Path, Field(description="Folder of the network.")],
    held_out: Annotated[
        list[Path], Field(description="Clips not trained on; empty: a fifth of the files.")
    ] = [],  # noqa: B006
    steps: Annotated[int, Field(ge=1, description="Of training.")] = 600,
    batch: Annotated[int, Field(ge=2, description="Clips in a step.")] = 8,
    frames: Annotated[int, Field(ge=2, le=46, description="Of a clip in a step.")] = 32,
    channels: Annotated[int, Field(ge=16, description="Of the widest layer.")] = 96,
    width: Annotated[int, Field(ge=8, description="Numbers of an embedding.")] = 64,
    learning_rate: Annotated[float, Field(gt=0, description="The highest, after a rise.")] = 2e-3,
    device: Annotated[str, Field(description="Of torch: cpu, cuda.")] = "cpu",
    threads: Annotated[int, Field(ge=0, description="Of torch; 0 leaves them as they are.")] = 0,
    seed: Annotated[int, Field(description="Seed of all that is random.")] = 0,
    weights: Annotated[
        Path | None, Field(description="Folder of pretrained weights: the face detector.")
    ] = None,
    timeout: Timeout = None,
) -> SyncTrained:
    """Trains a small SyncNet on clips in sync and measures it on held-out ones."""
    limit = Limit(timeout)
    options = SyncOptions(
        sources=tuple(sources),
        output=output,
        held_out=tuple(held_out),
        steps=steps,
        batch=batch,
        frames=frames,
        channels=channels,
        width=width,
        learning_rate=learning_rate,
        device=device,
        threads=threads,
        seed=seed,
        weights=weights,
    )
    result = run_task(
        "sync",
        lambda: engine.train_sync(options, LogProgress("sync")),
        lambda r: f"{r.figures.accuracy:.1%} of shifts within one frame, loss {r.loss_end:.3f}",
        limit=limit,
    )
    artifacts.synced(result)
    return result
