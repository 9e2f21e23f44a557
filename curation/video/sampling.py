"""Looking at a few frames a second, and smaller ones, where no more is needed."""

from __future__ import annotations

import cv2
import numpy as np

from reelmill.datasets.sample import Clip

_SLACK = 1e-6  # of a period: pts are rounded to ticks


class Sampling:
    """Takes the first frame, then the first at or after each further multiple of 1/fps seconds."""

    def __init__(self, fps: float):
        if not fps > 0:
            raise ValueError(f"frames are sampled at more than 0 fps, not {fps}")
        self.fps = fps
        self._next = 0

    def takes(self, seconds: float) -> bool:
        """Whether the frame at this time (since the first) is looked at. Times must rise."""
        period = int(seconds * self.fps + _SLACK)
        if period < self._next:
            return False
        self._next = period + 1
        return True


def within(clip: Clip, frames: np.ndarray) -> slice:
    """Where the samples of a clip stand, among samples taken at these (rising) frame indices."""
    first, last = np.searchsorted(frames, [clip.start_frame, clip.end_frame])
    return slice(int(first), int(last))


def centre(picture: np.ndarray, width: int, height: int) -> np.ndarray:
    """The middle of a picture, a contiguous copy of at most that size."""
    top = max(0, (picture.shape[0] - height) // 2)
    left = max(0, (picture.shape[1] - width) // 2)
    return np.ascontiguousarray(picture[top : top + height, left : left + width])


def shrunk(gray: np.ndarray, side: int) -> np.ndarray:
    """uint8 [height, width] with a longer side of `side` pixels at most, averaged over areas."""
    height, width = gray.shape
    scale = min(1.0, side / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return cv2.resize(gray, size, interpolation=cv2.INTER_AREA)
