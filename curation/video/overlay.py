"""What was laid over the picture: logos, watermarks, burnt-in captions."""

from __future__ import annotations

import zlib
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
    Tracks,
    at_most,
)
from reelmill.curation.video.sampling import Sampling, within
from reelmill.datasets.media.decode import DecodeSummary, Frame, MediaInfo
from reelmill.datasets.sample import Clip, Kind

STEP = 12  # levels of luma from pixel to pixel, by a Sobel filter, that make an edge
PLANES = 4  # edges to the right and to the left, down and up
LINE = 0.4  # of a row or column, static: the side of a bar or of a window, not an overlay
CROWD = 0.28  # of the 5 by 5 pixels around a static one that are static, or it is chance
JOIN = (9, 5)  # pixels, across and down, between parts of one overlay
STRAY = 0.05  # of a row or column at the side of a box: less is chance, next to an overlay
MIN_STATIC = 12  # static pixels in an overlay
MIN_SIDE = 4
MAX_SHARE = 0.25  # of the picture: more is a frame around it, or the scene itself
FILL = 0.35  # of an overlay's box that is static edge: letters and marks are dense, outlines not
SOLID = 0.6  # of the edges in an overlay's box that are static
EVERY_WAY = 0.2  # of its static edges that go each way: a mark is closed, a part of a scene is not
MOVING = 0.15  # of the other edges may be static where the scene counts as moving
MIN_EDGES = 0.02  # of the pixels elsewhere that are edges, or there is nothing to see move
MIN_SAMPLES = 4
CONTEXT_SECONDS = 15.0

Box = tuple[int, int, int, int]


@dataclass(frozen=True, kw_only=True)
class Overlay(FrameStage):
    """Edges that stay in place over a moving scene, and their box.

    An edge of one sign that is there in `persistence` of the frames taken at `fps` is static.
    Static edges near each other are an overlay when they fill much of their box, go every way and
    are most of the edges in it, and when nearly all other edges of the picture move. Where a clip
    by itself does not tell, the same is asked of what the file shows up to 15 s before and after:
    a logo stays across cuts. Over a still scene this says nothing, hence no value. Translucent
    marks count as far as their edges are steeper than 12 levels in most frames. The box given is
    that of the largest overlay. The numbers are ours, from clips with known marks.
    """

    kinds: ClassVar = frozenset({Kind.VIDEO})
    paper: ClassVar = "section 3.4, content: watermark, logo, text overlay"
    adds: ClassVar = (
        Fact("overlay_share", "", "Area of static overlays, of the picture.", 1e-4, 1, log=True),
        Fact("overlays", "", "Static overlays found.", 0, 10, int),
        Fact("overlay_x", "pixels", "Left side of the largest overlay.", 0, 4096, int),
        Fact("overlay_y", "pixels", "Upper side of the largest overlay.", 0, 4096, int),
        Fact("overlay_w", "pixels", "Width of the largest overlay.", 0, 4096, int),
        Fact("overlay_h", "pixels", "Height of the largest overlay.", 0, 4096, int),
    )
    fps: float = 2.0
    persistence: float = 0.8
    max_overlay_share: Bound = at_most(0.0, "overlay_share", "overlay")

    def open(self, info: MediaInfo) -> _Edges:
        return _Edges(self.fps)

    def facts(self, tracks: Tracks, clip: Clip, info: MediaInfo) -> Facts:
        here = within(clip, tracks["frame"])
        if info.video is None or here.stop - here.start < MIN_SAMPLES:
            short = NotApplicable(f"fewer than {MIN_SAMPLES} frames were sampled")
            return {fact.name: short for fact in self.adds}
        height, width = (int(n) for n in tracks["size"])
        planes = _unpack(tracks, here)
        boxes, moves = overlays(planes, planes, self.persistence)
        if not boxes and not moves:
            seconds = tracks["seconds"]
            first, last = seconds[here.start], seconds[here.stop - 1]
            near = np.searchsorted(seconds, [first - CONTEXT_SECONDS, last + CONTEXT_SECONDS])
            around = slice(int(near[0]), int(near[1]))
            if around != here:
                boxes, moves = overlays(planes, _unpack(tracks, around), self.persistence)
        none = NotApplicable("no overlay" if moves else "the scene stands still")
        if not boxes:
            nothing: Facts = {"overlay_share": 0.0, "overlays": 0} if moves else {}
            return {fact.name: nothing.get(fact.name, none) for fact in self.adds}
        x, y = info.video.width / width, info.video.height / height
        left, top, right, bottom = max(boxes, key=lambda b: (_area(b), b))
        return {
            "overlay_share": min(1.0, sum(map(_area, boxes)) / (width * height)),
            "overlays": len(boxes),
            "overlay_x": round(left * x),
            "overlay_y": round(top * y),
            "overlay_w": round((right - left) * x),
            "overlay_h": round((bottom - top) * y),
        }


