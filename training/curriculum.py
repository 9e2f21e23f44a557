"""A curriculum as data: what is trained on what, in which order (paper section 4, Table 1).

A stage names everything that its outcome depends on; a checkpoint of another stage is never
resumed. The built-in ones are in training/curricula.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from reelmill.errors import UsageError
from reelmill.model.config import MMDiTConfig, preset
from reelmill.model.mmdit import MMDiT, part_of
from reelmill.model.rope import THETA
from reelmill.training.tasks import TASKS

MAX_YAML = 1 << 20


class _Data(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Optim(_Data):
    """AdamW with warm-up. Defaults: betas as Ovi and SkyReels-V2 train, weight decay .01."""

    lr: float = Field(default=1e-3, gt=0)
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = Field(default=0.01, ge=0)
    warmup_steps: int = Field(default=100, ge=0)
    schedule: Literal["constant", "cosine"] = "constant"
    clip_norm: float = Field(default=1.0, gt=0)
    ema_decay: float = Field(
        default=0.99, ge=0, lt=1
    )  # .9999 at scale; short runs need a short memory


class Objective(_Data):
    """Flow matching on both modalities (paper section 3.1): equal weights, t uniform in (0, 1).

    shift > 1 moves t towards noise: t' = t / (shift - (shift - 1) t), the shift of Esser et al.
    (2024) in the paper's direction of time. text_dropout: share of captions replaced by none.
    video_floor: below this noise level 1 - t the error of a video's velocity counts no more than
    that of the data it leads to; 0 is off. Predicted data (`Model.predicts`) needs it: there the
    velocity's error is the data's over 1 - t, and the last steps would be all that is learned.
    """

    video_weight: float = Field(default=1.0, ge=0)
    audio_weight: float = Field(default=1.0, ge=0)
    shift: float = Field(default=1.0, gt=0)
    text_dropout: float = Field(default=0.1, ge=0, le=1)
    video_floor: float = Field(default=0.0, ge=0, le=1)


class GateBound(_Data):
    """How far a measurement of clips may fall, in its own unit (evaluation/gate.py).

    certain: it fell only if all of its interval lies beyond; else its mean counts. required: a
    stage whose clips have no value of it does not pass.
    """

    may_fall: float = Field(default=0.0, ge=0)
    certain: bool = True
    required: bool = False


class StageGate(_Data):
    """What must hold of a stage's clips before the next one starts (flows/promotion.py).

    bounds: by the name of a metric or of a dimension, against the last stage that passed. prompts:
    file of prompts, "" for the bench that comes with the package, of which the first `limit` are
    used (0: all), each with `seeds` seeds. frames: None for as long as each prompt asks.
    """

    bounds: dict[str, GateBound] = Field(min_length=1)
    prompts: str = ""
    limit: int = Field(default=0, ge=0)
    seeds: int = Field(default=1, gt=0)
    frames: int | None = Field(default=None, gt=0)
    height: int = Field(default=64, gt=0)
    width: int = Field(default=64, gt=0)
    steps: int = Field(default=50, gt=0)


class SpikeRule(_Data):
    """When an update is left out (training/spikes.py).

    above: robust standard deviations of the logarithm of the loss above its median; 0, the default,
    watches only for what is no number: how far losses of good clips spread is the data's (8 found
    planted clips and no others among alike ones, and good but loud ones in the demo's corpus).
    after: losses of a kind that must have been seen. strikes: spikes after which a clip is barred.
    in_a_row: steps with a spike after which the run goes back to its last checkpoint; roll_backs:
    how often it may. most_barred: clips, beyond which it ends.
    """

    above: float = Field(default=0.0, ge=0)
    after: int = Field(default=16, ge=4, le=64)
    strikes: int = Field(default=2, gt=0)
    in_a_row: int = Field(default=3, gt=0)
    roll_backs: int = Field(default=2, ge=0)
    most_barred: int = Field(default=64, ge=0)


class DataRule(_Data):
    """Which latents a stage sees, of those that its tasks can use.

    heights: lines of the pictures, 0 for sound alone; none named: all. frames: shortest and longest
    sample. sources: weight of each folder of shards that was encoded; none named: all, by size.
    """

    heights: tuple[int, ...] = ()
    frames: tuple[int, int] | None = None
    sources: dict[str, float] = {}

    @model_validator(mode="after")
    def _possible(self) -> DataRule:
        if any(weight <= 0 for weight in self.sources.values()):
            raise ValueError("source weights must be above zero")
        if self.frames and self.frames[0] > self.frames[1]:
            raise ValueError(f"frames {self.frames}: the shortest is longer than the longest")
        return self


class Retention(_Data):
    """What must hold of held-out losses when a stage is done, or it is not promoted.

    allowance: share by which the loss of what an earlier stage trained may be above what it was
    when that was trained last; of_task: of single tasks. must_fall: the stage's own loss, of its
    own tasks by their weights, must be lower than before it.
    """

    allowance: float = Field(default=0.1, ge=0)
    of_task: dict[str, float] = {}
    must_fall: bool = True

    def allowed(self, name: str) -> float:
        return self.of_task.get(name, self.of_task.get(name.partition("@")[0], self.allowance))


@dataclass(frozen=True)
class Check:
    """One held-out loss. name: the task's, with `@stage` where a later stage has other data for it.
    stage: the one that it came with, and the data of that which it is measured on. weight: in the
    stage's own loss; 0 is an earlier task."""

    name: str
    task: str
    stage: TrainStage
    weight: float


