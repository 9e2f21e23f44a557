"""Loudness: how loud a clip is, to the ear (ITU-R BS.1770-4) and to a meter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from reelmill.curation.audio.k_weighting import BlockFilter
from reelmill.curation.audio.windows import Grid, WindowListener, Windows, window_energy
from reelmill.curation.stage import (
    AudioStage,
    Bound,
    Fact,
    Facts,
    NotApplicable,
    Tracks,
    at_least,
)
from reelmill.datasets.media.clock import sound_span
from reelmill.datasets.media.decode import DecodeSummary, MediaInfo
from reelmill.datasets.sample import Clip

WINDOW_MS = 100
BLOCK = 4  # windows: gating blocks of 400 ms that overlap by 75 %
ABSOLUTE_GATE = -70.0  # LUFS
RELATIVE_GATE = -10.0  # LU
FLOOR = -91.0  # dBFS: where FFmpeg's volumedetect ends, one step of 16 bit
# By number of channels in FFmpeg's default orders; LFE counts nothing, surrounds 1.41.
_SURROUND = {
    4: (1, 1, 1.41, 1.41),
    5: (1, 1, 1, 1.41, 1.41),
    6: (1, 1, 1, 0, 1.41, 1.41),
    7: (1, 1, 1, 0, 1.41, 1.41, 1.41),
    8: (1, 1, 1, 0, 1.41, 1.41, 1.41, 1.41),
}


def k_weighting(rate: int) -> np.ndarray:
    """float64 [2, 6], second-order sections of BS.1770's pre-filter at any rate.

    The standard prints coefficients for 48 kHz only; these come from the analogue prototypes behind
    them (as in libebur128 and FFmpeg) and agree with the printed ones at 48 kHz.
    """
    k = np.tan(np.pi * 1681.974450955533 / rate)
    q = 0.7071752369554196
    high = 10 ** (3.999843853973347 / 20)
    band = high**0.4996667741545416
    a0 = 1 + k / q + k * k
    shelf = [
        (high + band * k / q + k * k) / a0,
        2 * (k * k - high) / a0,
        (high - band * k / q + k * k) / a0,
        1,
        2 * (k * k - 1) / a0,
        (1 - k / q + k * k) / a0,
    ]
    k = np.tan(np.pi * 38.13547087602444 / rate)
    q = 0.5003270373238773
    a0 = 1 + k / q + k * k
    highpass = [1, -2, 1, 1, 2 * (k * k - 1) / a0, (1 - k / q + k * k) / a0]
    return np.array([shelf, highpass])


def channel_weights(channels: int) -> np.ndarray:
    """float64 [channels] of BS.1770-4, from the number of channels alone."""
    return np.array(_SURROUND.get(channels, (1,) * channels), np.float64)


def integrated(power: np.ndarray) -> float | None:
    """LUFS of consecutive 100 ms windows of K-weighted power; None where all is gated away."""
    if len(power) < BLOCK:
        return None
    blocks = np.convolve(power, np.full(BLOCK, 1 / BLOCK), "valid")
    blocks = blocks[blocks > 10 ** ((ABSOLUTE_GATE + 0.691) / 10)]
    if not len(blocks):
        return None
    blocks = blocks[blocks > blocks.mean() * 10 ** (RELATIVE_GATE / 10)]
    return float(-0.691 + 10 * np.log10(blocks.mean()))


def decibels(power: float) -> float:
    """dBFS of a mean square, at least FLOOR."""
    return max(FLOOR, float(10 * np.log10(max(power, 1e-30))))


class _Analyser(WindowListener):
    def __init__(self, info: MediaInfo):
        super().__init__(Grid(info.audio.rate, WINDOW_MS) if info.audio else None)
        self._weighted: list[np.ndarray] = []
        self._power: list[np.ndarray] = []
        self._peak: list[np.ndarray] = []
        if info.audio is not None:
            self._filter = BlockFilter(k_weighting(info.audio.rate), info.audio.channels)
            self._channels = channel_weights(info.audio.channels)

    def measure(self, windows: Windows) -> None:
        heard = window_energy(self._filter(windows.samples), windows.edges)
        self._weighted.append(self._channels @ heard / windows.lengths)
        self._power.append(windows.energy.mean(axis=0) / windows.lengths)
        self._peak.append(windows.peak)

    def finish(self, summary: DecodeSummary) -> dict[str, np.ndarray]:
        self.flush()
        return {
            "weighted": _joined(self._weighted),
            "power": _joined(self._power),
            "peak": _joined(self._peak),
            "samples": np.array([self.total], np.int64),
        }


def _joined(parts: list[np.ndarray]) -> np.ndarray:
    return np.concatenate(parts).astype(np.float32) if parts else np.zeros(0, np.float32)


@dataclass(frozen=True, kw_only=True)
class Loudness(AudioStage):
    """Integrated loudness, mean volume and peak of a clip's sound.

    Track: per 100 ms window the K-weighted power summed over channels, the plain mean square and
    the peak. Loudness is gated as BS.1770-4 says, over the windows that lie whole inside the clip.
    Mean volume and peak are those of FFmpeg's volumedetect, without its rounding to 16 bit;
    where the clip has a picture but its sound has ended, it counts as silent. Default: the paper's
    mean volume of at least -60 dB (section 3.4).
    """

    adds: ClassVar = (
        Fact("loudness", "LUFS", "Integrated loudness, BS.1770-4.", -70.0, 0.0),
        Fact("mean_volume", "dBFS", "Mean square over all channels.", FLOOR, 0.0),
        Fact("peak", "dBFS", "Largest sample of any channel.", FLOOR, 3.0),
    )
    paper: ClassVar = "section 3.4"
    min_volume: Bound = at_least(-60.0, "mean_volume", "silent")

    def open(self, info: MediaInfo) -> _Analyser:
        return _Analyser(info)

    def facts(self, tracks: Tracks, clip: Clip, info: MediaInfo) -> Facts:
        total = int(tracks["samples"][0])
        if info.audio is None or not total:
            return dict.fromkeys(("loudness", "mean_volume", "peak"), NotApplicable("no sound"))
        grid = Grid(info.audio.rate, WINDOW_MS)
        first, last = sound_span(clip, info)
        windows, shares = grid.shares(first, last, total)
        whole = shares == np.diff(grid.edges(windows.start, windows.stop))
        loudness = integrated(tracks["weighted"][windows][whole].astype(np.float64))
        energy = float(tracks["power"][windows].astype(np.float64) @ shares)
        peak = float(tracks["peak"][windows].max(initial=0))
        return {
            "loudness": NotApplicable(f"nothing of 400 ms above {ABSOLUTE_GATE:g} LUFS")
            if loudness is None
            else loudness,
            "mean_volume": decibels(energy / max(1, last - first)),
            "peak": decibels(peak * peak),
        }
