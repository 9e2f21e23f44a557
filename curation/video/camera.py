"""How the camera moves: which way, how fast, how steadily."""

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
from reelmill.curation.video.motion import GAP_SECONDS
from reelmill.curation.video.sampling import Sampling, shrunk, within
from reelmill.datasets.media.decode import DecodeSummary, Frame, MediaInfo
from reelmill.datasets.sample import Clip, Kind

SIDE = 128  # of the pictures that points are followed in
POINTS = 60
LEAST_POINTS = 12
NEAR = 0.5  # pixels of those, between a point and where the camera's motion takes it
SHARE = 0.4  # of the points that must follow, or the scene hides what the camera does
TRIES = 100  # of two points each: where SHARE of them follow, all miss once in 10**7
LEVER = 0.5  # widths from the middle at which zoom and roll are compared with pan and tilt
MOVES = (  # of the picture: to the right, down, larger, clockwise
    ("pan_left", "pan_right"),
    ("tilt_up", "tilt_down"),
    ("zoom_in", "zoom_out"),
    ("roll_ccw", "roll_cw"),
)


@dataclass(frozen=True, kw_only=True)
class Camera(FrameStage):
    """Pan, tilt, zoom and roll from the motion that most of the picture shares.

    Corners (Shi and Tomasi 1994) are followed from a frame to one at least 1/13 s later (Lucas and
    Kanade, in pyramids), `fps` times a second, and a shift, scale and turn is fitted that most of
    them share (RANSAC). Where less than two fifths agree, the pair tells nothing. All four motions
    are given as speeds at the picture's side, in widths per second. `camera` names the largest of
    their means: static, pan_left, pan_right, tilt_up, tilt_down, zoom_in, zoom_out, roll_cw,
    roll_ccw as the camera turns; static below `still`; unsteady where it is less than the shake.
    `camera_shake` is the speed's root mean square change from one pair to the next over root 2, so
    that a smooth move, also one that starts slowly, has nearly none. The bounds are ours,
    from clips whose camera is known.
    """

    kinds: ClassVar = frozenset({Kind.VIDEO})
    paper: ClassVar = "section 3.4, motion quality: camera stability, motion patterns"
    adds: ClassVar = (
        Fact("camera", "", "Static, or how the camera moves most.", dtype=str),
        Fact("camera_speed", "widths/s", "Speed of the camera's mean motion.", 1e-4, 10, log=True),
        Fact("camera_shake", "widths/s", "How much that changes.", 1e-4, 10, log=True),
        Fact("pan", "widths/s", "Mean, to the right.", -1, 1),
        Fact("tilt", "widths/s", "Mean, up.", -1, 1),
        Fact("zoom", "widths/s", "Mean, in, at the picture's side.", -1, 1),
        Fact("roll", "widths/s", "Mean, clockwise, at the picture's side.", -1, 1),
    )
    fps: float = 2.0
    still: float = 0.01
    min_camera_speed: Bound = at_least(None, "camera_speed", "static_camera")
    max_camera_speed: Bound = at_most(1.0, "camera_speed", "camera_too_fast")
    min_camera_shake: Bound = at_least(None, "camera_shake", "too_smooth")
    max_camera_shake: Bound = at_most(0.5, "camera_shake", "shaky")

    def open(self, info: MediaInfo) -> _Fits:
        return _Fits(self.fps)

    def facts(self, tracks: Tracks, clip: Clip, info: MediaInfo) -> Facts:
        here = within(clip, tracks["first"])
        whole = tracks["second"][here] < clip.end_frame
        fitted = tracks["motion"][here][whole]
        known = ~np.isnan(fitted[:, 0])
        if known.sum() < 2:
            why = NotApplicable("in fewer than two pairs of frames most points move alike")
            return {fact.name: why for fact in self.adds}
        motion = fitted[known]
        mean = motion.mean(axis=0)
        steps = np.diff(motion, axis=0)
        shake = float(np.sqrt((steps**2).sum(axis=1).mean() / 2))
        largest = int(np.argmax(np.abs(mean)))
        speed = float(np.linalg.norm(mean))
        name = MOVES[largest][int(mean[largest] < 0)]
        if speed < self.still:
            name = "static" if shake < 2 * self.still else "unsteady"
        elif speed < shake:
            name = "unsteady"
        return {
            "camera": name,
            "camera_speed": speed,
            "camera_shake": shake,
            "pan": float(-mean[0]),
            "tilt": float(mean[1]),
            "zoom": float(mean[2]),
            "roll": float(-mean[3]),
        }


def shared_motion(before: np.ndarray, after: np.ndarray) -> np.ndarray | None:
    """What most of the picture does between two frames, uint8 [height, width].

    [right, down, larger, clockwise] in widths, at LEVER for the last two. None where too few points
    are found or agree.
    """
    width = before.shape[1]
    fit = shared_fit(before, after)
    if fit is None:
        return None
    scale = float(np.hypot(fit[0, 0], fit[1, 0]))
    turn = float(np.arctan2(fit[1, 0], fit[0, 0]))
    shift = fit[:, 2] / width
    return np.array([shift[0], shift[1], LEVER * np.log(scale), LEVER * turn])


def shared_fit(before: np.ndarray, after: np.ndarray) -> np.ndarray | None:
    """Shift, scale and turn that most of the picture shares, about its middle: float [2, 3].

    None where too few points are found or agree, or where it is twice or half as large.
    """
    height, width = before.shape
    corners = cv2.goodFeaturesToTrack(before, POINTS, 0.01, max(3, width // 32))
    if corners is None or len(corners) < LEAST_POINTS:
        return None
    moved, found, _ = cv2.calcOpticalFlowPyrLK(
        before, after, corners, None, winSize=(11, 11), maxLevel=2
    )
    kept = found.ravel() == 1
    if kept.sum() < LEAST_POINTS:
        return None
    middle = np.array([width / 2, height / 2], np.float32)
    old, new = corners[kept, 0] - middle, moved[kept, 0] - middle
    fit, followed = cv2.estimateAffinePartial2D(
        old, new, ransacReprojThreshold=NEAR, maxIters=TRIES
    )
    if fit is None or followed.mean() < SHARE:
        return None
    return fit if 0.5 < float(np.hypot(fit[0, 0], fit[1, 0])) < 2 else None


class _Fits:
    def __init__(self, fps: float):
        self._sampling = Sampling(fps)
        self._open: tuple[int, float, np.ndarray] | None = None
        self._rows: list[tuple[float, ...]] = []

    def frame(self, frame: Frame) -> None:
        if self._open is not None:
            index, seconds, before = self._open
            gap = frame.seconds - seconds
            if gap >= GAP_SECONDS:
                found = shared_motion(before, shrunk(frame.gray, SIDE))
                motion = [np.nan] * 4 if found is None else (found / gap).tolist()
                self._rows.append((index, frame.index, *motion))
                self._open = None
        if self._open is None and self._sampling.takes(frame.seconds):
            self._open = (frame.index, frame.seconds, shrunk(frame.gray, SIDE))

    def finish(self, summary: DecodeSummary) -> dict[str, np.ndarray]:
        rows = np.array(self._rows, np.float64).reshape(-1, 6)
        return {
            "first": rows[:, 0].astype(np.int64),
            "second": rows[:, 1].astype(np.int64),
            "motion": rows[:, 2:6],
        }
