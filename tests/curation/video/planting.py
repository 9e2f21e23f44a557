"""Real footage with something planted into it, whose place is known to the pixel."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from reelmill.datasets.media.decode import decode_frames, probe

Box = tuple[int, int, int, int]  # x, y, width, height


def footage(path: Path, *, width: int = 640, frames: int = 75) -> np.ndarray:
    """The first frames of a real clip: uint8 RGB [frames, height, width, 3]."""
    shown = decode_frames(path, probe(path), width=width)
    return np.stack([frame.bgr[..., ::-1] for frame, _ in zip(shown, range(frames), strict=False)])


def boxed(frames: np.ndarray, box: Box, size: tuple[int, int]) -> np.ndarray:
    """The frames, cut to the box's size, inside a black picture of size (width, height)."""
    x, y, w, h = box
    out = np.zeros((len(frames), size[1], size[0], 3), np.uint8)
    out[:, y : y + h, x : x + w] = frames[:, :h, :w]
    return out


def blended(frames: np.ndarray, mark: np.ndarray, x: int, y: int, alpha: float) -> np.ndarray:
    """A mark, uint8 RGB [h, w, 3], laid over every frame."""
    out = frames.copy()
    h, w = mark.shape[:2]
    part = out[:, y : y + h, x : x + w]
    part[:] = np.rint(part * (1 - alpha) + mark * alpha).astype(np.uint8)
    return out


def iou(a: Box, b: Box) -> float:
    across = max(0, min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0]))
    down = max(0, min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1]))
    both = across * down
    return both / (a[2] * a[3] + b[2] * b[3] - both)
