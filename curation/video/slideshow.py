"""Stills on film: held, or with a pan or zoom over them."""

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
from reelmill.curation.video.camera import shared_fit
from reelmill.curation.video.sampling import Sampling, shrunk, within
from reelmill.datasets.media.decode import DecodeSummary, Frame, MediaInfo
from reelmill.datasets.sample import Clip, Kind

SIDE = 128  # pixels of the longer side of the pictures that are compared
BLOCK = 8  # pixels of those
EDGE = 4  # pixels at the sides of what both pictures show that are left out
LEAST_SHARED = 0.3  # of the picture must be in both, or nothing is known of it


@dataclass(frozen=True, kw_only=True)
class Slideshow(FrameStage):
    """How often a picture is the one a moment earlier, held, shifted, zoomed or turned as a whole.

    Pictures are taken `fps` times a second. The shift, scale and turn that most of the earlier one
    follows is undone (`Camera`), and what is left is looked at in blocks of a sixteenth of the
    picture: over a still all of them fit, however the camera moves; what lives, and what stands
    before something else, does not. `unlike` is the mean difference, in levels of luma, that one
    block in twenty exceeds. A pair with at most `tolerance` of it is a still, and `still_share` is
    the share of those. A change of slides, hard or soft, is no still, hence the bound below 1. A
    film of a scene in which nothing at all moves is taken for a still too. The numbers are ours,
    from photographs moved on purpose and from films.
    """

    kinds: ClassVar = frozenset({Kind.VIDEO})
    paper: ClassVar = "section 3.4, motion quality; slideshows"
    adds: ClassVar = (
        Fact("still_share", "", "Share of seconds that show one still, maybe moved.", 0, 1),
        Fact("unlike", "levels", "What a move of the whole does not explain, median.", 0, 40),
    )
    fps: float = 1.0
    tolerance: float = 3.0
    max_still_share: Bound = at_most(0.75, "still_share", "slideshow")

    def open(self, info: MediaInfo) -> _Pairs:
        return _Pairs(self.fps)

    def facts(self, tracks: Tracks, clip: Clip, info: MediaInfo) -> Facts:
        here = within(clip, tracks["first"])
        whole = tracks["second"][here] < clip.end_frame
        unlike = tracks["unlike"][here][whole]
        if not len(unlike):
            none = NotApplicable("no two pictures were sampled")
            return {fact.name: none for fact in self.adds}
        return {
            "still_share": float((unlike <= self.tolerance).mean()),
            "unlike": float(np.median(unlike)),
        }


def unlike(before: np.ndarray, after: np.ndarray, enough: float = 0.0) -> float:
    """What no move of the whole explains between two pictures, uint8 [height, width], in levels.

    enough: where the pictures as they are do not differ by more, no move is looked for.
    """
    held = _left(before, after, np.full(before.shape, 255, np.uint8))
    if held <= enough:
        return held
    fit = shared_fit(before, after)
    if fit is None:
        return held
    height, width = before.shape
    middle = np.array([width / 2, height / 2])
    fit = fit.copy()
    fit[:, 2] += middle - fit[:, :2] @ middle
    moved = cv2.warpAffine(before, fit, (width, height), flags=cv2.INTER_CUBIC)
    both = cv2.warpAffine(np.full_like(before, 255), fit, (width, height), flags=cv2.INTER_NEAREST)
    return min(held, _left(moved, after, both))


def _left(a: np.ndarray, b: np.ndarray, both: np.ndarray) -> float:
    """The 95th percentile over blocks of the mean difference, where both pictures show something;
    infinite where that is little."""
    inner = cv2.erode(both, np.ones((2 * EDGE + 1, 2 * EDGE + 1), np.uint8), borderValue=0)
    size = (max(1, a.shape[1] // BLOCK), max(1, a.shape[0] // BLOCK))
    whole = cv2.resize(inner, size, interpolation=cv2.INTER_AREA) == 255
    if whole.mean() < LEAST_SHARED:
        return float("inf")
    change = cv2.absdiff(cv2.blur(a, (3, 3)), cv2.blur(b, (3, 3))).astype(np.float32)
    blocks = cv2.resize(change, size, interpolation=cv2.INTER_AREA)
    return float(np.percentile(blocks[whole], 95))


class _Pairs:
    def __init__(self, fps: float):
        self._sampling = Sampling(fps)
        self._last: tuple[int, np.ndarray] | None = None
        self._rows: list[tuple[int, int, float]] = []

    def frame(self, frame: Frame) -> None:
        if not self._sampling.takes(frame.seconds):
            return
        now = shrunk(frame.gray, SIDE)
        if self._last is not None:
            first, before = self._last
            self._rows.append((first, frame.index, unlike(before, now, enough=1.0)))
        self._last = frame.index, now

    def finish(self, summary: DecodeSummary) -> dict[str, np.ndarray]:
        rows = np.array(self._rows, np.float64).reshape(-1, 3)
        return {
            "first": rows[:, 0].astype(np.int64),
            "second": rows[:, 1].astype(np.int64),
            "unlike": rows[:, 2],
        }
