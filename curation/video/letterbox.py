"""Black bars around the picture, and the box that is left without them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import cv2
import numpy as np

from reelmill.curation.stage import (
    Bound,
    Fact,
    Facts,
    FrameStage,
    NotApplicable,
    NotMeasured,
    NoValue,
    Tracks,
    at_least,
)
from reelmill.curation.video.sampling import Sampling, within
from reelmill.datasets.media.decode import DecodeSummary, Frame, MediaInfo
from reelmill.datasets.sample import Clip

DARK = 24  # luma up to which a pixel may belong to a bar: ffmpeg cropdetect's limit
STRAY = 0.02  # lit pixels that a row of a bar may have: ringing, noise
EDGE = 0.5  # of the first row of the picture that is lit at some time
WEAK_EDGE = 0.2  # enough where the opposite bar is as wide and has a straight edge
WRITTEN = 0.35  # lit pixels that a row of a bar with text or a logo in it may have
FULL_EDGE = 0.9  # asked of both sides where bars may be written on
REACH = 3  # pixels over which the edge may be soft
MIN_BAR = 2  # pixels of the small frame


@dataclass(frozen=True, kw_only=True)
class Letterbox(FrameStage):
    """The picture inside black bars, in pixels of the picture as displayed.

    A bar is made of rows (or columns) in which, at every time of the clip, nearly no pixel is
    lighter than 24, ffmpeg cropdetect's limit; and it ends in a straight edge: half of the next
    row is lit at some time, or a fifth where the opposite bar is as wide. A night sky has none.
    Bars may hold subtitles or a logo where both are of one width and end in a full edge. Measured
    on the shared small frames, so each side of the box is exact to about half of width/256 pixels.
    The bound is HunyuanVideo 1.5's: borders are cropped where 60 % of the area is left.
    """

    paper: ClassVar = "section 3.4, basic quality"
    adds: ClassVar = (
        Fact("crop_x", "pixels", "Left side of the picture inside its bars.", 0, 4096, int),
        Fact("crop_y", "pixels", "Upper side of the picture inside its bars.", 0, 4096, int),
        Fact("crop_w", "pixels", "Width of the picture inside its bars.", 0, 4096, int),
        Fact("crop_h", "pixels", "Height of the picture inside its bars.", 0, 4096, int),
        Fact("picture_share", "", "Area inside the bars, of the whole picture.", 0, 1),
    )
    fps: float = 2.0
    min_picture_share: Bound = at_least(0.6, "picture_share", "letterbox")

    def open(self, info: MediaInfo) -> _Lit:
        return _Lit(self.fps)

    def facts(self, tracks: Tracks, clip: Clip, info: MediaInfo) -> Facts:
        here = within(clip, tracks["frame"])
        rows, columns = tracks["rows"][here], tracks["columns"][here]
        why: NoValue | None = None
        if info.video is None or not len(rows):
            why = NotApplicable(f"no frame was sampled in {clip.end_frame - clip.start_frame}")
        elif not rows.any():
            why = NotMeasured("all is black")
        if why is not None:
            return {fact.name: why for fact in self.adds}
        assert info.video is not None
        top, bottom, left, right = bars(rows, columns)
        height, width = rows.shape[1], columns.shape[1]
        y, x = info.video.height / height, info.video.width / width
        box = (round(left * x), round(top * y), round((width - right) * x))
        low = round((height - bottom) * y)
        inner = (width - left - right) * (height - top - bottom)
        return {
            "crop_x": box[0],
            "crop_y": box[1],
            "crop_w": box[2] - box[0],
            "crop_h": low - box[1],
            "picture_share": inner / (width * height),
        }


def bars(rows: np.ndarray, columns: np.ndarray) -> tuple[int, int, int, int]:
    """Widths of the bars at (top, bottom, left, right), in pixels of the small frame, 0 for none.

    rows, columns: lit pixels of every row and column, int [samples, height] and [samples, width].
    """
    height, width = rows.shape[1], columns.shape[1]
    lit_rows, lit_columns = rows.max(axis=0), columns.max(axis=0)
    inner_width = width - sum(_run(lit_columns, STRAY * height))
    inner_height = height - sum(_run(lit_rows, STRAY * width))
    top, bottom = _pair(lit_rows, width, inner_width)
    left, right = _pair(lit_columns, height, inner_height)
    return top, bottom, left, right


def _pair(lit: np.ndarray, length: int, inner: int) -> tuple[int, int]:
    """Two opposite bars. lit: pixels lit at some time in every line of `length` pixels, of which
    `inner` lie between the other two bars.
    """
    first, last = _run(lit, STRAY * length)
    shares = _edge(lit, first) / inner, _edge(lit[::-1], last) / inner
    alike = abs(first - last) <= REACH and max(shares) >= EDGE
    least = WEAK_EDGE if alike else EDGE
    clean = (first if shares[0] >= least else 0, last if shares[1] >= least else 0)
    first, last = _run(lit, WRITTEN * length)
    shares = _edge(lit, first) / inner, _edge(lit[::-1], last) / inner
    dark_outside = max(lit[0], lit[-1]) <= STRAY * length
    if dark_outside and abs(first - last) <= REACH and min(shares) >= FULL_EDGE:
        return max(first, clean[0]), max(last, clean[1])
    return clean


def _run(lit: np.ndarray, stray: float) -> tuple[int, int]:
    """Lines at the start and at the end that are dark; both 0 where all are."""
    bright = np.flatnonzero(lit > stray)
    if not len(bright):
        return 0, 0
    return int(bright[0]), int(len(lit) - 1 - bright[-1])


def _edge(lit: np.ndarray, run: int) -> float:
    """Most pixels lit in the lines next to a run of dark ones; 0 where there is no run."""
    inside = lit[run : run + REACH]
    return float(inside.max()) if run >= MIN_BAR and len(inside) else 0.0


class _Lit:
    def __init__(self, fps: float):
        self._sampling = Sampling(fps)
        self._frames: list[int] = []
        self._rows: list[np.ndarray] = []
        self._columns: list[np.ndarray] = []

    def frame(self, frame: Frame) -> None:
        if not self._sampling.takes(frame.seconds):
            return
        _, lit = cv2.threshold(frame.gray, DARK, 1, cv2.THRESH_BINARY)
        self._frames.append(frame.index)
        self._rows.append(_counts(lit, 1))
        self._columns.append(_counts(lit, 0))

    def finish(self, summary: DecodeSummary) -> dict[str, np.ndarray]:
        empty = np.zeros((0, 0), np.uint16)
        return {
            "frame": np.array(self._frames, np.int64),
            "rows": np.stack(self._rows) if self._rows else empty,
            "columns": np.stack(self._columns) if self._columns else empty,
        }


def _counts(lit: np.ndarray, axis: int) -> np.ndarray:
    return cv2.reduce(lit, axis, cv2.REDUCE_SUM, dtype=cv2.CV_32S).ravel().astype(np.uint16)
