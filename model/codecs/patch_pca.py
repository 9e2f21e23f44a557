"""A video codec in closed form: causal 4 x 8 x 8 patches and their principal components.

It is a linear stand-in with the shape of Wan 2.1's VAE (16 channels, stride 4 x 8 x 8), fitted in
seconds to the clips at hand, and needs no download. encode(decode(z)) = z.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from reelmill.errors import CheckpointError, UsageError
from reelmill.model.codecs.codec import to_pixels
from reelmill.model.codecs.pca import Components, Moments
from reelmill.model.codecs.saved import codec_digest, read_codec, write_codec

FRAMES, SIDE = 4, 8
FIRST, REST = 3 * SIDE * SIDE, 3 * FRAMES * SIDE * SIDE


@dataclass(frozen=True, eq=False)
class PatchPCAVideo:
    """first: components of frame 0's patches; rest: of four frames' patches."""

    first: Components
    rest: Components

    kind: ClassVar[str] = "PatchPCAVideo"
    version: ClassVar[int] = 1
    stride: ClassVar[tuple[int, int, int]] = (FRAMES, SIDE, SIDE)

    @property
    def channels(self) -> int:
        return len(self.first.scale)

    @classmethod
    def fit(cls, clips: Iterable[np.ndarray], channels: int = 16) -> PatchPCAVideo:
        """Fits to clips, uint8 RGB [F, H, W, 3] of any size; borders that fill no patch are left
        out. Raises UsageError when no clip fills one.

        Channel k means nearly the same in both parts: the basis for four frames is turned inside
        its span towards the still pictures of the first, which loses nothing.
        """
        first, rest = Moments(FIRST), Moments(REST)
        for clip in clips:
            frames, height, width = (
                n - n % k for n, k in zip(clip.shape, (1, SIDE, SIDE), strict=False)
            )
            if not (frames and height and width):
                continue
            pixels = to_pixels(clip[:, :height, :width])
            first.add(_patches(pixels[:, :, ::FRAMES], 1))
            whole = (frames - 1) // FRAMES * FRAMES
            if whole:
                rest.add(_patches(pixels[:, :, 1 : 1 + whole], FRAMES))
        if not first.count:
            raise UsageError(f"no clip to fit a codec on: none has {SIDE} x {SIDE} pixels.")
        still = first.components(channels)
        lifted = still.basis.unflatten(0, (3, 1, SIDE, SIDE)).expand(-1, FRAMES, -1, -1, -1)
        lifted = lifted.reshape(REST, channels) / FRAMES**0.5
        if rest.count:
            return cls(still, rest.components(channels, towards=lifted))
        mean = still.mean.unflatten(0, (3, 1, SIDE, SIDE)).expand(-1, FRAMES, -1, -1).reshape(REST)
        return cls(still, Components(mean, lifted.contiguous(), still.scale * FRAMES**0.5))

    def encode(self, pixels: Tensor) -> Tensor:
        """float [B, 3, F, H, W] in [-1, 1] -> [B, C, T, h, w].

        Raises ValueError unless F = 1 + 4 k and H, W are multiples of 8.
        """
        _, _, frames, height, width = pixels.shape
        if (frames - 1) % FRAMES or height % SIDE or width % SIDE or not (height and width):
            raise ValueError(
                f"{frames} frames of {height} x {width} pixels: 1 + a multiple of {FRAMES} frames "
                f"and multiples of {SIDE} pixels are wanted"
            )
        parts = [self.first.encode(_patches(pixels[:, :, :1], 1))]
        if frames > 1:
            parts.append(self.rest.encode(_patches(pixels[:, :, 1:], FRAMES)))
        return torch.cat(parts, 1).movedim(-1, 1)

    def decode(self, latents: Tensor) -> Tensor:
        """[B, C, T, h, w] -> float [B, 3, 1 + 4 (T - 1), 8 h, 8 w], not clipped."""
        z = latents.movedim(1, -1)
        parts = [_unpatch(self.first.decode(z[:, :1]), 1)]
        if z.shape[1] > 1:
            parts.append(_unpatch(self.rest.decode(z[:, 1:]), FRAMES))
        return torch.cat(parts, 2)

    def fingerprint(self) -> str:
        return codec_digest(self.kind, self.version, {}, self._tensors())

    def save(self, folder: Path) -> None:
        write_codec(folder, self.kind, self.version, {}, self._tensors())

    @classmethod
    def load(cls, folder: Path) -> PatchPCAVideo:
        """Raises CheckpointError for a folder that is no such codec."""
        names = {f"{part}.{name}": 1 + (name == "basis") for part in _PARTS for name in _NAMES}
        _, t = read_codec(folder, cls.kind, cls.version, names)
        channels = len(t["first.scale"])
        for part, width in zip(_PARTS, (FIRST, REST), strict=True):
            shape = tuple(tuple(t[f"{part}.{name}"].shape) for name in _NAMES)
            if shape != ((width,), (width, channels), (channels,)):
                raise CheckpointError(f"codec {folder}: its {part} part has shapes {shape}.")
        return cls(*(Components(*(t[f"{part}.{name}"] for name in _NAMES)) for part in _PARTS))

    def _tensors(self) -> dict[str, Tensor]:
        return {f"{part}.{n}": getattr(getattr(self, part), n) for part in _PARTS for n in _NAMES}


_PARTS, _NAMES = ("first", "rest"), ("mean", "basis", "scale")


def _patches(pixels: Tensor, frames: int) -> Tensor:
    """[B, 3, T * frames, H, W] -> [B, T, h, w, 3 * frames * 64]."""
    x = pixels.unflatten(4, (-1, SIDE)).unflatten(3, (-1, SIDE)).unflatten(2, (-1, frames))
    return x.permute(0, 2, 4, 6, 1, 3, 5, 7).flatten(4)


def _unpatch(patches: Tensor, frames: int) -> Tensor:
    x = patches.unflatten(4, (3, frames, SIDE, SIDE))
    return x.permute(0, 4, 1, 5, 2, 6, 3, 7).flatten(6).flatten(4, 5).flatten(2, 3)
