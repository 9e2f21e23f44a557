"""The form in which pictures are cut: upright, square in their pixels, without their bars."""

from __future__ import annotations

import math

import cv2
import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Interpolation, VideoReformatter

from reelmill.datasets.media.picture import CV_TURNS, even, plane_bytes

Box = tuple[int, int, int, int]  # x, y, width, height, in pixels of the picture as displayed

ANALYSIS_SIDE = 256  # pixels of the longer side of the pictures that bars are looked for in
LEAST_LEFT = 0.6  # of the area: HunyuanVideo 1.5 crops borders where so much is left
_LIMITED_RANGE = 1


def crop_box(box: Box, width: int, height: int) -> Box | None:
    """What to crop to, of a picture of this size with its bars around `box`; None for all of it.

    The box is known to half a pixel of the small picture that it was measured in: sides with a bar
    are moved inwards by that much, so that no dark line is left.
    """
    x, y, w, h = box
    right, bottom = x + w, y + h
    spare = math.ceil(max(width, height) / ANALYSIS_SIDE / 2)
    x, y = x + spare * (x > 0), y + spare * (y > 0)
    right, bottom = right - spare * (right < width), bottom - spare * (bottom < height)
    if (x, y, right, bottom) == (0, 0, width, height) or min(right - x, bottom - y) < 2:
        return None
    left = (right - x) * (bottom - y)
    return (x, y, right - x, bottom - y) if left >= LEAST_LEFT * width * height else None


class FrameShape:
    """Makes a decoded frame upright, square in its pixels, even in its sides, 8 bit 4:2:0.

    width, height: as displayed; afterwards those of the result. turn: degrees clockwise. box: is
    cropped to. Nothing is resampled unless the size changes: an odd last row or column is cropped.
    """

    def __init__(
        self, width: int, height: int, turn: int, max_height: int | None, box: Box | None = None
    ):
        x, y, w, h = box or (0, 0, width, height)
        short = min(w, h)
        scale = 1.0 if max_height is None else min(1.0, max_height / short)
        self._shown = (width, height)
        if scale < 1 or short < 2:
            self._shown = (even(width * scale), even(height * scale))
        if box is None:
            x, y, w, h = 0, 0, *self._shown
        else:
            across, down = self._shown[0] / width, self._shown[1] / height
            right, bottom = int((x + w) * across), int((y + h) * down)
            x, y = -2 * int(-x * across // 2), -2 * int(-y * down // 2)
            w, h = right - x, bottom - y
        self.width, self.height = max(2, w // 2 * 2), max(2, h // 2 * 2)
        self._corner = (x, y)
        self._turn = turn
        self._reformatter = VideoReformatter()

    def __call__(self, frame: VideoFrame, pts: int, duration: int) -> VideoFrame:
        turned = self._turn in (90, 270)
        width, height = self._shown[::-1] if turned else self._shown
        shrinks = width * height < frame.width * frame.height
        limited = self._reformatter.reformat(
            frame,
            width,
            height,
            "yuv420p",
            interpolation=Interpolation.AREA if shrinks else Interpolation.BICUBIC,
            dst_color_range=ColorRange.MPEG,
            threads=1,
        )
        if self._turn or self._shown != (self.width, self.height):
            limited = self._cropped(limited)
        limited.color_primaries, limited.color_trc = frame.color_primaries, frame.color_trc
        limited.colorspace, limited.color_range = frame.colorspace, _LIMITED_RANGE
        limited.pts, limited.duration = pts, duration
        return limited

    def _cropped(self, frame: VideoFrame) -> VideoFrame:
        planes = []
        left, top = self._corner
        for number, plane in enumerate(frame.planes):
            half = 2 if number else 1
            picture = plane_bytes(plane)[: plane.height, : plane.width]
            if self._turn:
                picture = cv2.rotate(np.ascontiguousarray(picture), CV_TURNS[self._turn])
            rows = slice(top // half, (top + self.height) // half)
            columns = slice(left // half, (left + self.width) // half)
            planes.append(picture[rows, columns].reshape(-1))
        flat = np.concatenate(planes).reshape(-1, self.width)
        return VideoFrame.from_ndarray(flat, format="yuv420p")
