"""What a model is made of: frozen, hashable, a JSON round trip, and the presets."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal

from reelmill.errors import CheckpointError, UsageError


def rope_split(head_dim: int) -> tuple[int, int, int]:
    """A head's rotary dimensions for (time, height, width), as in Wan: 128 = 44 + 42 + 42."""
    plane = 2 * (head_dim // 6)
    return head_dim - 2 * plane, plane, plane


@dataclass(frozen=True)
class TowerConfig:
    """One modality's half of the model.

    dual, single: number of blocks of each kind, in this order. in_ch, out_ch: channels of one
    latent cell as it enters (video: 2C + 1, see conditioning.py) and as it is predicted. patch:
    cells per token along each axis. rope_dims: rotary dimensions of a head for (time, height,
    width); `rope_split` where empty. rope_theta: 10^4 (Wan), 256 (HunyuanVideo-1.5). qk_norm:
    RMSNorm over all heads at once (`full`: Wan, Ovi) or per head (Flux, HunyuanVideo). adaln: a
    learned table added to one shared projection of time (`table`: Wan, LTX-2) or a projection in
    every block (`linear`: Flux, HunyuanVideo). predicts: what the head gives. `velocity` is the
    paper's. `data` is turned into velocity (flow.py) and suits tokens of more values than `dim`:
    noise needs all of them, data lies in few (Li and He, "Back to Basics", 2025). `residual` is
    data as what is to be added to I, the latents that a video goes by: what I holds need not pass
    through `dim`, and a head of zeros gives I itself (the Refiner's start). sparse: blocks have
    the gate of Video Sparse Attention's coarse half.
    """

    dim: int
    heads: int
    ffn: int
    dual: int
    single: int
    in_ch: int
    out_ch: int
    patch: tuple[int, ...]
    text_dim: int
    text_xattn: bool
    qk_norm: Literal["full", "head"] = "full"
    adaln: Literal["table", "linear"] = "table"
    rope_dims: tuple[int, ...] = ()
    rope_theta: float = 10_000.0
    predicts: Literal["velocity", "data", "residual"] = "velocity"
    sparse: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "patch", tuple(self.patch))
        object.__setattr__(self, "rope_dims", tuple(self.rope_dims) or rope_split(self.head_dim))
        sizes = {
            "dim": (self.dim, 1, 1 << 16),
            "heads": (self.heads, 1, 1 << 10),
            "ffn": (self.ffn, 1, 1 << 18),
            "dual": (self.dual, 0, 256),
            "single": (self.single, 0, 256),
            "in_ch": (self.in_ch, 1, 1 << 14),
            "out_ch": (self.out_ch, 1, 1 << 14),
            "text_dim": (self.text_dim, 1, 1 << 16),
            "cells per patch": (math.prod(self.patch), 1, 1 << 10),
        }
        for name, (value, least, most) in sizes.items():
            if not isinstance(value, int) or not least <= value <= most:
                raise UsageError(
                    f"model config: {name} is {value!r}; allowed is {least} to {most}."
                )
        if self.dim % self.heads:
            raise UsageError(f"model config: dim {self.dim} is no multiple of heads {self.heads}.")
        if self.dual + self.single == 0:
            raise UsageError("model config: a tower needs at least one block (dual + single > 0).")
        if sum(self.rope_dims) != self.head_dim or any(d % 2 or d < 0 for d in self.rope_dims):
            raise UsageError(
                f"model config: rope_dims {self.rope_dims} must be even and add up to the head's "
                f"{self.head_dim}."
            )
        if not (isinstance(self.rope_theta, int | float) and 1 < self.rope_theta < 1e9):
            raise UsageError(f"model config: rope_theta is {self.rope_theta!r}; above 1, to 1e9.")
        if self.qk_norm not in ("full", "head") or self.adaln not in ("table", "linear"):
            raise UsageError(f"model config: qk_norm {self.qk_norm!r} or adaln {self.adaln!r}?")
        if self.predicts not in ("velocity", "data", "residual"):
            raise UsageError(
                f"model config: predicts {self.predicts!r}? velocity, data or residual."
            )
        if self.predicts == "residual" and self.in_ch < 2 * self.out_ch:
            raise UsageError("model config: a residual is about I, which audio has none of.")

    @property
    def head_dim(self) -> int:
        return self.dim // max(1, self.heads)

    @property
    def blocks(self) -> int:
        return self.dual + self.single

    @property
    def token_in(self) -> int:
        """Width of a token as it enters: in_ch times the cells of a patch."""
        return self.in_ch * math.prod(self.patch)

    @property
    def token_out(self) -> int:
        return self.out_ch * math.prod(self.patch)


