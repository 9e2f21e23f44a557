"""The metrics that need no weights, in the order of the taxonomy."""

from __future__ import annotations

from reelmill.evaluation.bench import Bench
from reelmill.evaluation.metric import Metric
from reelmill.evaluation.metrics.loudness import (
    Clipping,
    Loudness,
    LoudnessSpread,
    Silence,
    TruePeak,
)
from reelmill.evaluation.metrics.motion import (
    DuplicateFrames,
    Flicker,
    Jerk,
    MotionDegree,
    WarpingError,
)
from reelmill.evaluation.metrics.picture import ColourDrift, Colourfulness, Exposure, Sharpness
from reelmill.evaluation.metrics.planted import against_truth
from reelmill.evaluation.metrics.shots import CutTiming, ShotCount
from reelmill.evaluation.metrics.spectrum import Bandwidth, SignalToNoise, StereoWidth
from reelmill.evaluation.metrics.sync import AVAlign, OnsetClarity, OnsetLag
from reelmill.evaluation.metrics.words import CharacterErrorRate, TextHit, WordErrorRate


def weight_free() -> tuple[Metric, ...]:
    """One of each, at its defaults."""
    return (
        TextHit(),
        ShotCount(),
        CutTiming(),
        WordErrorRate(),
        CharacterErrorRate(),
        AVAlign(),
        OnsetLag(),
        OnsetClarity(),
        Sharpness(),
        Exposure(),
        Colourfulness(),
        ColourDrift(),
        Jerk(),
        DuplicateFrames(),
        Flicker(),
        WarpingError(),
        MotionDegree(),
        Clipping(),
        TruePeak(),
        Silence(),
        Bandwidth(),
        SignalToNoise(),
        StereoWidth(),
        Loudness(),
        LoudnessSpread(),
    )


def suite_for(bench: Bench) -> tuple[Metric, ...]:
    """Those, and before them what needs a bench of which all is known."""
    known = any(prompt.scene_known for prompt in bench.prompts)
    return (*against_truth(), *weight_free()) if known else weight_free()
