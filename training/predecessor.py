"""What a stage starts from: the weights of an earlier one, and what was learned by then."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from reelmill.datasets.latents import LatentDataset
from reelmill.errors import CheckpointError, UsageError
from reelmill.model.pipeline import Pipeline
from reelmill.training import checkpoint as checkpoints
from reelmill.training.checkpoint import Checkpoint
from reelmill.training.config import TrainOptions
from reelmill.training.curriculum import TrainStage
from reelmill.training.export import make_pipeline

NOT_LEARNED = {"checkpoint_every", "gate", "retention", "samples"}  # what no weight depends on


@dataclass(frozen=True)
class Start:
    """weights: EMA of the stage before, None to start afresh. base: the model that a Refiner is
    made for. digest: of what it is, for the checkpoints' config. learned: held-out losses at the
    end of the stages that trained them last, by name."""

    weights: dict[str, Tensor] | None = None
    base: Pipeline | None = None
    digest: str = ""
    learned: dict[str, float] = field(default_factory=dict)


def start_of(stage: TrainStage, options: TrainOptions, data: LatentDataset) -> Start:
    """Raises UsageError (a Refiner without a base) and CheckpointError (a stage before that has not
    finished, or was trained otherwise than the curriculum says)."""
    if stage.refiner and (options.base is not None or stage.init_from is None):
        base = _exported(stage, options, data)
        return Start(base=base, digest=base.digest)
    if stage.init_from is None:
        return Start()
    point, path = _before(stage, options, data)
    if stage.refiner:
        base = make_pipeline(point, data)
        return Start(base=base, digest=base.digest)
    return Start(point.ema, None, checkpoints.digest(path), _learned(point, options))


def config_of(stage: TrainStage) -> dict[str, object]:
    """The stage as its checkpoints record it: without what they do not depend on."""
    unused = set() if stage.refiner else {"residual", "dense_layers"}
    unused |= {"precision"} if stage.precision == "fp32" else set()
    return stage.model_dump(mode="json", exclude=NOT_LEARNED | unused)


def _exported(stage: TrainStage, options: TrainOptions, data: LatentDataset) -> Pipeline:
    if options.base is None:
        raise UsageError(
            f"stage {stage.name!r} trains a Refiner: name the exported model that it is for, "
            "--base DIR."
        )
    base = Pipeline.load(options.base)
    data.require(video=base.fingerprints["video"], audio=data.manifest.audio)
    return base


def _before(
    stage: TrainStage, options: TrainOptions, data: LatentDataset
) -> tuple[Checkpoint, Path]:
    """The last checkpoint of the stage that this one starts from."""
    before = next(s for s in options.curriculum.stages if s.name == stage.init_from)
    folder = options.output / before.name / "checkpoints"
    found = checkpoints.latest(folder)
    point = checkpoints.load(found) if found else None
    if found is None or point is None or point.step < before.steps:
        raise CheckpointError(
            f"stage {stage.name!r} starts from stage {before.name!r}, which has not finished in "
            f"{folder}. Train it first."
        )
    codecs = {n: getattr(data.manifest, n) for n in ("video", "audio", "text")}
    for what, was, now in (
        ("stage", point.config["stage"], config_of(before)),
        ("codecs", point.config["codecs"], codecs),
        ("run", {"seed": point.config["seed"]}, {"seed": options.seed}),
    ):
        for name in sorted({*was, *now}):
            if was.get(name) != now.get(name):
                raise CheckpointError(
                    f"stage {stage.name!r} starts from {found}, which was trained otherwise: "
                    f"{what}.{name} was {was.get(name)!r}, and is {now.get(name)!r} now. Train "
                    f"stage {before.name!r} again in another folder, or set it back."
                )
    return point, found


def _learned(point: Checkpoint, options: TrainOptions) -> dict[str, float]:
    name = point.config["stage"]["name"]
    before = next(s for s in options.curriculum.stages if s.name == name)
    own = [check.name for check in options.curriculum.checks(before) if check.weight]
    last = point.state["by_task"]["last"]
    return {**point.state["learned"], **{name: last[name] for name in own}}
