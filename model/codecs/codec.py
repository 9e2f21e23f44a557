"""What a codec is: pixels or samples to latents and back, with a fingerprint.

Latents are normalised to about unit variance per channel. A model belongs to the fingerprints of
the codecs that it was trained with.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor


class VideoCodec(Protocol):
    """stride: pixels per latent cell along (time, height, width); time is causal: F frames, 1 + a
    multiple of stride[0], give T = 1 + (F - 1) / stride[0] latents, the first of frame 0 alone."""

    @property
    def channels(self) -> int: ...
    @property
    def stride(self) -> tuple[int, int, int]: ...
    def encode(self, pixels: Tensor) -> Tensor:
        """float [B, 3, F, H, W] in [-1, 1] -> [B, C, T, h, w]."""
        ...

    def decode(self, latents: Tensor) -> Tensor:
        """[B, C, T, h, w] -> float [B, 3, F, H, W], nominally in [-1, 1], not clipped."""
        ...

    def fingerprint(self) -> str:
        """sha256 of all that decides what latents mean."""
        ...

    def save(self, folder: Path) -> None: ...


class AudioCodec(Protocol):
    """rate: Hz of the mono samples. hop: samples per latent token."""

    @property
    def channels(self) -> int: ...
    @property
    def rate(self) -> int: ...
    @property
    def hop(self) -> int: ...
    def encode(self, samples: Tensor) -> Tensor:
        """float [B, n] in [-1, 1] -> [B, C, n // hop]."""
        ...

    def decode(self, latents: Tensor, samples: int | None = None) -> Tensor:
        """[B, C, L] -> float [B, samples], L * hop of them by default."""
        ...

    def fingerprint(self) -> str: ...

    def save(self, folder: Path) -> None: ...


def to_pixels(frames: np.ndarray) -> Tensor:
    """uint8 RGB [F, H, W, 3] -> float32 [1, 3, F, H, W] in [-1, 1]."""
    return torch.tensor(frames).permute(3, 0, 1, 2)[None].float() / 127.5 - 1


def to_frames(pixels: Tensor) -> np.ndarray:
    """float [1, 3, F, H, W] -> uint8 RGB [F, H, W, 3], clipped and rounded."""
    frames = ((pixels[0].float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    return frames.permute(1, 2, 3, 0).cpu().numpy()
