"""How much moves in a clip."""

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
    at_least,
    at_most,
)
from reelmill.curation.video.sampling import Sampling, shrunk, within
from reelmill.datasets.media.decode import DecodeSummary, Frame, MediaInfo
from reelmill.datasets.sample import Clip, Kind

FLOW_SIDE = 128
MIN_SIDE = 16  # of a picture that flow is measured in
GAP_SECONDS = 1 / 13  # just under two frames at 24 fps: drawings held for two frames still move


@dataclass(frozen=True, kw_only=True)
class Motion(FrameStage):
    """Mean optical flow and mean change of luma, over pairs of frames taken `fps` times a second.

    Flow is dense inverse search (Kroeger et al. 2016, as in OpenCV) at 128 pixels of the longer
    side, in picture widths per second, so that neither size nor frame rate counts. The frames of a
    pair are at least 1/13 s apart; a pair across a cut belongs to no clip. Two-sided, as Goku
    (arXiv 2502.04896, 0.3 to 20 pixels a frame) and Foley-Omni have it; the numbers are ours, from
    clips known to be static or lively.
    """

    kinds: ClassVar = frozenset({Kind.VIDEO})
    paper: ClassVar = "section 3.4, motion quality: magnitude and speed"
    adds: ClassVar = (
        Fact("motion", "widths/s", "Mean length of the optical flow.", 1e-4, 10, log=True),
        Fact("motion_peak", "widths/s", "Mean flow of the liveliest tenth.", 1e-4, 10, log=True),
        Fact("luma_change", "levels/s", "Mean absolute change of luma.", 0.1, 1e3, log=True),
    )
    fps: float = 4.0
    min_motion: Bound = at_least(0.002, "motion", "static")
    max_motion: Bound = at_most(1.0, "motion", "too_fast")

    def open(self, info: MediaInfo) -> _Flow:
        return _Flow(self.fps)

    def facts(self, tracks: Tracks, clip: Clip, info: MediaInfo) -> Facts:
        here = within(clip, tracks["first"])
        whole = tracks["second"][here] < clip.end_frame
        flow = tracks["flow"][here][whole]
        if not len(flow):
            none = NotApplicable("no two sampled frames" if len(whole) else "too short to sample")
            return {fact.name: none for fact in self.adds}
        liveliest = np.sort(flow)[-max(1, len(flow) // 10) :]
        return {
            "motion": float(flow.mean()),
            "motion_peak": float(liveliest.mean()),
            "luma_change": float(tracks["change"][here][whole].mean()),
        }


class _Flow:
    def __init__(self, fps: float):
        self._sampling = Sampling(fps)
        self._dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)
        self._open: tuple[int, float, np.ndarray] | None = None
        self._rows: list[tuple[float, ...]] = []

    def frame(self, frame: Frame) -> None:
        if self._open is not None:
            index, seconds, before = self._open
            gap = frame.seconds - seconds
            if gap >= GAP_SECONDS:
                after = shrunk(frame.gray, FLOW_SIDE)
                flow, change = self._between(before, after)
                self._rows.append((index, frame.index, flow / gap, change / gap))
                self._open = None
        if self._open is None and self._sampling.takes(frame.seconds):
            self._open = (frame.index, frame.seconds, shrunk(frame.gray, FLOW_SIDE))

    def _between(self, before: np.ndarray, after: np.ndarray) -> tuple[float, float]:
        change = cv2.norm(before, after, cv2.NORM_L1) / before.size
        if min(before.shape) < MIN_SIDE:
            return 0.0, change
        flow = self._dis.calc(before, after, None)
        x, y = cv2.split(flow)
        lengths = np.sqrt(x * x + y * y)  # cv2.magnitude rounds by where in memory its arrays lie
        return float(lengths.mean(dtype=np.float64)) / before.shape[1], change

    def finish(self, summary: DecodeSummary) -> dict[str, np.ndarray]:
        rows = np.array(self._rows, np.float64).reshape(-1, 4)
        return {
            "first": rows[:, 0].astype(np.int64),
            "second": rows[:, 1].astype(np.int64),
            "flow": rows[:, 2],
            "change": rows[:, 3],
        }
