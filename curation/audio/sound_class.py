"""SoundClass: speech, singing, music or effects."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from reelmill.curation.models.yamnet import RATE, YAMNet
from reelmill.curation.stage import (
    AUDIBLE,
    ClipMedia,
    ClipStage,
    Fact,
    Facts,
    NotApplicable,
    NotMeasured,
    NoValue,
    Resources,
    WeightsStore,
)

CLASSES = ("speech", "singing", "music", "effects")
_SCORES = tuple(f"{name}_score" for name in CLASSES)
_NAMES = ("sound_class", *_SCORES, "noise_score")
# AudioSet's classes by their numbers in YAMNet's class map.
_SPEECH = (*range(13),)  # Speech ... Whispering
_SINGING = (*range(24, 33), 249, 250)  # Singing ... Humming; Vocal music, A capella
_MUSIC = tuple(i for i in range(132, 277) if i not in _SINGING)  # Music ... Scary music
_SILENCE = 494
_NOISE = (507, 509, 510, 514, 515)  # Noise, Static, Mains hum, White noise, Pink noise
_ROOMS = (*range(500, 506),)  # Inside, outside, echo: where, not what


def class_scores(probability: np.ndarray) -> np.ndarray | None:
    """float64 [4] of CLASSES from YAMNet's float32 [windows, 521]; None where all is silent.

    Of each window the likeliest event of each class; their mean over windows that are not silent.
    """
    heard = _heard(probability)
    if not len(heard):
        return None
    named = {*_SPEECH, *_SINGING, *_MUSIC, _SILENCE, *_ROOMS}
    others = [i for i in range(probability.shape[1]) if i not in named]
    groups = (_SPEECH, _SINGING, _MUSIC, others)
    return np.array([heard[:, list(group)].max(axis=1).mean() for group in groups])


def noise_score(probability: np.ndarray) -> float:
    """Of each window that is not silent the likeliest kind of bare noise or hum, their mean."""
    heard = _heard(probability)
    return float(heard[:, list(_NOISE)].max(axis=1).mean()) if len(heard) else 0.0


def _heard(probability: np.ndarray) -> np.ndarray:
    return probability[probability[:, _SILENCE] < 0.5].astype(np.float64)


@dataclass(frozen=True, kw_only=True)
class SoundClass(ClipStage):
    """What a clip's sound mostly is, by YAMNet (AudioSet), as the paper's four classes.

    The likeliest class, with two exceptions: singing seldom leads, since AudioSet's singers are
    also music, so `singing_share` of the leading score is enough; and single effects are many and
    each unsure, so `effects_share` of it is. The paper asks a language model (Qwen3-Omni, section
    3.4); this is a small network, and the shares are ours. All four scores are kept.
    """

    kinds: ClassVar = AUDIBLE
    needs: ClassVar = ("mean_volume",)
    adds: ClassVar = (
        Fact("sound_class", "", "speech, singing, music or effects.", dtype=str),
        *(
            Fact(score, "", f"Mean score of the likeliest kind of {name}.")
            for score, name in zip(_SCORES, CLASSES, strict=True)
        ),
        Fact("noise_score", "", "Mean score of the likeliest kind of bare noise or hum."),
    )
    paper: ClassVar = "section 3.4, four classes"
    resources: ClassVar = Resources(memory_gb=1.0, weights=("yamnet",))
    singing_share: float = 0.4
    effects_share: float = 0.8

    @contextmanager
    def session(
        self, weights: WeightsStore
    ) -> Iterator[Callable[[Sequence[ClipMedia]], list[Facts]]]:
        folder = weights.path("yamnet")
        model = None if folder is None else YAMNet(folder)
        yield lambda clips: [self._facts(clip, model) for clip in clips]

    def _facts(self, media: ClipMedia, model: YAMNet | None) -> Facts:
        volume = media.facts["mean_volume"]
        if isinstance(volume, NoValue):
            return dict.fromkeys(_NAMES, volume)
        if model is None:
            return dict.fromkeys(_NAMES, NotMeasured("weights 'yamnet' absent"))
        sound = media.audio(RATE)
        probability = model(sound) if len(sound) else None
        scores = None if probability is None else class_scores(probability)
        if probability is None or scores is None:
            return dict.fromkeys(_NAMES, NotApplicable("silent"))
        noise = noise_score(probability)
        named = dict(zip(_SCORES, map(float, scores), strict=True))
        return {"sound_class": self.decide(scores), **named, "noise_score": noise}

    def decide(self, scores: np.ndarray) -> str:
        """One of CLASSES, from float64 [4] in their order."""
        _, singing, _, effects = scores
        most = float(scores.max())
        if singing >= self.singing_share * most and most > 0:
            return "singing"
        if effects >= self.effects_share * most:
            return "effects"
        return CLASSES[int(scores.argmax())]
