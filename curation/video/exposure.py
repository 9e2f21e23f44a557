"""How light, how contrasting and of what colour a clip is."""

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
from reelmill.curation.video.sampling import Sampling, within
from reelmill.datasets.media.decode import DecodeSummary, Frame, MediaInfo
from reelmill.datasets.sample import Clip

BINS = 64
WIDTH = 256 // BINS
_LEVELS = (np.arange(BINS) + 0.5) * WIDTH - 0.5
_BLACK = 24 // WIDTH  # bins below: luma 0 to 23, about ffmpeg blackdetect's pixel_black_th of 0.1
_WHITE = 248 // WIDTH  # bins from here: luma 248 to 255


@dataclass(frozen=True, kw_only=True)
class Exposure(FrameStage):
    """Luma of a clip: mean, spread, and the shares at both ends of the scale; its mean colour.

    All are means over frames taken at `fps`; the histogram of each is kept, in bins of 4 levels.
    `highlights` is the luma that the brightest hundredth of the clip's pixels reach: a night scene
    has lamps, an underexposed one has none. The bounds are ours, from clips whose fault is known;
    0.98 of black is that of ffmpeg's blackdetect. The colours are the opponents of Hasler and
    Suesstrunk 2003.
    """

    paper: ClassVar = "section 3.4, basic quality: contrast, exposure"
    adds: ClassVar = (
        Fact("luma", "levels", "Mean luma, 0 black to 255 white.", 0, 255),
        Fact("black_share", "", "Share of pixels darker than luma 24.", 0, 1),
        Fact("highlights", "levels", "99th percentile of luma over the clip.", 0, 255),
        Fact("white_share", "", "Share of pixels at luma 248 or above.", 0, 1),
        Fact("contrast", "levels", "Standard deviation of luma in a frame, mean.", 0, 128),
        Fact("red_green", "levels", "Mean of R - G.", -128, 128),
        Fact("yellow_blue", "levels", "Mean of (R + G) / 2 - B.", -128, 128),
    )
    fps: float = 4.0
    max_black_share: Bound = at_most(0.98, "black_share", "black")
    min_highlights: Bound = at_least(64, "highlights", "underexposed")
    max_white_share: Bound = at_most(0.6, "white_share", "overexposed")
    min_contrast: Bound = at_least(8, "contrast", "low_contrast")

    def open(self, info: MediaInfo) -> _Histograms:
        return _Histograms(self.fps)

    def facts(self, tracks: Tracks, clip: Clip, info: MediaInfo) -> Facts:
        here = within(clip, tracks["frame"])
        counts = tracks["histogram"][here].astype(np.float64)
        if not len(counts):
            none = NotApplicable(f"no frame was sampled in {clip.end_frame - clip.start_frame}")
            return {fact.name: none for fact in self.adds}
        shares = counts / counts.sum(axis=1, keepdims=True)
        means = shares @ _LEVELS
        deviations = np.sqrt(np.maximum(shares @ np.square(_LEVELS) - np.square(means), 0))
        clip_shares = shares.mean(axis=0)
        blue, green, red = tracks["bgr"][here].astype(np.float64).T
        brightest = int(np.searchsorted(np.cumsum(clip_shares), 0.99 - 1e-9))
        return {
            "luma": float(means.mean()),
            "black_share": float(clip_shares[:_BLACK].sum()),
            "highlights": float(_LEVELS[min(brightest, BINS - 1)]),
            "white_share": float(clip_shares[_WHITE:].sum()),
            "contrast": float(deviations.mean()),
            "red_green": float((red - green).mean()),
            "yellow_blue": float(((red + green) / 2 - blue).mean()),
        }


class _Histograms:
    def __init__(self, fps: float):
        self._sampling = Sampling(fps)
        self._frames: list[int] = []
        self._rows: list[np.ndarray] = []
        self._colours: list[tuple[float, ...]] = []

    def frame(self, frame: Frame) -> None:
        if self._sampling.takes(frame.seconds):
            counts = cv2.calcHist([frame.gray], [0], None, [BINS], [0, 256])
            self._frames.append(frame.index)
            self._rows.append(counts.ravel().astype(np.uint32))
            self._colours.append(cv2.mean(frame.bgr)[:3])

    def finish(self, summary: DecodeSummary) -> dict[str, np.ndarray]:
        rows = np.stack(self._rows) if self._rows else np.zeros((0, BINS), np.uint32)
        return {
            "frame": np.array(self._frames, np.int64),
            "histogram": rows,
            "bgr": np.array(self._colours, np.float32).reshape(-1, 3),
        }
