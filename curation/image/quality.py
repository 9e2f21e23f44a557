"""How good a picture looks, without a reference."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar

import cv2

from reelmill.curation.models.brisque import BRISQUE
from reelmill.curation.stage import (
    VISUAL,
    Bound,
    ClipMedia,
    ClipStage,
    Fact,
    Facts,
    NotApplicable,
    NotMeasured,
    NoValue,
    Resources,
    WeightsStore,
    at_most,
)

MIN_SIDE = 32


@dataclass(frozen=True, kw_only=True)
class Quality(ClipStage):
    """BRISQUE of the first frame, at most `height` pixels high: 0 best, 100 worst.

    Blind to colour casts. Not measured without its weights, which a person has to bring; hence no
    bound by default. The reference pictures of TID2013 have below 10, a blurred and blocky one 85.
    """

    kinds: ClassVar = VISUAL
    paper: ClassVar = "section 3.4, images: image quality assessment"
    adds: ClassVar = (Fact("brisque", "", "BRISQUE of the first frame, 0 best.", 0, 100),)
    resources: ClassVar = Resources(weights=("brisque",))
    height: int = 512
    max_brisque: Bound = at_most(None, "brisque", "low_quality")

    @contextmanager
    def session(
        self, weights: WeightsStore
    ) -> Iterator[Callable[[Sequence[ClipMedia]], list[Facts]]]:
        folder = weights.path("brisque")
        score = None if folder is None else BRISQUE(folder)

        def of(media: ClipMedia) -> float | NoValue:
            if score is None:
                return NotMeasured("weights 'brisque' absent")
            video = media.info.video
            height = min(self.height, video.height) if video else self.height
            frames = media.frames(1.0, height)
            if not len(frames) or min(frames.shape[1:3]) < MIN_SIDE:
                return NotApplicable(f"no frame of {MIN_SIDE} pixels a side")
            return score(cv2.cvtColor(frames[0], cv2.COLOR_RGB2GRAY))

        yield lambda clips: [{"brisque": of(media)} for media in clips]
