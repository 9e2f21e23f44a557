"""The grid that hard compression leaves behind."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import cv2
import numpy as np

from reelmill.curation.stage import (
    VISUAL,
    Bound,
    Fact,
    Facts,
    FrameStage,
    NotApplicable,
    Tracks,
    at_most,
)
from reelmill.curation.video.sampling import Sampling, centre, within
from reelmill.datasets.media.decode import DecodeSummary, Frame, MediaInfo
from reelmill.datasets.sample import Clip

BLOCK = 8
WINDOW = (384, 216)
FLOOR = 0.25  # levels: a flat picture has no ratio


@dataclass(frozen=True, kw_only=True)
class Blockiness(FrameStage):
    """How much steeper luma is across the borders of 8 by 8 blocks than inside them, 0 for none.

    The mean step between neighbouring columns is taken for every column; then, for each of the 8
    places that a border may have, the median over its columns, so that a bar's or a window's edge
    does not count; the value is the steepest place over the median place, less 1, and the greater
    of columns and rows (after Wang, Sheikh and Bovik 2002, who take the ratio of means). Measured
    in the coded picture, on its middle, in frames taken at `fps`; the median over the clip. The
    bound is ours, from clips compressed on purpose.
    """

    kinds: ClassVar = VISUAL
    paper: ClassVar = "section 3.4, basic quality"
    coded: ClassVar = True
    adds: ClassVar = (Fact("blockiness", "", "Steps at block borders over others, - 1.", 0, 4),)
    fps: float = 1.0
    max_blockiness: Bound = at_most(1.0, "blockiness", "blocky")

    def open(self, info: MediaInfo) -> _Grids:
        return _Grids(self.fps)

    def facts(self, tracks: Tracks, clip: Clip, info: MediaInfo) -> Facts:
        values = tracks["blockiness"][within(clip, tracks["frame"])]
        if not len(values):
            return {"blockiness": NotApplicable("no frame was sampled that holds two blocks")}
        return {"blockiness": float(np.median(values))}


def blockiness(luma: np.ndarray) -> float:
    """Of one picture, uint8 [height, width], both at least 16."""
    across = cv2.absdiff(luma[:, 1:], luma[:, :-1])
    down = cv2.absdiff(luma[1:], luma[:-1])
    steps = (
        cv2.reduce(across, 0, cv2.REDUCE_AVG, dtype=cv2.CV_32F).ravel(),
        cv2.reduce(down, 1, cv2.REDUCE_AVG, dtype=cv2.CV_32F).ravel(),
    )
    return max(_grid(line) for line in steps)


def _grid(steps: np.ndarray) -> float:
    places = np.median(steps[: len(steps) // BLOCK * BLOCK].reshape(-1, BLOCK), axis=0)
    return max(0.0, float((places.max() + FLOOR) / (np.median(places) + FLOOR)) - 1)


class _Grids:
    def __init__(self, fps: float):
        self._sampling = Sampling(fps)
        self._rows: list[tuple[int, float]] = []

    def frame(self, frame: Frame) -> None:
        if self._sampling.takes(frame.seconds):
            luma = centre(frame.full_luma, *WINDOW)
            if min(luma.shape) >= 2 * BLOCK:
                self._rows.append((frame.index, blockiness(luma)))

    def finish(self, summary: DecodeSummary) -> dict[str, np.ndarray]:
        return {
            "frame": np.array([index for index, _ in self._rows], np.int64),
            "blockiness": np.array([value for _, value in self._rows], np.float64),
        }
