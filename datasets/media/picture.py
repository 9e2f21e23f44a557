"""Decoded pictures: on the stream's clock, upright, small for analysis or RGB at any size."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import partial
from pathlib import Path

import av.error
import cv2
import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.plane import VideoPlane
from av.video.reformatter import ColorRange, Interpolation, VideoReformatter
from av.video.stream import VideoStream

from reelmill.datasets.media.container import decoded, open_container, pick_streams
from reelmill.datasets.media.tone_map import ToneMap

CV_TURNS = {
    90: cv2.ROTATE_90_CLOCKWISE,
    180: cv2.ROTATE_180,
    270: cv2.ROTATE_90_COUNTERCLOCKWISE,
}
LUMA_APART = frozenset(
    {
        *("gray", "nv12", "nv21", "yuv420p", "yuvj420p", "yuva420p"),
        *("yuv422p", "yuvj422p", "yuv444p", "yuvj444p"),
    }
)
_SEEK_MARGINS_S = (0, 2, 12)


def clockwise(frame: VideoFrame) -> int:
    """Degrees to turn a decoded frame clockwise so that it stands upright: 0, 90, 180 or 270."""
    turn = -frame.rotation % 360
    return turn if turn in CV_TURNS else 0


def even(value: float) -> int:
    return max(2, round(value / 2) * 2)


def analysis_size(width: int, height: int, most: int) -> tuple[int, int]:
    """(width, height) of the small frames: `most` on the longer side at most, so that a picture
    and the same picture turned are shrunk alike; aspect kept, both even.
    """
    scale = min(1.0, most / max(width, height))
    return even(width * scale), even(height * scale)


def plane_bytes(plane: VideoPlane) -> np.ndarray:
    """uint8 [rows, line size] over a plane's memory, without a copy."""
    return np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)


def _plane(frame: VideoFrame, channels: int) -> np.ndarray:
    """A view of the first plane, uint8 [height, width(, channels)]; it keeps the frame alive."""
    rows = plane_bytes(frame.planes[0])[: frame.height, : frame.width * channels]
    if channels == 1:
        return np.ascontiguousarray(rows)
    return np.ascontiguousarray(rows).reshape(frame.height, frame.width, channels)


def full_luma(frame: VideoFrame) -> np.ndarray:
    """Luma of a decoded frame at its coded size, not turned: uint8 [height, width].

    A view of the frame where its format has 8-bit luma apart, else a copy.
    """
    if frame.format.name not in LUMA_APART:
        frame = frame.reformat(format="gray")
    return plane_bytes(frame.planes[0])[: frame.height, : frame.width]


class Scaler:
    """Scales decoded frames; one per decode, so that swscale's tables are built once.

    Two steps: the large frame is read once, into a small full-range YUV picture whose luma is the
    gray image; BGR comes from that, when it is asked for. Two taps per axis (fast bilinear), as
    PySceneDetect's own downscaling by cv2.INTER_LINEAR has.
    """

    def __init__(self) -> None:
        self._down = VideoReformatter()
        self._colour = VideoReformatter()

    def small(
        self, frame: VideoFrame, width: int, height: int, turn: int
    ) -> tuple[np.ndarray, Callable[[], np.ndarray]]:
        """uint8 gray [height, width] of an upright frame, full range, and what converts it to BGR
        [height, width, 3].
        """
        w, h = (height, width) if turn in (90, 270) else (width, height)
        yuv = self._down.reformat(
            frame,
            w,
            h,
            "yuv420p",
            interpolation=Interpolation.FAST_BILINEAR,
            dst_color_range=ColorRange.JPEG,
            threads=1,
        )
        gray = _plane(yuv, 1)
        upright = cv2.rotate(gray, CV_TURNS[turn]) if turn else gray
        return upright, partial(self._bgr, yuv, turn)

    def _bgr(self, yuv: VideoFrame, turn: int) -> np.ndarray:
        bgr = _plane(self._colour.reformat(yuv, format="bgr24", threads=1), 3)
        return cv2.rotate(bgr, CV_TURNS[turn]) if turn else bgr

    def rgb(self, frame: VideoFrame, width: int, height: int, turn: int) -> np.ndarray:
        """uint8 RGB [height, width, 3], upright, scaled by area averaging or bicubic."""
        w, h = (height, width) if turn in (90, 270) else (width, height)
        shrinks = w < frame.width or h < frame.height
        how = Interpolation.AREA if shrinks else Interpolation.BICUBIC
        out = self._colour.reformat(frame, w, h, "rgb24", interpolation=how, threads=1)
        picture = _plane(out, 3)
        return cv2.rotate(picture, CV_TURNS[turn]) if turn else picture


class FrameClock:
    """Presentation times of decoded frames, strictly rising, in ticks of the stream's time base.

    A frame whose time does not rise cannot be shown and gets None. AVI stores no presentation
    times: there a frame's decoding time is its place in the order of display.
    """

    def __init__(self, container: InputContainer, stream: VideoStream) -> None:
        self._avi = container.format.name == "avi"
        rate = stream.average_rate or stream.guessed_rate or Fraction(25)
        self.nominal = max(1, round(1 / (rate * stream.time_base)))  # type: ignore[operator]
        self.last: int | None = None
        self.guessed = False

    def pts(self, frame: VideoFrame) -> int | None:
        own = frame.dts if self._avi and frame.dts is not None else frame.pts
        if own is None:
            self.guessed = True
            own = 0 if self.last is None else self.last + self.nominal
        if self.last is not None and own <= self.last:
            return None
        self.last = own
        return own


def frames_between(path: Path, start: int, end: int) -> Iterator[tuple[int, VideoFrame]]:
    """(pts, frame) of every frame with start <= pts < end, exactly as a decode from the file's
    first frame gives them: decoding begins at a key frame at or before `start`. HDR is tone-mapped.

    Damaged packets are passed over; the caller compares the number of frames with what it asked.
    """
    for margin in (*_SEEK_MARGINS_S, None):
        with open_container(path) as container:
            stream, _ = pick_streams(container, path)
            if stream is None or (
                margin is not None and not _seek(container, stream, start, margin)
            ):
                continue
            clock, sdr = FrameClock(container, stream), ToneMap()
            began = margin is None
            for frame in decoded(container, stream):
                pts = clock.pts(frame)
                if not began:
                    if not frame.key_frame:
                        continue
                    if pts is None or clock.guessed or pts > start:
                        break  # too late: try from further back
                    began = True
                if pts is None or pts < start:
                    continue
                if pts >= end:
                    return
                yield pts, sdr(frame)
            if began:
                return


def _seek(container: InputContainer, stream: VideoStream, start: int, margin: float) -> bool:
    """Seeks to `margin` seconds before `start`; False where that is the beginning or fails."""
    time_base = stream.time_base or Fraction(1, 90_000)
    target = start - round(margin / time_base)
    if target <= (stream.start_time or 0):
        return False
    try:
        container.seek(target, stream=stream, backward=True)
    except av.error.FFmpegError:
        return False
    return True