def overlays(clip: np.ndarray, around: np.ndarray, persistence: float) -> tuple[list[Box], bool]:
    """(left, top, right, bottom) of each overlay, and whether the scene moves enough to tell.

    clip, around: bool [samples, 4, height, width], edges of a clip and of its surroundings.
    """
    static = (clip.mean(axis=0) >= persistence) & (around.mean(axis=0) >= persistence)
    still = static.any(axis=0)
    edges = around.any(axis=1).mean(axis=0)  # share of the time that a pixel is an edge
    height, width = still.shape
    lines = _grown(still.mean(axis=1) > LINE)[:, None] | _grown(still.mean(axis=0) > LINE)[None]
    still &= ~lines
    edges = np.where(lines, 0.0, edges)
    crowd = still & (cv2.blur(still.astype(np.float32), (5, 5)) >= CROWD)
    joined = cv2.morphologyEx(
        crowd.astype(np.uint8), cv2.MORPH_CLOSE, np.ones((JOIN[1], JOIN[0]), np.uint8)
    )
    _, _, stats, _ = cv2.connectedComponentsWithStats(joined, connectivity=8)
    boxes: list[Box] = []
    for left, top, w, h, _ in stats[1:].tolist():
        left, top, w, h = _trimmed(crowd, left, top, w, h)
        inside = np.s_[top : top + h, left : left + w]
        count = int(still[inside].sum())
        ways = (static[(slice(None), *inside)] & still[inside]).sum(axis=(1, 2))
        if (
            min(w, h) >= MIN_SIDE + 2
            and w * h <= MAX_SHARE * width * height
            and count >= max(MIN_STATIC, FILL * w * h, SOLID * edges[inside].sum())
            and ways.min() >= EVERY_WAY * count
        ):
            boxes.append((left, top, left + w, top + h))
    scene = np.ones_like(still)
    for left, top, right, bottom in boxes:
        scene[top:bottom, left:right] = False
    total = float(edges[scene].sum())
    moves = total >= MIN_EDGES * scene.sum() and int(still[scene].sum()) <= MOVING * total
    # A step is seen in the pixels on both its sides.
    return [(x0 + 1, y0 + 1, x1 - 1, y1 - 1) for x0, y0, x1, y1 in boxes] if moves else [], moves


def _trimmed(still: np.ndarray, left: int, top: int, w: int, h: int) -> tuple[int, int, int, int]:
    """The box without rows and columns at its sides that hold hardly any static pixel."""
    part = still[top : top + h, left : left + w]
    rows = np.flatnonzero(part.mean(axis=1) >= STRAY)
    columns = np.flatnonzero(part.mean(axis=0) >= STRAY)
    if not (len(rows) and len(columns)):
        return left, top, 0, 0
    first, row = int(columns[0]), int(rows[0])
    return left + first, top + row, int(columns[-1]) - first + 1, int(rows[-1]) - row + 1


def _grown(lines: np.ndarray) -> np.ndarray:
    """Also the neighbours of every line."""
    grown = lines.copy()
    grown[1:] |= lines[:-1]
    grown[:-1] |= lines[1:]
    return grown


def _area(box: Box) -> int:
    return (box[2] - box[0]) * (box[3] - box[1])


def _pack(bits: np.ndarray) -> bytes:
    """Deflated by runs, which in sparse edges is smaller than by matches, and quicker."""
    runs = zlib.compressobj(1, strategy=zlib.Z_RLE)
    return runs.compress(bits.tobytes()) + runs.flush()


def _unpack(tracks: Tracks, samples: slice) -> np.ndarray:
    """bool [samples, 4, height, width]."""
    height, width = (int(n) for n in tracks["size"])
    ends = tracks["end"]
    starts = np.concatenate([[0], ends[:-1]])
    planes = []
    for start, end in zip(starts[samples], ends[samples], strict=True):
        packed = np.frombuffer(zlib.decompress(tracks["edges"][start:end].tobytes()), np.uint8)
        bits = np.unpackbits(packed, count=PLANES * height * width)
        planes.append(bits.reshape(PLANES, height, width).view(np.bool_))
    return np.stack(planes)


class _Edges:
    def __init__(self, fps: float):
        self._sampling = Sampling(fps)
        self._size = (0, 0)
        self._times: list[tuple[int, float]] = []
        self._packed: list[bytes] = []

    def frame(self, frame: Frame) -> None:
        if not self._sampling.takes(frame.seconds):
            return
        self._size = frame.gray.shape
        right = cv2.Sobel(frame.gray, cv2.CV_16S, 1, 0)
        down = cv2.Sobel(frame.gray, cv2.CV_16S, 0, 1)
        least = 4 * STEP  # the filter's weights on either side sum to 4
        planes = np.stack([right > least, right < -least, down > least, down < -least])
        self._times.append((frame.index, frame.seconds))
        self._packed.append(_pack(np.packbits(planes)))

    def finish(self, summary: DecodeSummary) -> dict[str, np.ndarray]:
        return {
            "frame": np.array([index for index, _ in self._times], np.int64),
            "seconds": np.array([seconds for _, seconds in self._times], np.float64),
            "size": np.array(self._size, np.int64),
            "edges": np.frombuffer(b"".join(self._packed), np.uint8),
            "end": np.cumsum([len(packed) for packed in self._packed], dtype=np.int64),
        }
