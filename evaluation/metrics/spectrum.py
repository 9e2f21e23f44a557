"""What the sound is made of: bandwidth, noise, width."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from reelmill.evaluation.clip import ClipMedia
from reelmill.evaluation.damage import Damage
from reelmill.evaluation.metric import AUDIBLE, SOUND, STEREO, Better, Metric, NotApplicable, Value
from reelmill.evaluation.taxonomy import Stream


@dataclass(frozen=True, kw_only=True)
class Bandwidth(Metric):
    """The highest frequency at which the sound still has something above its own floor.

    Of the long-term spectrum in steps of a hundred hertz: the last that lies within `depth_db` of
    the strongest and above `floor_dbfs`.
    """

    unit: ClassVar = "Hz"
    better: ClassVar = Better.HIGHER
    high: ClassVar = 400_000.0
    part: ClassVar = "signal_clarity"
    stream: ClassVar = Stream.AUDIO
    applies_to: ClassVar = (SOUND, AUDIBLE)
    claims: ClassVar = frozenset({Damage.BAND_LIMIT})
    depth_db: float = 75.0
    floor_dbfs: float = -105.0
    step_hz: float = 100.0

    def _value(self, clip: ClipMedia) -> Value:
        powers = clip.powers
        if not len(powers):
            return NotApplicable("shorter than a window")
        mean = powers.mean(axis=0)
        hz = np.arange(len(mean)) * clip.rate / 2 / (len(mean) - 1)
        starts = np.unique(np.searchsorted(hz, np.arange(0, clip.rate / 2, self.step_hz)))
        level = 10 * np.log10(np.maximum.reduceat(mean, starts) + 1e-15)
        loud = np.flatnonzero((level >= level.max() - self.depth_db) & (level >= self.floor_dbfs))
        if not len(loud):
            return NotApplicable(f"nothing above {self.floor_dbfs:g} dBFS")
        last = int(loud[-1])
        return float(hz[starts[last + 1]] if last + 1 < len(starts) else clip.rate / 2)


@dataclass(frozen=True, kw_only=True)
class SignalToNoise(Metric):
    """How far the sound stands above its own floor.

    The floor is, in each bin, the mean of the quietest tenth of the frames; the signal is what the
    loudest half has above it. Sound without pauses (music, rain) is read as its own floor, so
    compare clips of one prompt.
    """

    unit: ClassVar = "dB"
    better: ClassVar = Better.HIGHER
    low: ClassVar = -20.0
    high: ClassVar = 96.0
    part: ClassVar = "signal_clarity"
    stream: ClassVar = Stream.AUDIO
    applies_to: ClassVar = (SOUND, AUDIBLE)
    claims: ClassVar = frozenset({Damage.SOUND_NOISE})
    quiet: float = 0.1
    min_frames: int = 20

    def _value(self, clip: ClipMedia) -> Value:
        powers = clip.powers
        if len(powers) < self.min_frames:
            return NotApplicable(f"shorter than {self.min_frames} windows")
        order = np.argsort(powers.sum(axis=1))
        few = max(1, round(self.quiet * len(powers)))
        floor = float(powers[order[:few]].sum(axis=1).mean())
        loud = float(powers[order[len(order) // 2 :]].sum(axis=1).mean())
        return float(10 * np.log10(max(loud - floor, 1e-12) / max(floor, 1e-12)))


@dataclass(frozen=True, kw_only=True)
class StereoWidth(Metric):
    """Share of the energy that differs between left and right. Neither way is better.

    0: both channels are the same; 1: they cancel.
    """

    better: ClassVar = Better.NEITHER
    part: ClassVar = "spatial_soundstage"
    stream: ClassVar = Stream.AUDIO
    applies_to: ClassVar = (SOUND, AUDIBLE, STEREO)
    claims: ClassVar = frozenset({Damage.NARROWED})

    def _value(self, clip: ClipMedia) -> Value:
        left, right = clip.samples.astype(np.float64)
        middle, side = np.square(left + right).sum(), np.square(left - right).sum()
        return float(side / (middle + side))
