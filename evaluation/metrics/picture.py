"""The picture by itself: sharpness, exposure, colour. Without a reference, so these are proxies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import cv2
import numpy as np

from reelmill.evaluation.clip import ClipMedia
from reelmill.evaluation.damage import Damage
from reelmill.evaluation.metric import MOTION, PICTURE, Better, Metric, NotApplicable, Value
from reelmill.evaluation.taxonomy import Stream


@dataclass(frozen=True, kw_only=True)
class Sharpness(Metric):
    """Variance of the Laplacian over that of luma, median over two stills a second.

    The plain variance (Pech-Pacheco et al. 2000) calls dim pictures blurred; this asks how much of
    the contrast is fine. Noise is fine too: read it beside WarpingError.
    """

    better: ClassVar = Better.HIGHER
    high: ClassVar = 40.0
    part: ClassVar = "clarity"
    stream: ClassVar = Stream.VIDEO
    applies_to: ClassVar = (PICTURE,)
    claims: ClassVar = frozenset({Damage.BLUR})
    min_variance: float = 1.0

    def _value(self, clip: ClipMedia) -> Value:
        found = []
        for still in clip.stills:
            gray = cv2.cvtColor(still, cv2.COLOR_BGR2GRAY)
            contrast = float(gray.var())
            if contrast >= self.min_variance:
                found.append(float(cv2.Laplacian(gray, cv2.CV_32F).var()) / contrast)
        return float(np.median(found)) if found else NotApplicable("every still is one flat tone")


@dataclass(frozen=True, kw_only=True)
class Exposure(Metric):
    """Share of pixels without detail left: black or white, mean over the stills."""

    better: ClassVar = Better.LOWER
    part: ClassVar = "clarity"
    stream: ClassVar = Stream.VIDEO
    applies_to: ClassVar = (PICTURE,)
    claims: ClassVar = frozenset({Damage.OVEREXPOSURE})
    black: int = 4
    white: int = 250

    def _value(self, clip: ClipMedia) -> Value:
        b, g, r = (clip.stills[..., i] for i in range(3))
        brightest, darkest = np.maximum(np.maximum(b, g), r), np.minimum(np.minimum(b, g), r)
        return float(((brightest <= self.black) | (darkest >= self.white)).mean())


@dataclass(frozen=True, kw_only=True)
class Colourfulness(Metric):
    """Hasler and Suesstrunk 2003: spread and distance from grey. A matter of style, not better."""

    better: ClassVar = Better.NEITHER
    high: ClassVar = 400.0
    part: ClassVar = "colour_accuracy"
    stream: ClassVar = Stream.VIDEO
    applies_to: ClassVar = (PICTURE,)

    def _value(self, clip: ClipMedia) -> Value:
        found = []
        for still in clip.stills:
            b, g, r = cv2.split(still.astype(np.float32))
            rg, yb = r - g, (r + g) / 2 - b
            spread = np.hypot(rg.std(), yb.std())
            found.append(float(spread + 0.3 * np.hypot(rg.mean(), yb.mean())))
        return float(np.mean(found))


@dataclass(frozen=True, kw_only=True)
class ColourDrift(Metric):
    """How far the mean colour wanders within a shot: the largest distance in Lab's a, b plane.

    Between tenths of a shot, so that a passing thing counts little; the worst shot counts. A cast
    that is there from the first frame to the last cannot be told from what was asked for, and is
    not seen.
    """

    unit: ClassVar = "Lab a, b"
    better: ClassVar = Better.LOWER
    high: ClassVar = 200.0
    part: ClassVar = "colour_accuracy"
    stream: ClassVar = Stream.VIDEO
    applies_to: ClassVar = (MOTION,)
    claims: ClassVar = frozenset({Damage.COLOUR_SHIFT})
    parts: int = 10

    def _value(self, clip: ClipMedia) -> Value:
        worst = []
        for shot in clip.shots():
            chroma = clip.colour[shot, 1:]
            if len(chroma) < self.parts:
                continue
            tenths = np.array([part.mean(axis=0) for part in np.array_split(chroma, self.parts)])
            worst.append(np.linalg.norm(tenths[:, None] - tenths[None], axis=-1).max())
        return float(max(worst)) if worst else NotApplicable(f"no shot of {self.parts} frames")