class TrainStage(_Data):
    """One row of a curriculum. tasks: weights of the mixture, realised within one step.

    data: what of the latents it sees; None: all. tokens: of pictures and sound in a step; then
    every bucket has a batch of its own: as large as fits, at most `batch`, a multiple of `share`.
    retention: what must hold at its end; None: anything may.
    init_from: name of the stage whose EMA weights it starts from, None to start afresh.
    held_out: share of source files that are never trained on and give the held-out loss. refiner:
    trains the Refiner of TrainOptions.base, whose attention leaves out `sparsity` of its key tiles
    in the end (paper section 4.5: about a third is kept), but in its dense_layers. residual: of the
    Refiner, see `refiner_of`; without it, its head too starts as the base's. gate: None lets every
    outcome pass. spikes: which updates are left out. samples: of how many held-out captions clips
    are made at every checkpoint, to be looked at. precision: of all weights and products; bf16: of
    products alone, by autocast.
    """

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,40}$")
    tasks: dict[str, float]
    steps: int = Field(gt=0)
    batch: int = Field(gt=0)
    init_from: str | None = None
    trainable: Literal["all", "video", "audio"] = "all"
    refiner: bool = False
    residual: bool = True
    sparsity: float = Field(default=2 / 3, ge=0, lt=1)
    dense_layers: tuple[int, ...] = ()
    optim: Optim = Optim()
    objective: Objective = Objective()
    held_out: float = Field(default=0.1, gt=0, lt=1)
    validate_every: int = Field(default=100, gt=0)
    checkpoint_every: int = Field(default=200, gt=0)
    max_corrupt: int = Field(default=0, ge=0)
    spikes: SpikeRule = SpikeRule()
    gate: StageGate | None = None
    samples: int = Field(default=0, ge=0, le=16)
    precision: Literal["fp32", "bf16", "fp64"] = "fp32"
    data: DataRule | None = None
    tokens: int | None = Field(default=None, gt=0)
    share: int = Field(default=1, gt=0)
    retention: Retention | None = None

    @property
    def shared(self) -> int:
        """What ranks must be able to divide: every batch is a multiple of it."""
        return self.batch if self.tokens is None else self.share

    @model_validator(mode="after")
    def _known_tasks(self) -> TrainStage:
        unknown = set(self.tasks) - set(TASKS)
        if unknown or not self.tasks:
            raise ValueError(f"unknown tasks {sorted(unknown)}; known: {', '.join(TASKS)}")
        if any(weight <= 0 for weight in self.tasks.values()):
            raise ValueError("task weights must be above zero")
        return self


