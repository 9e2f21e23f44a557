"""The model that a stage trains: fresh, the one of an earlier stage, or the Refiner of a base."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from reelmill.datasets.latents import LatentDataset
from reelmill.errors import CheckpointError, UsageError
from reelmill.model.mmdit import MMDiT, part_of
from reelmill.model.pipeline import Pipeline
from reelmill.model.refiner import refiner_config, refiner_of
from reelmill.training import checkpoint as checkpoints
from reelmill.training import sharding
from reelmill.training.config import TrainOptions
from reelmill.training.curriculum import TrainStage

DTYPES = {"fp32": torch.float32, "bf16": torch.float32, "fp64": torch.float64}  # of weights
NOT_LEARNED = {"checkpoint_every", "gate", "samples"}  # of a stage: what no weight depends on


@dataclass(frozen=True)
class StageModel:
    """config: all that the outcome of the stage depends on, which its checkpoints record."""

    model: MMDiT
    config: dict[str, Any]


def stage_model(stage: TrainStage, options: TrainOptions, data: LatentDataset) -> StageModel:
    """The same weights on every rank. Raises UsageError (no base) and CheckpointError."""
    base = _base(stage, options, data)
    plan = options.curriculum.model
    config = (
        refiner_config(base.model.config, residual=stage.residual)
        if base
        else plan.config(
            data.channels("video"), data.channels("audio"), data.constants["null_text"].shape[1]
        )
    )
    init = _init_weights(stage, options)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.seed)
        model = refiner_of(base.model, residual=stage.residual) if base else MMDiT(config)
        if not base:
            plan.prepare(model)
    if init:
        sharding.load(dict(model.named_parameters()), init[0])
    model.to(DTYPES[stage.precision])
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(stage.trainable in ("all", part_of(name)))
    return StageModel(
        model,
        {
            "stage": stage.model_dump(mode="json", exclude=_unsaid(stage)),
            "model": config.to_json(),
            "seed": options.seed,
            "validation": options.curriculum.validation,
            "latents": data.manifest.digest,
            "codecs": {n: getattr(data.manifest, n) for n in ("video", "audio", "text")},
            "init": init[1] if init else base.digest if base else "",
        },
    )


def _base(stage: TrainStage, options: TrainOptions, data: LatentDataset) -> Pipeline | None:
    """The model that a Refiner is made for."""
    if not stage.refiner:
        return None
    if options.base is None:
        raise UsageError(
            f"stage {stage.name!r} trains a Refiner: name the exported model that it is for, "
            "--base DIR."
        )
    base = Pipeline.load(options.base)
    data.require(video=base.fingerprints["video"], audio=data.manifest.audio)
    return base


def _init_weights(stage: TrainStage, options: TrainOptions) -> tuple[dict[str, Tensor], str] | None:
    """EMA weights of the stage that this one starts from, with their digest."""
    if stage.init_from is None:
        return None
    folder = options.output / stage.init_from / "checkpoints"
    found = checkpoints.latest(folder)
    before = next(s for s in options.curriculum.stages if s.name == stage.init_from)
    point = checkpoints.load(found) if found else None
    if found is None or point is None or point.step < before.steps:
        raise CheckpointError(
            f"stage {stage.name!r} starts from stage {before.name!r}, which has not finished in "
            f"{folder}. Train it first."
        )
    return point.ema, checkpoints.digest(found)


def _unsaid(stage: TrainStage) -> set[str]:
    """Fields that a checkpoint of the stage does not depend on."""
    unused = set() if stage.refiner else {"residual", "dense_layers"}
    return NOT_LEARNED | unused | ({"precision"} if stage.precision == "fp32" else set())
