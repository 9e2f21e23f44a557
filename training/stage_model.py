"""The model that a stage trains: fresh, the one of an earlier stage, or the Refiner of a base."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from reelmill.datasets.latents import LatentDataset
from reelmill.errors import UsageError
from reelmill.model.mmdit import MMDiT, part_of
from reelmill.model.pipeline import Pipeline
from reelmill.model.refiner import refiner_config, refiner_of
from reelmill.training import sharding
from reelmill.training.config import TrainOptions
from reelmill.training.curriculum import TrainStage
from reelmill.training.predecessor import config_of, start_of

DTYPES = {"fp32": torch.float32, "bf16": torch.float32, "fp64": torch.float64}  # of weights


@dataclass(frozen=True)
class StageModel:
    """config: all that the outcome of the stage depends on, which its checkpoints record. base: the
    model that a Refiner is made for. learned: see Start.
    """

    model: MMDiT
    config: dict[str, Any]
    base: Pipeline | None
    learned: dict[str, float]


def stage_model(stage: TrainStage, options: TrainOptions, data: LatentDataset) -> StageModel:
    """The same weights on every rank. Raises UsageError (no base, no GPU) and CheckpointError."""
    device = options.execution.device
    if device == "cuda" and not torch.cuda.is_available():
        raise UsageError("--device cuda: torch sees no GPU here. Leave it out to train on the CPU.")
    start = start_of(stage, options, data)
    base = start.base
    plan = options.curriculum.model
    config = (
        refiner_config(base.model.config, residual=stage.residual)
        if base
        else plan.config(
            data.channels("video"), data.channels("audio"), data.constants["null_text"].shape[1]
        )
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.seed)
        model = refiner_of(base.model, residual=stage.residual) if base else MMDiT(config)
        if not base:
            plan.prepare(model)
    if start.weights:
        sharding.load(dict(model.named_parameters()), start.weights)
    model.to(device, DTYPES[stage.precision])
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(stage.trainable in ("all", part_of(name)))
    return StageModel(
        model,
        {
            "stage": config_of(stage),
            "model": config.to_json(),
            "seed": options.seed,
            "validation": {c.name: c.weight for c in options.curriculum.checks(stage)},
            "latents": data.manifest.digest,
            "codecs": {n: getattr(data.manifest, n) for n in ("video", "audio", "text")},
            "init": start.digest,
        },
        base,
        start.learned,
    )
