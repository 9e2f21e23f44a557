"""Against the truth of the demo's corpus: is what was asked for seen, and heard when it must be?

For prompts of `corpus_bench.py`. Nothing here was trained, and nothing is shared with the model.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar

import cv2
import numpy as np

from reelmill.datasets.corpus.scene import BACKGROUNDS, COLOURS, SHAPES
from reelmill.datasets.media.onsets import onset_envelope, planted_envelope
from reelmill.evaluation.clip import ClipMedia
from reelmill.evaluation.metric import (
    MOTION,
    SOUND,
    Better,
    Condition,
    Metric,
    NotApplicable,
    Value,
)
from reelmill.evaluation.taxonomy import Stream

NAMED = re.compile(rf"\b({'|'.join(COLOURS)}) ({'|'.join(SHAPES)})\b")
GROUND = re.compile(rf"on an? ({'|'.join(BACKGROUNDS)}) background$")
SCENE = Condition(
    "a caption of the corpus, whose picture is not given",
    lambda clip: (
        clip.prompt is not None
        and clip.prompt.scene_known
        and not clip.prompt.video
        and NAMED.search(clip.prompt.text) is not None
    ),
)
EVENTS = Condition(
    "a prompt whose onsets are known",
    lambda clip: clip.prompt is not None and bool(clip.prompt.onsets),
)
NEAR = 0.55  # share of a colour's own chroma by which a pixel may miss it
LEAST, MOST = 0.004, 0.6  # share of the picture that a thing takes
FILLED = {"circle": np.pi / 4, "square": 1.0, "triangle": 0.5}  # of its own box


def _chroma(rgb: tuple[int, int, int]) -> np.ndarray:
    lab = cv2.cvtColor(np.array([[rgb]], np.float32) / 255, cv2.COLOR_RGB2LAB)
    return lab[0, 0, 1:]


CHROMA = {name: _chroma(rgb) for name, rgb in COLOURS.items()}


def masks(still: np.ndarray) -> dict[str, np.ndarray]:
    """Where each of the corpus' colours is, of uint8 BGR [h, w, 3]; the nearest colour counts."""
    ab = cv2.cvtColor(still.astype(np.float32) / 255, cv2.COLOR_BGR2LAB)[..., 1:]
    names = list(CHROMA)
    away = np.stack(
        [np.linalg.norm(ab - CHROMA[n], axis=-1) / np.linalg.norm(CHROMA[n]) for n in names]
    )
    nearest, least = away.argmin(axis=0), away.min(axis=0)
    return {name: (nearest == i) & (least < NEAR) for i, name in enumerate(names)}


def largest(mask: np.ndarray) -> np.ndarray | None:
    """The largest connected part, cut to its box; None where it is too small or too large."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
    if count < 2:
        return None
    best = 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax())
    x, y, w, h, area = stats[best]
    if not LEAST * mask.size <= area <= MOST * mask.size:
        return None
    return labels[y : y + h, x : x + w] == best


def form(part: np.ndarray) -> str:
    """Circle, square or triangle, by how much of its box a thing fills."""
    filled = float(part.mean())
    return min(FILLED, key=lambda name: abs(FILLED[name] - filled))


@dataclass(frozen=True, kw_only=True)
class ColourHit(Metric):
    """Are things of the colours asked for there, and of no other? F1, mean over the stills."""

    better: ClassVar = Better.HIGHER
    part: ClassVar = "subject_description"
    stream: ClassVar = Stream.VIDEO
    applies_to: ClassVar = (MOTION, SCENE)
    truth: ClassVar = True

    def _value(self, clip: ClipMedia) -> Value:
        asked = {colour for colour, _ in _named(clip)}
        found = []
        for still in clip.stills:
            seen = {c for c, mask in masks(still).items() if largest(mask) is not None}
            found.append(2 * len(asked & seen) / (len(asked) + len(seen)))
        return float(np.mean(found))


@dataclass(frozen=True, kw_only=True)
class ShapeHit(Metric):
    """Share of the things asked for, over the stills, that are there in their colour and form."""

    better: ClassVar = Better.HIGHER
    part: ClassVar = "subject_description"
    stream: ClassVar = Stream.VIDEO
    applies_to: ClassVar = (MOTION, SCENE)
    truth: ClassVar = True

    def _value(self, clip: ClipMedia) -> Value:
        hits = []
        for still in clip.stills:
            where = masks(still)
            for colour, shape in _named(clip):
                part = largest(where[colour])
                hits.append(part is not None and form(part) == shape)
        return float(np.mean(hits))


@dataclass(frozen=True, kw_only=True)
class GroundHit(Metric):
    """Share of the stills whose ground is nearest to the tint asked for, of the six there are."""

    better: ClassVar = Better.HIGHER
    part: ClassVar = "style_aesthetics"
    stream: ClassVar = Stream.VIDEO
    applies_to: ClassVar = (MOTION, SCENE)
    truth: ClassVar = True

    def _value(self, clip: ClipMedia) -> Value:
        assert clip.prompt is not None
        asked = GROUND.search(clip.prompt.text)
        if asked is None:
            return NotApplicable("the prompt names no ground")
        tints = np.array(list(BACKGROUNDS.values()), np.float64)
        hits = []
        for still in clip.stills:
            things = np.any(list(masks(still).values()), axis=0)
            ground = still[~things] if not things.all() else still.reshape(-1, 3)
            tint = np.median(ground, axis=0)[::-1]
            nearest = int(np.linalg.norm(tints - tint, axis=1).argmin())
            hits.append(list(BACKGROUNDS)[nearest] == asked[1])
        return float(np.mean(hits))


@dataclass(frozen=True, kw_only=True)
class OnsetAgreement(Metric):
    """Does sound begin when it must? Correlation of its onsets with those that are known.

    1 is perfect, 0 is chance. Both are smoothed by 45 ms, what a viewer does not notice.
    """

    better: ClassVar = Better.HIGHER
    low: ClassVar = -1.0
    part: ClassVar = "effect_alignment"
    stream: ClassVar = Stream.BOTH
    applies_to: ClassVar = (SOUND, EVENTS)
    truth: ClassVar = True

    def _value(self, clip: ClipMedia) -> Value:
        assert clip.prompt is not None
        assert clip.prompt.onsets is not None
        heard = onset_envelope(clip.samples, clip.rate)
        times = [t - clip.sound_start for t in clip.prompt.onsets]
        asked = planted_envelope(times, clip.samples.shape[1] / clip.rate)[: len(heard)]
        heard = heard[: len(asked)]
        if len(asked) < 10 or asked.std() < 1e-9:
            return NotApplicable("no onset falls within the clip")
        if heard.std() < 1e-9:
            return 0.0
        return float(np.corrcoef(heard, asked)[0, 1])


def _named(clip: ClipMedia) -> list[tuple[str, str]]:
    assert clip.prompt is not None
    return NAMED.findall(clip.prompt.text)


def against_truth() -> tuple[Metric, ...]:
    """One of each, at its defaults."""
    return OnsetAgreement(), ColourHit(), ShapeHit(), GroundHit()