@dataclass(frozen=True)
class MMDiTConfig:
    """Twin towers of one width and depth (paper section 3.1), or the video tower alone.

    av_order: `sequential` lets video attend the updated audio (paper, equation 5), `parallel` lets
    both read the state before (Ovi, LTX-2). rope_scale: the audio clock, see positions.py.
    ref_time_offset: time index of the first reference; None puts n references at -n ... -1 (paper
    section 3.3). av_include_refs: whether the other modality attends references too.
    """

    video: TowerConfig
    audio: TowerConfig | None
    av_order: Literal["sequential", "parallel"] = "sequential"
    rope_scale: Literal["ratio", "fixed", "physical"] = "ratio"
    ref_time_offset: int | None = None
    av_include_refs: bool = False

    def __post_init__(self) -> None:
        if self.av_order not in ("sequential", "parallel"):
            raise UsageError(f"model config: av_order {self.av_order!r}?")
        if self.rope_scale not in ("ratio", "fixed", "physical"):
            raise UsageError(f"model config: rope_scale {self.rope_scale!r}?")
        if self.audio is None:
            return
        for name in ("dim", "heads", "dual", "single", "text_dim", "rope_dims", "rope_theta"):
            video, audio = getattr(self.video, name), getattr(self.audio, name)
            if video != audio:
                raise UsageError(
                    f"model config: the towers must agree in {name}: video {video}, audio {audio}."
                )

    def to_json(self) -> dict[str, Any]:
        return json.loads(json.dumps(asdict(self)))

    @classmethod
    def from_json(cls, data: Any) -> MMDiTConfig:
        """The config that `to_json` gave. Raises CheckpointError for anything else."""
        try:
            _only_fields(data, cls)
            towers = {}
            for name in ("video", "audio"):
                if data.get(name) is not None:
                    _only_fields(data[name], TowerConfig)
                    towers[name] = TowerConfig(**data[name])
            return cls(**(data | {"video": towers["video"], "audio": towers.get("audio")}))
        except (KeyError, TypeError, ValueError, AttributeError, UsageError) as error:
            raise CheckpointError(f"this is no model config: {error}") from error

    @property
    def hash(self) -> str:
        """sha256 of the config: checkpoints of another hash are never loaded.

        Fields that came later count only where they are not what was meant before them.
        """
        data = self.to_json()
        for name, before in LATER.items():
            for tower in (data["video"], data["audio"]):
                if tower is not None and tower[name] == before:
                    del tower[name]
        return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()


LATER = {"predicts": "velocity", "sparse": False}
"""Fields of a tower that models of before do not have, and what they stand for there."""


def _only_fields(data: Any, cls: type) -> None:
    unknown = set(data) - {f.name for f in fields(cls)}
    if unknown:
        raise ValueError(f"{cls.__name__} has no {', '.join(sorted(map(str, unknown)))}")


@dataclass(frozen=True)
class _Size:
    dim: int
    heads: int
    ffn: int
    dual: int
    single: int
    channels: int = 16
    text_dim: int = 3584  # Qwen2.5-VL-7B


# The paper names no widths. tiny to small are for CPUs and tests; 1.3b and 14b have the dimensions
# of Wan 2.1, 5b those of Wan 2.2 TI2V-5B and of both Ovi towers, full the 20 + 40 blocks of
# HunyuanVideo. Dual to single blocks 1 : 2, as in Flux and HunyuanVideo.
PRESETS = {
    "tiny": _Size(64, 4, 256, 1, 1, text_dim=64),
    "demo": _Size(128, 4, 512, 2, 2, text_dim=64),
    "small": _Size(256, 4, 1024, 2, 2, text_dim=64),
    "1.3b": _Size(1536, 12, 8960, 10, 20),
    "5b": _Size(3072, 24, 14336, 10, 20, channels=48),
    "full": _Size(3072, 24, 12288, 20, 40),
    "14b": _Size(5120, 40, 13824, 13, 27),
}


def preset(
    name: str,
    *,
    video_channels: int | None = None,
    audio_channels: int = 40,
    text_dim: int | None = None,
) -> MMDiTConfig:
    """A preset, fitted to the codecs and the prompt encoder in use.

    video_channels, audio_channels: latent channels of the codecs. Raises UsageError that lists the
    presets there are.
    """
    if name not in PRESETS:
        raise UsageError(f"no model preset {name!r}; there are: {', '.join(PRESETS)}.")
    size = PRESETS[name]
    channels = video_channels or size.channels
    video = TowerConfig(
        dim=size.dim,
        heads=size.heads,
        ffn=size.ffn,
        dual=size.dual,
        single=size.single,
        in_ch=2 * channels + 1,
        out_ch=channels,
        patch=(1, 2, 2),
        text_dim=text_dim or size.text_dim,
        text_xattn=True,
    )
    audio = replace(
        video, in_ch=audio_channels, out_ch=audio_channels, patch=(1,), text_xattn=False
    )
    return MMDiTConfig(video, audio)
