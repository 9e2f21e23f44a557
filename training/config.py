"""What a training run is asked to do, and what came of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from reelmill.training.curriculum import Curriculum

# Called with what is done, how much there is when known, and a few words.
Progress = Callable[[float, float | None, str], None]


def silent(done: float, total: float | None = None, text: str = "") -> None:
    """The progress of those who do not want to know."""


@dataclass(frozen=True)
class Execution:
    """How a run is carried out: what it learns does not depend on it, but for rounding.

    ranks: processes of this machine that share every batch. context: of them, so many share the
    tokens of their samples. accumulate: equal parts of a rank's share that go through the model one
    after the other. recompute: activations of a layer are computed again instead of kept. compile:
    layers by torch.compile. background: checkpoints are written while training goes on. launcher:
    who starts the ranks. device: `cpu` or `cuda`, of which each rank of a machine has its own.
    """

    ranks: int = 1
    context: int = 1
    accumulate: int = 1
    recompute: bool = False
    compile: bool = False
    background: bool = True
    launcher: Literal["torchrun", "ray"] = "torchrun"
    device: Literal["cpu", "cuda"] = "cpu"


@dataclass(frozen=True)
class TrainOptions:
    """A training run.

    latents: folder of latent shards. output: the run's folder: checkpoints, metrics.jsonl, export.
    stages: names of the stages to run, all when empty. unreviewed: train without approvals, which
    every checkpoint then records. tensorboard: event files beside metrics.jsonl. threads: of torch;
    0 leaves them as they are. base: exported model that a Refiner is trained for. log_clips: a line
    of clips.jsonl per step, with the keys of its clips by slot.
    """

    latents: Path
    output: Path
    curriculum: Curriculum
    stages: tuple[str, ...] = ()
    seed: int = 0
    unreviewed: bool = False
    tensorboard: bool = False
    threads: int = 0
    base: Path | None = None
    log_clips: bool = False
    execution: Execution = Execution()


@dataclass(frozen=True)
class StageResult:
    """loss_start, loss_end: held-out, of the EMA weights, on tasks (Curriculum.validation), noise
    and times that are the same in all stages."""

    name: str
    steps: int
    loss_start: float
    loss_end: float
    checkpoint: Path
    resumed_from: int
    corrupt: int
    seconds: float


@dataclass(frozen=True)
class TrainResult:
    """resumed_from: the step that the run went on from, 0 when it was new.

    export: folder with the EMA weights and all that model/pipeline.py needs to generate.
    """

    stages: tuple[StageResult, ...]
    checkpoint: Path
    export: Path
    loss_start: float
    loss_end: float
    steps: int
    resumed_from: int
    unreviewed: bool

    @classmethod
    def of(cls, stages: Sequence[StageResult], export: Path, *, unreviewed: bool) -> TrainResult:
        """Of a run's stages, in order."""
        return cls(
            stages=tuple(stages),
            checkpoint=stages[-1].checkpoint,
            export=export,
            loss_start=stages[0].loss_start,
            loss_end=stages[-1].loss_end,
            steps=sum(stage.steps for stage in stages),
            resumed_from=sum(stage.resumed_from for stage in stages),
            unreviewed=unreviewed,
        )
