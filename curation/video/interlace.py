"""Fields of two moments woven into one frame."""

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
    Tracks,
    at_most,
)
from reelmill.curation.video.sampling import Sampling, centre, within
from reelmill.datasets.media.decode import DecodeSummary, Frame, MediaInfo
from reelmill.datasets.sample import Clip, Kind

TOOTH = 10  # levels of luma by which a line stands out from both its neighbours
WINDOW = (384, 216)


@dataclass(frozen=True, kw_only=True)
class Interlace(FrameStage):
    """Share of pixels on a comb's tooth: lines that stand out from the lines above and below.

    A pixel counts when it differs from both neighbours by more than 10 levels to the same side,
    and those two differ by less than half of that: the test of comb filters such as FFmpeg's
    `idet` and VapourSynth's TIVTC. Fine stripes do that across as well as down; what is counted
    across is subtracted. Measured in the coded picture, since scaling hides it, on its middle, in
    frames taken at `fps`; the clip's value is the mean of its most combed half, since fields only
    part where something moves. The bound is ours, from clips woven on purpose.
    """

    kinds: ClassVar = frozenset({Kind.VIDEO})
    paper: ClassVar = "section 3.4, basic quality"
    coded: ClassVar = True
    adds: ClassVar = (Fact("combing", "", "Share of pixels on a comb, worse half.", 0, 0.2),)
    fps: float = 1.0
    max_combing: Bound = at_most(0.03, "combing", "interlaced")

    def open(self, info: MediaInfo) -> _Combs:
        return _Combs(self.fps)

    def facts(self, tracks: Tracks, clip: Clip, info: MediaInfo) -> Facts:
        combs = np.sort(tracks["comb"][within(clip, tracks["frame"])])
        if not len(combs):
            return {"combing": NotApplicable("no frame was sampled, or fewer than three lines")}
        return {"combing": float(combs[len(combs) // 2 :].mean())}


def combed(luma: np.ndarray) -> float:
    """Share of pixels on a comb's tooth, less the share on an upright comb's. uint8 [h, w]."""
    return max(0.0, _teeth(luma) - _teeth(cv2.transpose(luma)))


def _teeth(luma: np.ndarray) -> float:
    above, line, below = luma[:-2], luma[1:-1], luma[2:]
    up = cv2.min(cv2.subtract(line, above), cv2.subtract(line, below))
    down = cv2.min(cv2.subtract(above, line), cv2.subtract(below, line))
    tooth = cv2.max(up, down)
    twice = cv2.absdiff(above, below)
    comb = (tooth > TOOTH) & (twice < tooth >> 1)
    return float(np.count_nonzero(comb)) / comb.size


class _Combs:
    def __init__(self, fps: float):
        self._sampling = Sampling(fps)
        self._rows: list[tuple[int, float]] = []

    def frame(self, frame: Frame) -> None:
        if self._sampling.takes(frame.seconds):
            luma = centre(frame.full_luma, *WINDOW)
            if min(luma.shape) >= 3:
                self._rows.append((frame.index, combed(luma)))

    def finish(self, summary: DecodeSummary) -> dict[str, np.ndarray]:
        return {
            "frame": np.array([index for index, _ in self._rows], np.int64),
            "comb": np.array([comb for _, comb in self._rows], np.float64),
        }
