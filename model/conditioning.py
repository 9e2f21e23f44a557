"""From latents to tokens and back; what is given goes in as channels, references or clean time.

Video enters as Concat(V, I, M) on the channels (paper section 3.2): V the noisy latent, I the
latents of what is given with the black image's elsewhere, M one channel, 1 = given. References are
prepended at negative time (section 3.3). High-resolution keyframes follow the video (section 4.5;
the layout is ours). A modality that is held (V2A, A2V) enters whole at t = 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from reelmill.model.config import MMDiTConfig
from reelmill.model.modality import KEYFRAME, REFERENCE, TARGET, Modality
from reelmill.model.positions import (
    audio_positions,
    keyframe_positions,
    reference_positions,
    video_positions,
)


def patchify(z: Tensor, patch: Sequence[int]) -> Tensor:
    """[B, C, *grid] -> [B, L, prod(patch) * C]: tokens in raster order, channels fastest."""
    batch, channels, *grid = z.shape
    if len(grid) != len(patch) or any(n % p for n, p in zip(grid, patch, strict=True)):
        raise ValueError(f"latents of size {grid} do not divide into patches of {tuple(patch)}")
    split = [n for size, p in zip(grid, patch, strict=True) for n in (size // p, p)]
    n = len(patch)
    outer, inner = [2 + 2 * i for i in range(n)], [3 + 2 * i for i in range(n)]
    z = z.reshape(batch, channels, *split).permute(0, *outer, *inner, 1)
    return z.reshape(batch, -1, math.prod(patch) * channels)


def unpatchify(tokens: Tensor, grid: Sequence[int], patch: Sequence[int]) -> Tensor:
    """[B, L, prod(patch) * C] -> [B, C, *grid], the inverse of `patchify`."""
    batch, n = tokens.shape[0], len(patch)
    counts = [size // p for size, p in zip(grid, patch, strict=True)]
    z = tokens.reshape(batch, *counts, *patch, -1)
    order = [axis for i in range(n) for axis in (1 + i, 1 + n + i)]
    return z.permute(0, 1 + 2 * n, *order).reshape(batch, -1, *grid)


def latent_mask(mask: Tensor, stride: tuple[int, int, int] = (4, 8, 8)) -> Tensor:
    """Mask of pixels [B, 1, F, H, W] -> mask of latents [B, 1, T, h, w], both 1 = given.

    A latent is given only if all its pixels are: minimum over its stride in space and, causally,
    over its frames (frame 0 alone, then `stride[0]` at a time). F = 1 + stride[0] * (T - 1).
    """
    frames = mask.shape[2]
    if (frames - 1) % stride[0]:
        raise ValueError(f"{frames} frames are not 1 + a multiple of {stride[0]}")
    hidden = F.max_pool3d(1 - mask.float(), (1, *stride[1:]))
    first, rest = hidden[:, :, :1], hidden[:, :, 1:]
    if rest.shape[2]:
        rest = F.max_pool3d(rest, (stride[0], 1, 1))
    return 1 - torch.cat((first, rest), 2)


def masked_pixels(pixels: Tensor, mask: Tensor) -> Tensor:
    """What I is encoded from: pixels [B, 3, F, H, W] where given, black (-1) elsewhere."""
    return pixels * mask + (mask - 1)


def channel_concat(z: Tensor, known: Tensor, mask: Tensor) -> Tensor:
    """Concat(V, I, M): [B, 2 C + 1, T, h, w]."""
    return torch.cat((z, known.to(z), mask.to(z)), 1)


@dataclass(frozen=True)
class Keyframes:
    """High-resolution frames of a video, made in the same pass (M13).

    frames: their indices among the video's latent frames, K of them. z, known: noisy latents and I,
    [B, C, K, H, W]. mask: M, [B, 1, K, H, W].
    """

    frames: tuple[int, ...]
    z: Tensor
    known: Tensor
    mask: Tensor


def video_modality(
    config: MMDiTConfig,
    z: Tensor,
    t: Tensor,
    known: Tensor,
    mask: Tensor,
    references: Tensor | None = None,
    keyframes: Keyframes | None = None,
    marked: Tensor | None = None,
) -> Modality:
    """Tokens of a video.

    z: [B, C, T, h, w], noisy or clean. t: [B], or [B, T] for a time per latent frame. known: I, as
    z. mask: M, [B, 1, T, h, w]. references: clean latents [B, C, n, h, w], prepended with channels
    (ref, ref, 1) at t = 1. keyframes: appended, at the time of their frames. marked: bool [T],
    latent frames that carry the marker of keyframes themselves (refiner.py). Both need a patch of
    one frame; with another, nothing is marked.
    """
    video = _video_and_references(config, z, t, known, mask, references)
    patch = config.video.patch
    if marked is not None and patch[0] == 1:
        video = replace(video, kind=_marked_kind(video, marked))
    if keyframes is None or not keyframes.frames:
        return video
    if patch[0] != 1:
        raise ValueError(f"keyframes need a patch of one frame, not {patch}")
    grid = tuple(n // p for n, p in zip(z.shape[2:], patch, strict=True))
    extra = patchify(channel_concat(keyframes.z, keyframes.known, keyframes.mask), patch).to(z)
    rows, columns = (n // p for n, p in zip(keyframes.z.shape[3:], patch[1:], strict=True))
    pos = keyframe_positions(keyframes.frames, rows, columns, (grid[1], grid[2])).to(z.device)
    length, count = video.x.shape[1], extra.shape[1]
    times, t = video.t, t.to(z.device)
    if times.shape[1] > 1 or t.ndim == 2:
        each = t[:, list(keyframes.frames)] if t.ndim == 2 else t[:, None]
        each = each.expand(-1, len(keyframes.frames)).repeat_interleave(rows * columns, 1)
        times = torch.cat((times.expand(-1, length), each), 1)
    kind = z.new_full((1, length + count), KEYFRAME, dtype=torch.int8)
    kind[:, :length] = TARGET if video.kind is None else video.kind
    return Modality(
        torch.cat((video.x, extra), 1), torch.cat((video.pos, pos[None]), 1), times, kind
    )


def _marked_kind(video: Modality, marked: Tensor) -> Tensor:
    """int8 [1, L]: KEYFRAME where a latent frame is marked, else as it was."""
    assert video.grid is not None
    each = marked.to(video.x.device).repeat_interleave(video.grid[1] * video.grid[2])
    kind = video.kind
    if kind is None:
        kind = torch.full((1, video.x.shape[1]), TARGET, dtype=torch.int8, device=video.x.device)
    kind = kind.clone()
    behind = kind[:, kind.shape[1] - len(each) :]
    behind[:] = torch.where(each, KEYFRAME, behind)
    return kind


def _video_and_references(
    config: MMDiTConfig,
    z: Tensor,
    t: Tensor,
    known: Tensor,
    mask: Tensor,
    references: Tensor | None,
) -> Modality:
    patch = config.video.patch
    tokens = patchify(channel_concat(z, known, mask), patch)
    frames, rows, columns = (n // p for n, p in zip(z.shape[2:], patch, strict=True))
    grid = frames, rows, columns
    pos = video_positions(*grid).to(z.device)
    plane = grid[1] * grid[2]
    t = t.to(z.device)
    t = t[:, None] if t.ndim == 1 else t[:, :: patch[0]].repeat_interleave(plane, 1)
    if references is None or references.shape[2] == 0:
        return Modality(tokens, pos[None], t, grid=grid)
    ref = patchify(
        channel_concat(references, references, torch.ones_like(references[:, :1])), patch
    )
    count = references.shape[2] // patch[0]
    ref_pos = reference_positions(count, grid[1], grid[2], config.ref_time_offset).to(z.device)
    return replace(_prepend(tokens, pos, t, ref.to(z), ref_pos), grid=grid)


def audio_modality(
    config: MMDiTConfig, z: Tensor, t: Tensor, latents: int, references: Tensor | None = None
) -> Modality:
    """Tokens of a sound.

    z: [B, C, L]. t: [B] or [B, L]. latents: latent frames T of a video of the same length, which
    set the clock. references: clean latents [B, C, n], prepended at negative time and t = 1.
    """
    tokens = z.transpose(1, 2)
    t = t.to(z.device)
    t = t[:, None] if t.ndim == 1 else t
    count = 0 if references is None else references.shape[2]
    pos = audio_positions(z.shape[2], latents, config.rope_scale, references=count).to(z.device)
    if references is None or count == 0:
        return Modality(tokens, pos[None], t)
    return _prepend(tokens, pos[count:], t, references.to(z).transpose(1, 2), pos[:count])


def _prepend(tokens: Tensor, pos: Tensor, t: Tensor, ref: Tensor, ref_pos: Tensor) -> Modality:
    batch, length, count = len(tokens), tokens.shape[1], ref.shape[1]
    kind = tokens.new_full((1, count + length), TARGET, dtype=torch.int8)
    kind[:, :count] = REFERENCE
    clean = torch.ones(batch, count, dtype=t.dtype, device=t.device)
    return Modality(
        x=torch.cat((ref, tokens), 1),
        pos=torch.cat((ref_pos, pos))[None],
        t=torch.cat((clean, t.expand(batch, length)), 1),
        kind=kind,
    )


def video_velocity(
    config: MMDiTConfig, tokens: Tensor, size: Sequence[int], behind: int = 0
) -> Tensor:
    """Velocities of the targets as latents: [B, L, token_out] -> [B, C, T, h, w].

    size: (T, h, w) of the latents. References come first and are dropped. behind: tokens of
    keyframes, which come last.
    """
    cells = math.prod(size) // math.prod(config.video.patch)
    last = tokens.shape[1] - behind
    return unpatchify(tokens[:, last - cells : last], size, config.video.patch)


def keyframe_velocity(config: MMDiTConfig, tokens: Tensor, size: Sequence[int]) -> Tensor:
    """Velocities of keyframes as latents: [B, L, token_out] -> [B, C, K, H, W]. size: (K, H, W)."""
    return video_velocity(config, tokens, size)


def audio_velocity(tokens: Tensor, length: int) -> Tensor:
    """Velocities of the targets as latents: [B, L, C] -> [B, C, length]; references are dropped."""
    return tokens[:, -length:].transpose(1, 2)
