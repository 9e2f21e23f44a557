"""Bandwidth: up to which frequency there is sound, whatever the sample rate promises."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from reelmill.curation.audio.loudness import FLOOR
from reelmill.curation.audio.windows import Grid, WindowHeads, WindowListener, Windows
from reelmill.curation.stage import (
    AudioStage,
    Bound,
    Fact,
    Facts,
    NotApplicable,
    Tracks,
    above,
)
from reelmill.datasets.media.clock import sound_span
from reelmill.datasets.media.decode import DecodeSummary, MediaInfo
from reelmill.datasets.sample import Clip

WINDOW_MS = 128
FRAME_MS = 32  # of each window that is looked at
STEP_HZ = 250


class _Analyser(WindowListener):
    def __init__(self, info: MediaInfo):
        super().__init__(Grid(info.audio.rate, WINDOW_MS) if info.audio else None)
        self._power: list[np.ndarray] = []
        if info.audio is not None:
            from scipy.fft import prev_fast_len

            size = prev_fast_len(info.audio.rate * FRAME_MS // 1000, real=True)
            hann = np.blackman(size + 1)[:-1]
            scaled = (hann * np.sqrt(2 / np.square(hann).sum() / size)).astype(np.float32)
            self._heads = WindowHeads(scaled)
            steps = np.arange(0, info.audio.rate / 2, STEP_HZ)
            self._edges = np.ceil(steps * size / info.audio.rate).astype(np.int64)

    def measure(self, windows: Windows) -> None:
        from scipy.fft import rfft

        if not windows.whole:
            return
        samples, edges = windows.samples, windows.edges
        loudest = np.zeros((len(edges) - 1, len(self._heads.weights) // 2 + 1), np.float32)
        for channel in samples:
            spectrum = rfft(self._heads(channel, edges), overwrite_x=True)
            power = np.square(spectrum.real) + np.square(spectrum.imag)
            np.maximum(loudest, power, out=loudest)
        self._power.append(np.add.reduceat(loudest, self._edges, axis=1))

    def finish(self, summary: DecodeSummary) -> dict[str, np.ndarray]:
        self.flush()
        power = np.concatenate(self._power) if self._power else np.zeros((0, 1))
        level = 10 * np.log10(np.maximum(power, 1e-20))
        return {"level": level.astype(np.float16)}


@dataclass(frozen=True, kw_only=True)
class Bandwidth(AudioStage):
    """Highest frequency with sound in it, in steps of 250 Hz, and its share of what is possible.

    The level of a step is what its loudest twentieth of windows reaches (128 ms apart). A step
    holds sound when it is above `floor_db` of full scale and within `depth_db` of the loudest step:
    resamplers leave images deeper than that. So a telephone call stored at 48 kHz shows its 4 kHz.
    Quiet or dark sounds honestly end low, so the bound is off until a recipe sets it.
    """

    adds: ClassVar = (
        Fact("bandwidth", "Hz", "Highest frequency with sound in it.", 0.0, 24_000.0),
        Fact("bandwidth_used", "", "Bandwidth over half the sample rate."),
    )
    paper: ClassVar = "section 3.4"
    depth_db: float = 60.0
    floor_db: float = -105.0
    min_bandwidth: Bound = above(None, "bandwidth", "narrow_band")

    def open(self, info: MediaInfo) -> _Analyser:
        return _Analyser(info)

    def facts(self, tracks: Tracks, clip: Clip, info: MediaInfo) -> Facts:
        names = ("bandwidth", "bandwidth_used")
        if info.audio is None or not len(tracks["level"]):
            none = "no sound" if info.audio is None else f"shorter than {WINDOW_MS} ms"
            return dict.fromkeys(names, NotApplicable(none))
        grid = Grid(info.audio.rate, WINDOW_MS)
        total = int(grid.edges(0, len(tracks["level"]))[-1])
        windows, _ = grid.shares(*sound_span(clip, info), total)
        levels = tracks["level"][windows].astype(np.float64)
        if not len(levels):
            return dict.fromkeys(names, NotApplicable("no sound inside the clip"))
        level = np.quantile(levels, 0.95, axis=0)
        if level.max() < FLOOR:
            return dict.fromkeys(names, NotApplicable("silent"))
        heard = np.flatnonzero(level >= max(self.floor_db, level.max() - self.depth_db))
        half = info.audio.rate / 2
        top = min(half, float((heard[-1] + 1) * STEP_HZ))
        return {"bandwidth": top, "bandwidth_used": top / half}
