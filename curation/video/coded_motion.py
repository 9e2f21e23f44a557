"""How much moves, by the encoder's own account: no picture is compared with another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from reelmill.curation.stage import (
    Bound,
    Fact,
    Facts,
    FrameStage,
    NotApplicable,
    Tracks,
    at_least,
    at_most,
)
from reelmill.datasets.media.decode import DecodeSummary, Frame, MediaInfo
from reelmill.datasets.sample import Clip, Kind

NAME = "coded_motion"
LEAST_COVERED = 0.1  # of the picture, by blocks with vectors, or the frame says nothing


@dataclass(frozen=True, kw_only=True)
class CodedMotion(FrameStage):
    """Mean length of motion vectors in widths per second, over frames predicted from the past.

    The vectors are the decoder's (H.264, MPEG-4, MPEG-2 ...): what they cost is asking for them. A
    frame's are taken to point to the last picture that others refer to. They are chosen to save
    bits, not to be true: noise makes some, and a flat sky has none. So they rank clips and tell
    still from lively; Motion measures. Off by default. For cut clips of other codecs there is no
    value, nor for frames whose blocks with vectors cover less than a tenth of the picture.
    """

    kinds: ClassVar = frozenset({Kind.VIDEO})
    coded: ClassVar = True
    vectors: ClassVar = True
    paper: ClassVar = "section 3.4, motion quality: magnitude"
    adds: ClassVar = (
        Fact(NAME, "widths/s", "Mean length of the codec's vectors.", 1e-4, 10, log=True),
    )
    min_motion: Bound = at_least(None, NAME, "static")
    max_motion: Bound = at_most(None, NAME, "too_fast")

    def open(self, info: MediaInfo) -> _Vectors:
        return _Vectors(info)

    def facts(self, tracks: Tracks, clip: Clip, info: MediaInfo) -> Facts:
        if not tracks["known"].any():
            return {NAME: NotApplicable("the codec gives no motion vectors")}
        # A frame that refers to one of another clip belongs to none.
        frames, since = tracks["frame"], tracks["since"]
        here = (since >= clip.start_frame) & (frames < clip.end_frame)
        speeds = tracks["speed"][here].astype(np.float64)
        if not len(speeds):
            return {NAME: NotApplicable("no frame with motion vectors")}
        return {NAME: float(speeds.mean())}


class _Vectors:
    def __init__(self, info: MediaInfo) -> None:
        self._width = max(1, info.video.coded_width) if info.video else 1
        self._pixels = self._width * max(1, info.video.coded_height) if info.video else 1
        self._anchor: tuple[int, float] | None = None
        self._rows: list[tuple[float, ...]] = []
        self._known = False

    def frame(self, frame: Frame) -> None:
        kind, vectors = frame.vectors()
        self._known |= len(vectors) > 0
        if kind not in ("I", "P", "S"):  # others do not refer to it
            return
        if self._anchor is not None and kind == "P":
            index, seconds = self._anchor
            covered, gap = float(vectors[:, 0].sum()), frame.seconds - seconds
            if gap > 0 and covered >= LEAST_COVERED * self._pixels:
                lengths = np.hypot(vectors[:, 1].astype(np.float64), vectors[:, 2])
                mean = float(lengths @ vectors[:, 0]) / covered
                self._rows.append((index, frame.index, mean / self._width / gap))
        self._anchor = (frame.index, frame.seconds)

    def finish(self, summary: DecodeSummary) -> dict[str, np.ndarray]:
        rows = np.array(self._rows, np.float64).reshape(-1, 3)
        return {
            "since": rows[:, 0].astype(np.int64),
            "frame": rows[:, 1].astype(np.int64),
            "speed": rows[:, 2].astype(np.float32),
            "known": np.array([self._known]),
        }