class Model(_Data):
    """Which model is trained: a preset, and what of it is changed (model/config.py).

    patch, predicts: of the video tower. dim, heads, rope_*: of both; MLPs are four times as wide
    as `dim`. cross_gain: initial gain of the query and key norms of audio-video cross-attention. At
    gain 1 its logits cannot exceed sqrt(head_dim), too soft to single out a moment; training finds
    that sharpness by itself, but late.
    """

    preset: str = "demo"
    patch: tuple[int, int, int] | None = None
    dim: int | None = None
    heads: int | None = None
    rope_dims: tuple[int, int, int] | None = None
    rope_theta: float = THETA
    predicts: Literal["velocity", "data"] = "velocity"
    cross_gain: float = Field(default=1.0, gt=0)
    cross_focus: float = Field(default=0.0, ge=0)

    def config(self, video_channels: int, audio_channels: int, text_dim: int) -> MMDiTConfig:
        """The model config for codecs with these channels and an encoder of this width."""
        base = preset(
            self.preset,
            video_channels=video_channels,
            audio_channels=audio_channels or 40,
            text_dim=text_dim,
        )
        changed: dict[str, Any] = {
            "heads": self.heads or base.video.heads,
            "rope_dims": (),
            "rope_theta": self.rope_theta,
        }
        if self.dim:
            changed |= {"dim": self.dim, "ffn": 4 * self.dim}
        if self.rope_dims:
            changed["rope_dims"] = self.rope_dims
        patch = self.patch or base.video.patch
        video = replace(base.video, patch=patch, predicts=self.predicts, **changed)
        audio = replace(base.audio, **changed) if base.audio else None
        return replace(base, video=video, audio=audio)

    def prepare(self, model: MMDiT) -> None:
        """Sets what a fresh model starts with."""
        config = model.config.video
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if part_of(name) != "cross":
                    continue
                if "qk_norm" in name:
                    parameter.fill_(self.cross_gain)
                elif self.cross_focus and name.endswith((".q.bias", ".kv.bias")):
                    heads = parameter[: config.dim].view(config.heads, config.head_dim)
                    pairs = heads[:, :4].view(config.heads, 2, 2)
                    pairs[..., 0] = self.cross_focus
                    if name.endswith(".q.bias"):
                        frames = torch.linspace(-0.75, 0.75, config.heads)
                        rates = config.rope_theta ** -(torch.arange(2) * 2 / config.rope_dims[0])
                        angle = frames[:, None] * rates
                        turned = torch.stack((angle.cos(), angle.sin()), -1)
                        pairs.copy_(self.cross_focus * turned)


