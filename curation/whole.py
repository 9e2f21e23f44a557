"""One clip per asset, for kinds that are not cut."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from reelmill.curation.stage import (
    ALL_KINDS,
    Fact,
    Facts,
    FrameStage,
    NotApplicable,
    Segmenter,
    Tracks,
)
from reelmill.datasets.media.decode import DecodeSummary, Frame, MediaInfo
from reelmill.datasets.sample import Clip, Kind


@dataclass(frozen=True, kw_only=True)
class WholeFile(FrameStage, Segmenter):
    """Makes one clip of the whole file. It looks at no frame and rejects nothing."""

    kinds: ClassVar = ALL_KINDS
    paper: ClassVar = "section 3.4, images and audio"
    adds: ClassVar = (Fact("seconds", "s", "Length of the clip.", 0, 60),)

    def open(self, info: MediaInfo) -> _Nothing:
        return _Nothing()

    def facts(self, tracks: Tracks, clip: Clip, info: MediaInfo) -> Facts:
        if clip.kind == Kind.IMAGE:
            return {"seconds": NotApplicable("an image has no length")}
        return {"seconds": clip.seconds}

    def segment(self, tracks: Tracks, whole: Clip, info: MediaInfo) -> list[Clip]:
        return [whole]


class _Nothing:
    def frame(self, frame: Frame) -> None:
        pass

    def finish(self, summary: DecodeSummary) -> dict[str, np.ndarray]:
        return {"frames": np.array([len(summary.frame_pts)], np.int64)}
