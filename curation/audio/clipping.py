"""Clipping: how much of the sound has lost its peaks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from reelmill.curation.audio.windows import Grid, WindowListener, Windows, even_length
from reelmill.curation.stage import (
    AudioStage,
    Bound,
    Fact,
    Facts,
    NotApplicable,
    Tracks,
    at_most,
)
from reelmill.datasets.media.clock import sound_span
from reelmill.datasets.media.decode import DecodeSummary, MediaInfo
from reelmill.datasets.sample import Clip

WINDOW_MS = 100
STEP = 1 / 32768  # of 16 bit
# (largest value, coarsest step near it) of codecs coarser than 16 bit.
_COARSE = {
    "pcm_u8": (127 / 128, 1 / 128),
    "pcm_s8": (127 / 128, 1 / 128),
    "pcm_mulaw": (32124 / 32768, 1024 / 32768),
    "pcm_alaw": (32256 / 32768, 1024 / 32768),
}
_SHORTEST = 3  # samples in a run
_FLAT = 1.5 * STEP
_FLOOR = 0.01  # quieter plateaus are not looked at


def clipped_samples(samples: np.ndarray, edges: np.ndarray, full: float, drop: float) -> np.ndarray:
    """int64 [windows]: samples of one channel that stand on plateaus at the top of their window.

    samples: float32 [n]; edges: int64 [windows + 1]. A plateau is a run of at least 3 equal
    samples (to 1.5 steps of 16 bit) at the window's highest or lowest value, whose neighbour on one
    side at least lies `drop` or more inside: a smooth peak that is sampled finely is flat too, but
    leaves its top slowly. What is above `full` is taken for `full`, as by any player.
    """
    counts = np.zeros(len(edges) - 1, np.int64)
    wave = np.clip(samples, -full, full)
    flat = np.abs(np.diff(wave)) <= _FLAT
    flat &= np.abs(wave[1:]) >= _FLOOR
    flat[edges[1:-1] - 1] = False  # runs end with their window
    change = np.diff(np.concatenate(([0], flat.view(np.int8), [0])))
    starts, ends = np.flatnonzero(change == 1), np.flatnonzero(change == -1) + 1
    long = ends - starts >= _SHORTEST
    starts, ends = starts[long], ends[long]
    if not len(starts):
        return counts
    window = np.searchsorted(edges, starts, "right") - 1
    level = np.abs(wave[starts])
    sign = np.sign(wave[starts])
    highest = np.maximum.reduceat(wave, edges[:-1])[window]
    lowest = np.minimum.reduceat(wave, edges[:-1])[window]
    at_top = level >= np.where(sign > 0, highest, -lowest) - _FLAT
    before = level - sign * wave[np.maximum(starts - 1, 0)]
    after = level - sign * wave[np.minimum(ends, len(wave) - 1)]
    steep = np.maximum(before, after) >= drop
    inward = np.minimum(before, after) >= -_FLAT
    found = at_top & steep & inward
    np.add.at(counts, window[found], (ends - starts)[found])
    return counts


def suspects(windows: Windows, channel: int, full: float) -> list[tuple[int, int]]:
    """Runs [first, last) of windows of one channel that may hold a plateau, and their neighbours.

    The first three samples of a plateau lie within 3 times _FLAT of the window's top, and within
    _FLAT of each other.
    """
    length = even_length(windows.edges)
    if not length:
        return [(0, len(windows.lengths))]
    samples = windows.samples[channel]
    rows = samples.reshape(-1, length)
    many = np.zeros(len(rows), bool)
    tops = (windows.highest[channel], np.greater_equal), (windows.lowest[channel], np.less_equal)
    for top, past in tops:
        level = np.minimum(np.abs(top), full) - 4 * _FLAT
        level[np.abs(top) < _FLOOR] = np.inf
        near = past(rows, np.copysign(level, top)[:, None]).ravel()
        three = near[:-2] & near[1:-1]
        three &= near[2:]
        first = np.flatnonzero(three)
        start = np.clip(samples[first[:, None] + np.arange(3)], -full, full)
        flat = (np.abs(np.diff(start, axis=1)) <= _FLAT).all(axis=1)
        many[first[flat] // length] = True
    many[:-1] |= many[1:].copy()  # their neighbours tell how a plateau on a border goes on
    many[1:] |= many[:-1].copy()
    change = np.flatnonzero(np.diff(np.concatenate(([0], many.view(np.int8), [0]))))
    return [(int(low), int(high)) for low, high in change.reshape(-1, 2)]


class _Analyser(WindowListener):
    def __init__(self, info: MediaInfo):
        super().__init__(Grid(info.audio.rate, WINDOW_MS) if info.audio else None)
        self._shares: list[np.ndarray] = []
        if info.audio is not None:
            self._full, step = _COARSE.get(info.audio.codec, (1 - STEP, STEP))
            self._drop = max(12 * STEP, 5 * step)

    def measure(self, windows: Windows) -> None:
        edges = windows.edges
        counts = np.zeros(len(edges) - 1, np.int64)
        for number, channel in enumerate(windows.samples):
            for low, high in suspects(windows, number, self._full):
                first, last = edges[low], edges[high]
                inner = edges[low : high + 1] - first
                counts[low:high] += clipped_samples(
                    channel[first:last], inner, self._full, self._drop
                )
        self._shares.append(counts / (windows.lengths * len(windows.samples)))

    def finish(self, summary: DecodeSummary) -> dict[str, np.ndarray]:
        self.flush()
        shares = np.concatenate(self._shares) if self._shares else np.zeros(0)
        return {
            "clipped": shares.astype(np.float32),
            "samples": np.array([self.total], np.int64),
        }


@dataclass(frozen=True, kw_only=True)
class Clipping(AudioStage):
    """Share of samples, over all channels, that stand on clipped plateaus.

    Plateaus are found at full scale and below it (clipped first, turned down later). Lossy coding
    ripples them: there only what still reaches full scale is seen. The paper asks for a clipping
    ratio (section 3.4) and gives no number; the default of 1 % is ours: speech clipped more than
    that is audibly harsh, and mastered music stays below.
    """

    adds: ClassVar = (
        Fact("clipping_ratio", "", "Share of samples on clipped plateaus.", 1e-5, 1.0, log=True),
    )
    paper: ClassVar = "section 3.4"
    max_clipping_ratio: Bound = at_most(0.01, "clipping_ratio", "clipped")

    def open(self, info: MediaInfo) -> _Analyser:
        return _Analyser(info)

    def facts(self, tracks: Tracks, clip: Clip, info: MediaInfo) -> Facts:
        total = int(tracks["samples"][0])
        if info.audio is None or not total:
            return {"clipping_ratio": NotApplicable("no sound")}
        first, last = sound_span(clip, info)
        windows, shares = Grid(info.audio.rate, WINDOW_MS).shares(first, last, total)
        if not len(shares):
            return {"clipping_ratio": NotApplicable("no sound inside the clip")}
        clipped = tracks["clipped"][windows].astype(np.float64) @ shares
        return {"clipping_ratio": float(clipped / shares.sum())}