class Curriculum(_Data):
    """Stages in order, all for one model.

    cumulative: a stage is measured on all that was learned up to it, and not only on `validation`.
    """

    name: str
    model: Model
    stages: tuple[TrainStage, ...] = Field(min_length=1)
    cumulative: bool = False

    def gated(self, gate: StageGate) -> Curriculum:
        """The same with a gate behind every stage that has none."""
        stages = tuple(s if s.gate else s.model_copy(update={"gate": gate}) for s in self.stages)
        return self.model_copy(update={"stages": stages})

    def in_precision(self, precision: str) -> Curriculum:
        """The same with all stages in a precision (TrainStage)."""
        stages = tuple(s.model_copy(update={"precision": precision}) for s in self.stages)
        return self.model_copy(update={"stages": stages})

    @property
    def validation(self) -> dict[str, float]:
        """Tasks of the held-out loss in every stage: those of the last one, what all is for."""
        return self.stages[-1].tasks

    def wanted(self, names: Sequence[str]) -> list[TrainStage]:
        """Stages of these names, in order; all, if none is named. Raises UsageError."""
        stages = {stage.name: stage for stage in self.stages}
        for name in names:
            if name not in stages:
                raise UsageError(
                    f"curriculum {self.name!r} has no stage {name!r}; there are: "
                    f"{', '.join(stages)}."
                )
        return [stage for stage in stages.values() if not names or stage.name in names]

    def checks(self, stage: TrainStage) -> list[Check]:
        """Held-out losses of a stage: of what earlier stages trained too, if `cumulative`.

        A task is measured on the data of the first stage that trained it, and once more on heights
        or other data that a later one adds. A Refiner, a network of its own, has nothing to forget.
        """
        if not self.cumulative:
            return [Check(task, task, stage, weight) for task, weight in self.validation.items()]
        found: list[Check] = []
        for one in self.stages[: self.stages.index(stage) + 1]:
            if one is not stage and (one.refiner or stage.refiner):
                continue
            found = [replace(check, weight=0.0) for check in found]
            for task, weight in one.tasks.items():
                found = _added(found, one, task, weight)
        return found

    @model_validator(mode="after")
    def _ordered(self) -> Curriculum:
        seen: set[str] = set()
        for stage in self.stages:
            if stage.name in seen:
                raise ValueError(f"two stages are named {stage.name!r}")
            if stage.init_from is not None and stage.init_from not in seen:
                raise ValueError(
                    f"stage {stage.name!r} starts from {stage.init_from!r}, no earlier stage"
                )
            seen.add(stage.name)
        if self.cumulative and len({stage.held_out for stage in self.stages}) > 1:
            raise ValueError("stages that are measured together hold out the same share of files")
        if any(stage.retention for stage in self.stages) and not self.cumulative:
            raise ValueError("a stage's retention is judged in a curriculum that is cumulative")
        return self


def _added(found: list[Check], stage: TrainStage, task: str, weight: float) -> list[Check]:
    """The checks with those of a task of a stage, which share its weight."""
    rule = stage.data or DataRule()
    alike, heights = [], set(rule.heights)
    if TASKS[task].video != "absent":
        heights.discard(0)
    for check in found:
        known = check.stage.data or DataRule()
        same = known.model_copy(update={"heights": rule.heights}) == rule and check.task == task
        covered = set(known.heights) <= heights if rule.heights else not known.heights
        if same and covered and (known.heights or not rule.heights):
            alike.append(check.name)
            heights -= set(known.heights)
    if heights or not alike:
        name = f"{task}@{stage.name}" if any(c.task == task for c in found) else task
        narrowed = rule.model_copy(update={"heights": tuple(sorted(heights))})
        of = stage.model_copy(update={"data": narrowed if stage.data else None})
        found, alike = [*found, Check(name, task, of, 0.0)], [*alike, name]
    each = weight / len(alike)
    return [replace(check, weight=each) if check.name in alike else check for check in found]


Read = TypeVar("Read", bound=_Data)


def _read(path: Path, what: str, kind: type[Read]) -> Read:
    try:
        if path.stat().st_size > MAX_YAML:
            raise UsageError(f"{path} is larger than {MAX_YAML >> 20} MiB: no {what}.")
        return kind.model_validate(yaml.safe_load(path.read_text("utf-8")))
    except OSError as error:
        raise UsageError(f"{what} {path} cannot be read: {error.strerror}.") from error
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"])) or "file"
        raise UsageError(f"{what} {path}: {where}: {first['msg']}.") from error
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(f"{what} {path} is no YAML: {str(error)[:200]}.") from error


def read_curriculum(path: Path) -> Curriculum:
    """A curriculum from YAML: the fields of Curriculum, with defaults. Raises UsageError."""
    return _read(path, "curriculum", Curriculum)


def read_gate(path: Path) -> StageGate:
    """A gate from YAML: `bounds: {Sharpness: {may_fall: 0.01}}`, and other fields of StageGate.

    `prompts` is a path beside it. Raises UsageError.
    """
    gate = _read(path, "gate", StageGate)
    if not gate.prompts:
        return gate
    return gate.model_copy(update={"prompts": str(path.resolve().parent / gate.prompts)})
