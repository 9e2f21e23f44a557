"""How sharp a clip is."""

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
)
from reelmill.curation.video.sampling import Sampling, within
from reelmill.datasets.media.decode import DecodeSummary, Frame, MediaInfo
from reelmill.datasets.sample import Clip


@dataclass(frozen=True, kw_only=True)
class Blur(FrameStage):
    """Variance of the Laplacian, plain and against the picture's own contrast.

    The variance of the Laplacian is the usual measure (Pech-Pacheco et al. 2000), but it calls a
    dim or flat picture blurred; divided by the variance of luma it tells how much of the picture's
    contrast is fine. Both are medians over frames taken at `fps`, so that a few frames of fast
    motion do not count. Measured on the shared small frames: blur that reduction to 256 pixels of
    width hides is not seen. The bound is ours, from clips blurred by a known Gaussian.
    """

    paper: ClassVar = "section 3.4, basic quality: blur"
    adds: ClassVar = (
        Fact("laplacian", "levels^2", "Variance of the Laplacian, median.", 1, 1e4, log=True),
        Fact("sharpness", "", "Variance of the Laplacian over that of luma.", 1e-3, 10, log=True),
    )
    fps: float = 2.0
    min_sharpness: Bound = at_least(0.015, "sharpness", "blurred")

    def open(self, info: MediaInfo) -> _Laplacians:
        return _Laplacians(self.fps)

    def facts(self, tracks: Tracks, clip: Clip, info: MediaInfo) -> Facts:
        here = within(clip, tracks["frame"])
        laplacian, luma = tracks["laplacian"][here], tracks["luma_variance"][here]
        if not len(laplacian):
            none = NotApplicable(f"no frame was sampled in {clip.end_frame - clip.start_frame}")
            return {fact.name: none for fact in self.adds}
        textured = luma >= 1.0
        return {
            "laplacian": float(np.median(laplacian)),
            "sharpness": float(np.median(laplacian[textured] / luma[textured]))
            if textured.any()
            else NotApplicable("every frame is of one flat tone"),
        }


class _Laplacians:
    def __init__(self, fps: float):
        self._sampling = Sampling(fps)
        self._rows: list[tuple[int, float, float]] = []

    def frame(self, frame: Frame) -> None:
        if self._sampling.takes(frame.seconds):
            _, fine = cv2.meanStdDev(cv2.Laplacian(frame.gray, cv2.CV_16S))
            _, all_ = cv2.meanStdDev(frame.gray)
            self._rows.append((frame.index, float(fine[0, 0]) ** 2, float(all_[0, 0]) ** 2))

    def finish(self, summary: DecodeSummary) -> dict[str, np.ndarray]:
        rows = np.array(self._rows, np.float64).reshape(-1, 3)
        return {
            "frame": rows[:, 0].astype(np.int64),
            "laplacian": rows[:, 1],
            "luma_variance": rows[:, 2],
        }
