"""How loud: BS.1770 loudness, its spread, true peak, clipping, silence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from scipy.signal import bilinear, resample_poly, sosfilt, tf2sos

from reelmill.evaluation.clip import ClipMedia
from reelmill.evaluation.damage import Damage
from reelmill.evaluation.metric import AUDIBLE, SOUND, Better, Metric, NotApplicable, Value
from reelmill.evaluation.taxonomy import Stream

ABSOLUTE_GATE = -70.0  # LUFS
RELATIVE_GATE = -10.0  # LU
HOP_S = 0.1
BLOCK = 4  # hops: 400 ms
# Analogue prototypes of BS.1770's two filters; at 48 kHz they give the printed coefficients.
_SHELF_HZ, _SHELF_Q, _SHELF_DB = 1681.974450955533, 0.7071752369554196, 3.999843853973347
_HIGH_HZ, _HIGH_Q = 38.13547087602444, 0.5003270373238773


def k_weighting(rate: int) -> np.ndarray:
    """float64 [2, 6], second-order sections at any rate of at least 8 kHz."""
    gain = 10 ** (_SHELF_DB / 20)
    w = 2 * rate * np.tan(np.pi * _SHELF_HZ / rate)
    band = gain**0.4996667741545416
    shelf = bilinear([gain, band * w / _SHELF_Q, w * w], [1, w / _SHELF_Q, w * w], rate)
    w = 2 * rate * np.tan(np.pi * _HIGH_HZ / rate)
    _, a = bilinear([1, 0, 0], [1, w / _HIGH_Q, w * w], rate)
    high = ([1.0, -2.0, 1.0], a)  # the standard prints this section without its gain
    return np.concatenate([tf2sos(*shelf), tf2sos(*high)])


def momentary(clip: ClipMedia) -> np.ndarray:
    """float64 power of the gating blocks: 400 ms each, one every 100 ms."""
    heard = sosfilt(k_weighting(clip.rate), clip.samples.astype(np.float64), axis=1)
    hop = round(HOP_S * clip.rate)
    whole = heard.shape[1] // hop
    if whole < BLOCK:
        return np.zeros(0)
    weights = _weights(len(heard))
    power = np.square(heard[:, : whole * hop]).reshape(len(heard), whole, hop).mean(axis=2)
    return np.convolve(weights @ power, np.full(BLOCK, 1 / BLOCK), "valid")


def _weights(channels: int) -> np.ndarray:
    """By number of channels in FFmpeg's default orders; LFE counts nothing, surrounds 1.41."""
    if channels == 6:
        return np.array([1, 1, 1, 0, 1.41, 1.41])
    if channels == 5:
        return np.array([1, 1, 1, 1.41, 1.41])
    return np.ones(channels)


def gated(power: np.ndarray) -> np.ndarray:
    """Blocks above -70 LUFS and above 10 LU below their mean."""
    power = power[power > 10 ** ((ABSOLUTE_GATE + 0.691) / 10)]
    return power[power > power.mean() * 10 ** (RELATIVE_GATE / 10)] if len(power) else power


@dataclass(frozen=True, kw_only=True)
class Loudness(Metric):
    """Integrated loudness, ITU-R BS.1770-4. Neither way is better."""

    unit: ClassVar = "LUFS"
    better: ClassVar = Better.NEITHER
    low: ClassVar = -70.0
    high: ClassVar = 10.0
    part: ClassVar = "dynamic_range"
    stream: ClassVar = Stream.AUDIO
    applies_to: ClassVar = (SOUND, AUDIBLE)

    def _value(self, clip: ClipMedia) -> Value:
        blocks = gated(momentary(clip))
        if not len(blocks):
            return NotApplicable("no 400 ms above -70 LUFS")
        return float(-0.691 + 10 * np.log10(blocks.mean()))


@dataclass(frozen=True, kw_only=True)
class LoudnessSpread(Metric):
    """From the quiet to the loud: 10th to 95th percentile of momentary loudness above -70 LUFS.

    As EBU Tech 3342, but over 400 ms: its 3 s need a minute of sound. Neither way is better.
    """

    unit: ClassVar = "LU"
    better: ClassVar = Better.NEITHER
    high: ClassVar = 80.0
    part: ClassVar = "dynamic_range"
    stream: ClassVar = Stream.AUDIO
    applies_to: ClassVar = (SOUND, AUDIBLE)
    min_blocks: int = 10

    def _value(self, clip: ClipMedia) -> Value:
        power = momentary(clip)
        loud = power[power > 10 ** ((ABSOLUTE_GATE + 0.691) / 10)]
        if len(loud) < self.min_blocks:
            return NotApplicable(f"{len(loud)} blocks above -70 LUFS")
        low, high = np.percentile(10 * np.log10(loud), [10, 95])
        return float(high - low)


@dataclass(frozen=True, kw_only=True)
class TruePeak(Metric):
    """Highest level between samples, by four times oversampling (BS.1770-4, annex 2)."""

    unit: ClassVar = "dBTP"
    better: ClassVar = Better.LOWER
    low: ClassVar = -100.0
    high: ClassVar = 40.0
    part: ClassVar = "absence_of_artifacts"
    stream: ClassVar = Stream.AUDIO
    applies_to: ClassVar = (SOUND, AUDIBLE)

    def _value(self, clip: ClipMedia) -> Value:
        peak = max(float(np.abs(resample_poly(c, 4, 1)).max()) for c in clip.samples)
        peak = max(peak, float(np.abs(clip.samples).max()))
        return float(20 * np.log10(max(peak, 1e-5)))


@dataclass(frozen=True, kw_only=True)
class Clipping(Metric):
    """Share of samples at full scale, in runs of at least two.

    Lossy coding ripples a clipped peak, so `level` lies a little below full scale. A tone that
    only touches full scale reads as clipped too; sound clipped and then turned down is not seen.
    """

    better: ClassVar = Better.LOWER
    part: ClassVar = "absence_of_artifacts"
    stream: ClassVar = Stream.AUDIO
    applies_to: ClassVar = (SOUND,)
    claims: ClassVar = frozenset({Damage.CLIPPING})
    level: float = 0.985

    def _value(self, clip: ClipMedia) -> Value:
        full = np.abs(clip.samples) >= self.level
        pairs = full[:, 1:] & full[:, :-1]
        inside = np.zeros_like(full)
        inside[:, 1:] |= pairs
        inside[:, :-1] |= pairs
        return float(inside.mean())


@dataclass(frozen=True, kw_only=True)
class Silence(Metric):
    """Share of windows of 50 ms below -60 dBFS (the paper's silence ratio, section 3.4)."""

    better: ClassVar = Better.LOWER
    part: ClassVar = "absence_of_artifacts"
    stream: ClassVar = Stream.AUDIO
    applies_to: ClassVar = (SOUND,)
    claims: ClassVar = frozenset({Damage.DROPOUTS})
    window_s: float = 0.05
    floor_dbfs: float = -60.0

    def _value(self, clip: ClipMedia) -> Value:
        size = round(self.window_s * clip.rate)
        whole = clip.samples.shape[1] // size
        windows = clip.samples[:, : whole * size].reshape(len(clip.samples), whole, size)
        power = np.square(windows, dtype=np.float64).mean(axis=(0, 2))
        return float((power < 10 ** (self.floor_dbfs / 10)).mean())
