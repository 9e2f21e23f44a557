"""Faces of one person, followed through a clip."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter1d, median_filter
from scipy.optimize import linear_sum_assignment

AREA = 640 * 360  # pixels of the pictures that faces are looked for in
RESIZED = 2.0  # times that a face may grow or shrink from one look to the next
MISSED = 2  # looks in a row in which a face may be hidden
_FAR = 1e6


@dataclass(frozen=True)
class Track:
    """looks: int64 [n], rising. boxes: float64 [n, 4], left, top, right, bottom. scores: [n]."""

    looks: np.ndarray
    boxes: np.ndarray
    scores: np.ndarray

    def at_frames(self, every: int, count: int) -> tuple[int, np.ndarray]:
        """(first frame, float64 [frames, 4]): a box for each frame from the first to the last look.

        every: frames between looks. count: of the clip. Between looks boxes go in a straight line;
        single outliers are taken out, and what trembles is smoothed over about a fifth of a second
        of 25 frames.
        """
        frames = np.minimum(self.looks * every, count - 1)
        steady = median_filter(self.boxes, size=(3, 1), mode="nearest")
        last = min(count - 1, int(frames[-1]) + every - 1)  # until the next look that lacks it
        at = np.arange(int(frames[0]), last + 1)
        rows = np.stack([np.interp(at, frames, side) for side in steady.T], axis=1)
        return int(frames[0]), gaussian_filter1d(rows, 2.0, axis=0, mode="nearest")


def follow(looks: Sequence[np.ndarray], reach: float = 1.0) -> list[Track]:
    """Tracks through looks at a clip, each float [faces, 5] of left, top, right, bottom, score.

    A face follows the one whose middle is nearest, within `reach` of their mean width, and whose
    width is at most 2 times another; it may be missing from 2 looks. The longest come first.
    """
    open_: list[list[tuple[int, np.ndarray]]] = []
    done: list[list[tuple[int, np.ndarray]]] = []
    for look, faces in enumerate(looks):
        done += [path for path in open_ if look - path[-1][0] > MISSED + 1]
        open_ = [path for path in open_ if look - path[-1][0] <= MISSED + 1]
        free = set(range(len(faces)))
        if open_ and len(faces):
            apart = _apart(np.stack([path[-1][1] for path in open_]), faces)
            apart[apart > reach] = _FAR
            for row, column in zip(*linear_sum_assignment(apart), strict=True):
                if apart[row, column] < _FAR:
                    open_[row].append((look, faces[column]))
                    free.discard(int(column))
        open_ += [[(look, faces[i])] for i in sorted(free)]
    tracks = []
    for path in sorted(done + open_, key=lambda path: (-len(path), path[0][0])):
        rows = np.stack([face for _, face in path]).astype(np.float64)
        tracks.append(Track(np.array([look for look, _ in path]), rows[:, :4], rows[:, 4]))
    return tracks


def _apart(before: np.ndarray, now: np.ndarray) -> np.ndarray:
    """float64 [before, now]: distance of middles in mean widths, far where the sizes differ."""
    middles = [(f[:, :2] + f[:, 2:4]).astype(np.float64) / 2 for f in (before, now)]
    widths = [np.maximum(f[:, 2] - f[:, 0], 1.0).astype(np.float64) for f in (before, now)]
    distance = np.linalg.norm(middles[0][:, None] - middles[1][None], axis=2)
    mean = (widths[0][:, None] + widths[1][None]) / 2
    ratio = widths[0][:, None] / widths[1][None]
    return np.where(np.maximum(ratio, 1 / ratio) > RESIZED, _FAR, distance / mean)


def look_height(width: int, height: int, area: float = AREA) -> int:
    """Lines of a picture of this shape scaled down to about `area` pixels, even."""
    lines = min(height, math.sqrt(area * height / max(1, width)))
    return max(2, 2 * round(lines / 2))
