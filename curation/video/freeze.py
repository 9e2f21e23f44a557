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
DRIFT = 4  # times the tolerance, since the first frame of a run


@dataclass(frozen=True, kw_only=True)
class Freeze(FrameStage):
    """Runs of frames that show the same, and gaps in presentation times.

    A frame repeats the one before it when no block of the picture (a sixteenth of its longer side)
    changes by more than `tolerance` levels of luma on average, nor by more than four times that
    since the run began, which a slow fade or zoom does. The mean of the whole picture, which
    ffmpeg's freezedetect takes, would call a still room with a speaking mouth frozen. Every frame
    is compared, so a run is exact to the frame. A gap of k typical frame lengths counts as k - 1
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
        repeats = tracks["repeats"][frames][1:]
        ends = np.append(pts, clip.end_pts)
        shown = [int(ends[last] - ends[first]) for first, last in held(repeats)]
        missing = int(dropped(pts).sum())
        return {
            "freeze_seconds": float(max(shown, default=0) * clip.time_base),
            "repeated_share": float(repeats.mean()),
            "dropped_share": missing / (len(pts) + missing),
        }


def held(repeats: np.ndarray) -> np.ndarray:
    """Runs of frames that show the same: first frame and the one after the last, int64 [runs, 2].

    repeats: bool [frames - 1], whether each frame but the first repeats the one before it.
    """
    starts = np.flatnonzero(np.r_[True, ~repeats])
    runs = np.column_stack([starts, np.append(starts[1:], len(repeats) + 1)])
    return runs[runs[:, 1] - runs[:, 0] > 1]


def dropped(pts: np.ndarray) -> np.ndarray:
    """Frames missing between each two neighbours by their times, int64 [frames - 1]."""
    gaps = np.diff(pts)
    return (np.rint(gaps / np.median(gaps)) - 1).clip(0).astype(np.int64)


class _Changes:
    def __init__(self, tolerance: float) -> None:
        self._tolerance = tolerance
        self._first: np.ndarray | None = None  # of the run
        self._last: np.ndarray | None = None
        self._repeats: list[bool] = []

    def frame(self, frame: Frame) -> None:
        gray = frame.gray
        if self._last is None or self._first is None:
            self._first = self._last = gray
            self._repeats.append(False)
            return
        repeats = self._near(gray, self._last, self._tolerance) and self._near(
            gray, self._first, DRIFT * self._tolerance
        )
        self._repeats.append(repeats)
        if not repeats:
            self._first = gray
        self._last = gray

    @staticmethod
    def _near(a: np.ndarray, b: np.ndarray, tolerance: float) -> bool:
        """Whether no block differs by more than that on average."""
        total, side = cv2.norm(a, b, cv2.NORM_L1), max(1, max(a.shape) // BLOCKS)
        if total > tolerance * a.size:
            return False
        if total <= tolerance * side * side or cv2.norm(a, b, cv2.NORM_INF) <= tolerance:
            return True
        size = (max(1, a.shape[1] // side), max(1, a.shape[0] // side))
        change = cv2.absdiff(a, b).astype(np.float32)
        return float(cv2.resize(change, size, interpolation=cv2.INTER_AREA).max()) <= tolerance

    def finish(self, summary: DecodeSummary) -> dict[str, np.ndarray]:
        return {
            "pts": np.asarray(summary.frame_pts, np.int64),
            "repeats": np.array(self._repeats, np.bool_),
        }
