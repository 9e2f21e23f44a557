"""Where tokens stand: float positions, so that time may be negative, fractional or scaled.

One clock for everything: index j of a video latent frame.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

# The paper's clip (section 3.1): 81 frames at 16 fps are 21 latent frames and 218 audio tokens.
PAPER_FRAMES, PAPER_TOKENS = 21, 218
LATENT_HZ = 16 / 4  # video latents per second at 16 fps, 4 frames each
TOKEN_HZ = 44_100 / 1024  # audio tokens per second


def video_positions(
    frames: int,
    height: int,
    width: int,
    *,
    t0: float = 0.0,
    scale: tuple[float, float, float] = (1.0, 1.0, 1.0),
) -> Tensor:
    """float [frames * height * width, 3] of a grid of tokens: (t0 + j, y, x), times `scale`."""
    axes = [torch.arange(n, dtype=torch.float32) for n in (frames, height, width)]
    grid = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).flatten(0, 2)
    return (grid + torch.tensor([t0, 0.0, 0.0])) * torch.tensor(scale)


def reference_positions(count: int, height: int, width: int, offset: int | None = None) -> Tensor:
    """float [count * height * width, 3]: reference i at time -count + i (paper section 3.3).

    offset: time of the first one instead of -count.
    """
    return video_positions(count, height, width, t0=-count if offset is None else offset)


def keyframe_positions(
    frames: Sequence[int], height: int, width: int, base: tuple[int, int]
) -> Tensor:
    """float [len(frames) * height * width, 3]: high-resolution tokens of some frames of a video of
    base = (height, width) tokens, at those frames' times and in their coordinates (M13)."""
    scale = (1.0, base[0] / height, base[1] / width)
    planes = [video_positions(1, height, width, t0=frame, scale=scale) for frame in frames]
    return torch.cat(planes)


def keyframe_indices(frames: int, plane: int, keyframe_plane: int) -> tuple[int, ...]:
    """Which of a video's latent frames become keyframes: 0, n, 2 n, ... and the last, n the
    smallest that leaves no more keyframe tokens than video tokens.

    plane, keyframe_plane: tokens of one frame of each. Only the last where even two are too many.
    """
    for n in range(1, frames):
        chosen = sorted({*range(0, frames, n), frames - 1})
        if len(chosen) * keyframe_plane <= frames * plane:
            return tuple(chosen)
    return (frames - 1,)


def audio_scale(tokens: int, latents: int, mode: str) -> float:
    """Video latents per audio token.

    `ratio`: latents / tokens, the paper's 21 / 218 at its 5.0625 s, and right to 0.2 s up to 15 s.
    `fixed`: 21 / 218 at any length. `physical`: from the rates alone, exact in time.
    """
    match mode:
        case "ratio":
            return latents / tokens
        case "fixed":
            return PAPER_FRAMES / PAPER_TOKENS
        case "physical":
            return LATENT_HZ / TOKEN_HZ
    raise ValueError(f"rope_scale {mode!r}?")


def audio_positions(
    tokens: int, latents: int, mode: str = "ratio", *, references: int = 0
) -> Tensor:
    """float [references + tokens, 1]: token i at i * scale, references before zero.

    latents: latent frames of a video of the same length.
    """
    steps = torch.arange(-references, tokens, dtype=torch.float64)
    return (steps * audio_scale(tokens, latents, mode)).float()[:, None]
