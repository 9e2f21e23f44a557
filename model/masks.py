"""What of a picture is to stay: masks for editing, bool [F, H, W], True = kept (paper 3.2)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from reelmill.errors import PromptError


class Box(NamedTuple):
    """A part of a picture in pixels; the end is not part of it."""

    top: int
    left: int
    bottom: int
    right: int


def region(frames: int, height: int, width: int, boxes: Box | list[Box]) -> np.ndarray:
    """Keeps all but a box, or a box for each frame: what is in it is made anew.

    `~region(...)` keeps the box alone. Raises PromptError for an empty box, one that leaves the
    picture, or a number of boxes that is not that of frames.
    """
    each = [boxes] * frames if isinstance(boxes, Box) else boxes
    if len(each) != frames:
        raise PromptError(f"{len(each)} boxes for {frames} frames; give one, or one for each.")
    keep = np.ones((frames, height, width), bool)
    for frame, box in zip(keep, each, strict=True):
        if not (0 <= box.top < box.bottom <= height and 0 <= box.left < box.right <= width):
            raise PromptError(f"{box} is empty or leaves the picture of {height} x {width} pixels.")
        frame[box.top : box.bottom, box.left : box.right] = False
    return keep


def outpaint(
    video: np.ndarray, height: int, width: int, top: int | None = None, left: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """A video, uint8 RGB [F, h, w, 3], on a larger black canvas, and the mask that keeps it.

    top, left: where it stands; in the middle where None. Raises PromptError when it does not fit.
    """
    frames, h, w, _ = video.shape
    top = (height - h) // 2 if top is None else top
    left = (width - w) // 2 if left is None else left
    if top < 0 or left < 0 or top + h > height or left + w > width:
        raise PromptError(
            f"a picture of {h} x {w} pixels at ({top}, {left}) leaves the canvas of {height} x "
            f"{width}."
        )
    canvas = np.zeros((frames, height, width, 3), np.uint8)
    canvas[:, top : top + h, left : left + w] = video
    return canvas, ~region(frames, height, width, Box(top, left, top + h, left + w))
