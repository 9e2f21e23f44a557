"""Held, repeated and dropped frames."""

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
from reelmill.datasets.media.decode import DecodeSummary, Frame, MediaInfo
from reelmill.datasets.sample import Clip, Kind

BLOCKS = 16  # blocks across the picture's longer side
_MOVES = 2.0  # mean change above which no block needs to be looked at


@dataclass(frozen=True, kw_only=True)
class Freeze(FrameStage):
    """Runs of frames that show the same, and gaps in presentation times.

    A run goes on while no block of the picture (a sixteenth of its longer side) differs from the
    run's first frame by more than `tolerance` levels of luma on average. The mean of the whole
    picture, which ffmpeg's freezedetect takes, would call a still room with a speaking mouth
    frozen. Every frame is compared, so a run is exact to the frame. A gap of k typical frame lengths counts as k - 1
    dropped frames; variable frame rate looks the same, hence no bound on it by default.
    """

    kinds: ClassVar = frozenset({Kind.VIDEO})
    paper: ClassVar = "section 3.4, motion quality: frame drops"
    adds: ClassVar = (
        Fact("freeze_seconds", "s", "Longest time on screen without a change.", 0, 10),
        Fact("repeated_share", "", "Share of frames that repeat the one before.", 0, 1),
        Fact("dropped_share", "", "Frames missing by their times, of all due.", 0, 1),
    )
    tolerance: float = 1.0
    max_freeze_seconds: Bound = at_most(1.0, "freeze_seconds", "frozen")
    max_repeated_share: Bound = at_most(0.6, "repeated_share", "repeated_frames")
    max_dropped_share: Bound = at_most(None, "dropped_share", "dropped_frames")

    def open(self, info: MediaInfo) -> _Changes:
        return _Changes(self.tolerance)

    def facts(self, tracks: Tracks, clip: Clip, info: MediaInfo) -> Facts:
        frames = slice(clip.start_frame, clip.end_frame)
        pts = tracks["pts"][frames]
        if len(pts) < 2:
            none = NotApplicable(f"{len(pts)} frame has no neighbour")
            return {fact.name: none for fact in self.adds}
        repeats = tracks["change"][frames][1:] <= self.tolerance
        starts = np.flatnonzero(np.r_[True, ~repeats])
        shown = np.diff(np.r_[pts[starts], clip.end_pts])
        held = np.diff(np.r_[starts, len(pts)]) > 1
        gaps = np.diff(pts)
        missing = int((np.rint(gaps / np.median(gaps)) - 1).clip(0).sum())
        return {
            "freeze_seconds": float(shown[held].max() * clip.time_base) if held.any() else 0.0,
            "repeated_share": float(repeats.mean()),
            "dropped_share": missing / (len(pts) + missing),
        }


class _Changes:
    """Largest mean change of a block since the first frame of the run; exact only up to _MOVES."""

    def __init__(self, tolerance: float) -> None:
        self._tolerance = tolerance
        self._first: np.ndarray | None = None
        self._changes: list[float] = []

    def frame(self, frame: Frame) -> None:
        gray = frame.gray
        if self._first is None:
            self._first = gray.copy()
            self._changes.append(np.inf)
            return
        change = cv2.norm(gray, self._first, cv2.NORM_L1) / gray.size
        if change <= max(_MOVES, self._tolerance):
            change = self._largest(gray, self._first)
        self._changes.append(change)
        if change > self._tolerance:
            np.copyto(self._first, gray)

    @staticmethod
    def _largest(gray: np.ndarray, first: np.ndarray) -> float:
        side = max(1, max(gray.shape) // BLOCKS)
        size = (max(1, gray.shape[1] // side), max(1, gray.shape[0] // side))
        change = cv2.absdiff(gray, first).astype(np.float32)
        return float(cv2.resize(change, size, interpolation=cv2.INTER_AREA).max())

    def finish(self, summary: DecodeSummary) -> dict[str, np.ndarray]:
        return {
            "pts": np.asarray(summary.frame_pts, np.int64),
            "change": np.array(self._changes, np.float64),
        }
