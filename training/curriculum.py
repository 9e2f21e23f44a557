"""A curriculum as data: what is trained on what, in which order (paper section 4, Table 1).

`CURRICULA` holds the two of the offline demo. A stage names everything that its outcome depends
on; a checkpoint of another stage is never resumed.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

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


class TrainStage(_Data):
    """One row of a curriculum. tasks: weights of the mixture, realised within one step.

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
    """Stages in order, all for one model."""

    name: str
    model: Model
    stages: tuple[TrainStage, ...] = Field(min_length=1)

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
        return self


def read_gate(path: Path) -> StageGate:
    """A gate from YAML: `bounds: {Sharpness: {may_fall: 0.01}}`, and other fields of StageGate.

    `prompts` is a path beside it. Raises UsageError.
    """
    try:
        if path.stat().st_size > MAX_YAML:
            raise UsageError(f"{path} is larger than {MAX_YAML >> 20} MiB: no gate.")
        gate = StageGate.model_validate(yaml.safe_load(path.read_text("utf-8")))
    except OSError as error:
        raise UsageError(f"gate {path} cannot be read: {error.strerror}.") from error
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"])) or "file"
        raise UsageError(f"gate {path}: {where}: {first['msg']}.") from error
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(f"gate {path} is no YAML: {str(error)[:200]}.") from error
    if not gate.prompts:
        return gate
    return gate.model_copy(update={"prompts": str(path.resolve().parent / gate.prompts)})


def curriculum(name: str) -> Curriculum:
    """A built-in curriculum by name. Raises UsageError that lists those there are."""
    if name not in CURRICULA:
        raise UsageError(f"no curriculum {name!r}; there are: {', '.join(CURRICULA)}.")
    return CURRICULA[name]


# One token for each latent frame of 64 pixels: with four, pictures have sharper shapes, and sound
# follows them half as well (docs/adr/0003).
_MODEL = Model(
    preset="tiny",
    patch=(1, 8, 8),
    dim=96,
    heads=3,
    rope_dims=(20, 6, 6),
    predicts="data",
    cross_gain=1.5,
    cross_focus=2.8,
)
# First the sound of given pictures alone, where synchronisation is learned soonest; then everything
# together, with enough of it left that it is not forgotten.
_SYNC = {"v2a": 1.0}
_JOINT = {"v2a": 0.4, "t2av": 0.4, "a2v": 0.1, "i2v": 0.1}


def _demo(name: str, sync_steps: int, joint_steps: int, batch: int, every: int) -> Curriculum:
    stages = {}
    for stage, tasks, steps, lr in (
        ("sync", _SYNC, sync_steps, 4e-3),
        ("joint", _JOINT, joint_steps, 3e-3),
    ):
        stages[stage] = TrainStage(
            name=stage,
            init_from=None if stage == "sync" else "sync",
            tasks=tasks,
            steps=steps,
            batch=batch,
            optim=Optim(lr=lr, warmup_steps=50, schedule="cosine"),
            objective=Objective(shift=5.0),
            validate_every=every,
            checkpoint_every=every,
            samples=2,
        )
    return Curriculum(name=name, model=_MODEL, stages=tuple(stages.values()))


# The Refiner of any exported model: TrainOptions.base, on latents encoded with `low`.
_REFINER = TrainStage(
    name="refiner",
    refiner=True,
    tasks={"refine": 1.0},
    steps=1000,
    batch=8,
    optim=Optim(lr=1e-3, warmup_steps=50, schedule="cosine"),
    objective=Objective(shift=5.0, video_floor=0.3),  # near noise Z_up decides what is made
    validate_every=100,
    checkpoint_every=200,
)

CURRICULA = {
    "demo": _demo("demo", sync_steps=150, joint_steps=150, batch=16, every=50),
    "demo_full": _demo("demo_full", sync_steps=1500, joint_steps=1200, batch=32, every=300),
    "refiner": Curriculum(name="refiner", model=Model(), stages=(_REFINER,)),
}
