"""The Refiner: super-resolution and frame interpolation in one (paper section 4.5).

Low-resolution latents are stretched to the target's size and rate; keyframes and what is to stay
replace parts of them. The result, Z_up, is what the base model's I is: concatenated on the channels
with the noisy latent, beside M, 1 where it is to stay. So the base model's video tower is loaded as
it is; what is new are the gates of Video Sparse Attention, which start at zero.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from reelmill.errors import PromptError
from reelmill.kernels.sparsity import SparsitySchedule
from reelmill.model.config import MMDiTConfig
from reelmill.model.mmdit import MMDiT, part_of
from reelmill.model.modality import Text
from reelmill.model.sampler import VideoCanvas, denoise
from reelmill.model.windows import Windows

# 41 frames of 544 x 960 pixels: 22,440 tokens of 2 x 2 latents. What is larger is refined in parts.
WINDOWS = Windows((11, 68, 120))


@dataclass(frozen=True)
class RefineOptions:
    """How latents are refined.

    steps, s: of the sampler. strength: share of noise over Z_up that sampling starts from; 1 is
    pure noise. LTX-2 starts its second stage at .9. sparsity: share of key tiles left out; 2/3 is
    the paper's "about 3x less". dense_steps: first steps that leave nothing out; dense_layers:
    layers that never do. windows: largest latents that are refined at once (frames, rows,
    columns); None: all.
    """

    steps: int = 12
    s: float = 1.0
    strength: float = 0.9
    sparsity: float = 2 / 3
    dense_steps: int = 0
    dense_layers: tuple[int, ...] = ()
    windows: Windows | None = WINDOWS

    def check(self) -> None:
        """Raises PromptError for values that make no sense."""
        if self.steps < 1 or self.s <= 0 or not 0 < self.strength <= 1:
            raise PromptError(
                f"refining takes 1 step or more, a shift above 0 and a strength above 0 to 1, not "
                f"{self.steps}, {self.s}, {self.strength}."
            )


def refiner_config(base: MMDiTConfig, *, residual: bool = False) -> MMDiTConfig:
    """The base model's video tower with the gates of sparse attention. residual: see refiner_of."""
    video = replace(base.video, sparse=True)
    if residual:
        video = replace(video, predicts="residual")
    return replace(base, audio=None, video=video)


def refiner_of(base: MMDiT, *, residual: bool = False) -> MMDiT:
    """A Refiner that begins as the base model's video tower, parameter by parameter.

    residual departs from the paper: the head predicts the data's difference to Z_up, still as a
    velocity from noise, and starts at zero instead of as the base's. So an untrained Refiner gives
    Z_up back, and short training goes into what is missing in it.
    """
    model = MMDiT(refiner_config(base.config, residual=residual))
    tower = {n: p for n, p in base.state_dict().items() if part_of(n) == "video"}
    gates = {n: p for n, p in model.state_dict().items() if n not in tower}
    assert all(".gate." in name for name in gates), "only gates are new"
    model.load_state_dict(tower | gates, strict=True)
    if residual:
        torch.nn.init.zeros_(model.video.head.weight)
        torch.nn.init.zeros_(model.video.head.bias)
    return model


def upsample(low: Tensor, height: int, width: int) -> Tensor:
    """Latents [B, C, T, h, w] -> [B, C, 2 T - 1, height, width], linear along every axis.

    In time, latent k of the low rate is latent 2 k of the high one: both end at the same instant.
    In space, cells are areas (half-pixel centres).
    """
    batch, channels, frames, h, w = low.shape
    flat = low.transpose(1, 2).reshape(batch * frames, channels, h, w)
    wide = F.interpolate(flat, (height, width), mode="bilinear", align_corners=False)
    wide = wide.reshape(batch, frames, channels, height, width).transpose(1, 2)
    between = (wide[:, :, 1:] + wide[:, :, :-1]) / 2
    out = wide.new_empty(batch, channels, 2 * frames - 1, height, width)
    out[:, :, ::2], out[:, :, 1::2] = wide, between
    return out


def refiner_canvas(
    low: Tensor,
    height: int,
    width: int,
    *,
    frames: Sequence[int] = (),
    keyframes: Tensor | None = None,
    source: Tensor | None = None,
    keep: Tensor | None = None,
    references: Tensor | None = None,
    strength: float = 1.0,
) -> VideoCanvas:
    """What the Refiner goes by; height and width are those of the latents.

    low: [B, C, T, h, w]. keyframes: [B, C, K, height, width], at latent `frames` of the low rate;
    they are predictions, so M stays 0 there. source, keep: high-resolution latents [B, C, 2 T - 1,
    height, width] and M [B, 1, 2 T - 1, height, width], 1 where they stay. Raises ValueError for
    other shapes.
    """
    known = upsample(low, height, width)
    if keyframes is not None:
        if keyframes.shape[2] != len(frames) or keyframes.shape[3:] != known.shape[3:]:
            raise ValueError(
                f"keyframes of shape {tuple(keyframes.shape)} for {len(frames)} frames of "
                f"{height} x {width}"
            )
        known[:, :, [2 * k for k in frames]] = keyframes.to(known)
    mask = torch.zeros_like(known[:, :1])
    if source is not None and keep is not None:
        mask = keep.to(known).expand_as(mask)
        known = torch.where(mask.bool(), source.to(known), known)
    started = known if strength < 1 else None
    return VideoCanvas(
        known, mask, references, source=started, strength=strength, marked=given(known)
    )


def given(known: Tensor) -> Tensor:
    """bool [T]: latent frames of Z_up that stand where one of the low rate stood.

    They carry the tower's marker of keyframes. Rotary positions are relative, so nothing else says
    which latents are those and which were put between; the best linear estimate of the one is not
    that of the other.
    """
    return torch.arange(known.shape[2]) % 2 == 0


def refine(
    model: MMDiT,
    text: Text,
    canvas: VideoCanvas,
    *,
    seeds: Sequence[int],
    options: RefineOptions,
    progress: Callable[[int, int], None] | None = None,
) -> Tensor:
    """High-resolution latents, [B, C, 2 T - 1, H, W]. Raises PromptError for such options."""
    options.check()
    schedule = SparsitySchedule(
        target=options.sparsity,
        dense_layers=options.dense_layers,
        dense_steps=options.dense_steps,
    )
    made = denoise(
        model,
        text,
        video=canvas,
        seeds=seeds,
        steps=options.steps,
        s=options.s,
        sparsity=schedule,
        windows=options.windows,
        progress=progress,
    )
    assert made.video is not None
    return made.video
