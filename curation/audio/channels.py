"""Channels: what each of them adds, and whether they stand against each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from reelmill.curation.audio.loudness import FLOOR
from reelmill.curation.audio.windows import (
    Grid,
    WindowListener,
    Windows,
    window_products,
    window_sums,
)
from reelmill.curation.stage import (
    AudioStage,
    Bound,
    Fact,
    Facts,
    NotApplicable,
    Tracks,
    at_least,
    at_most,
)
from reelmill.datasets.media.clock import sound_span
from reelmill.datasets.media.decode import DecodeSummary, MediaInfo
from reelmill.datasets.sample import Clip

WINDOW_MS = 100
_NAMES = ("channel_correlation", "side_level", "dc_offset")


class _Analyser(WindowListener):
    def __init__(self, info: MediaInfo):
        super().__init__(Grid(info.audio.rate, WINDOW_MS) if info.audio else None)
        self._rows: list[np.ndarray] = []

    def measure(self, windows: Windows) -> None:
        samples, edges, energy = windows.samples, windows.edges, windows.energy
        left = window_sums(samples[0], edges)
        if len(samples) == 1:
            sums = [left, left, *energy[[0, 0, 0]], np.zeros_like(left)]
        else:
            side = samples[0] - samples[1]
            both = window_products(samples[0], samples[1], edges)
            apart = window_products(side, side, edges)
            sums = [left, window_sums(samples[1], edges), *energy[:2], both, apart]
        self._rows.append(np.stack(sums, axis=1) / windows.lengths[:, None])

    def finish(self, summary: DecodeSummary) -> dict[str, np.ndarray]:
        self.flush()
        rows = np.concatenate(self._rows) if self._rows else np.zeros((0, 6))
        return {
            "moments": rows.astype(np.float32),
            "samples": np.array([self.total], np.int64),
        }


@dataclass(frozen=True, kw_only=True)
class Channels(AudioStage):
    """How the first two channels relate, and how far the wave sits off its zero line.

    Correlation 1: one sound in both (dual mono where the side level is -91 dB too); below 0 one
    channel is inverted, and they cancel when heard as mono; 0 with one silent. Side level: the
    difference of the channels over their mean power. DC offset: the mean of a channel, the larger
    of both. Track: means, powers and products per 100 ms, so a clip costs no decode.

    Bounds: channels that cancel to less than a tenth of their power when summed (correlation below
    -0.8), and a DC offset above 2 % of full scale. The numbers are ours.
    """

    adds: ClassVar = (
        Fact("channel_correlation", "", "Of left and right, without their means.", -1.0, 1.0),
        Fact("side_level", "dB", "Difference of the channels over their power.", FLOOR, 6.0),
        Fact("dc_offset", "", "Largest mean of a channel, of full scale.", 1e-5, 1.0, log=True),
    )
    paper: ClassVar = "section 3.4"
    min_correlation: Bound = at_least(-0.8, "channel_correlation", "channels_cancel")
    max_dc_offset: Bound = at_most(0.02, "dc_offset", "dc_offset")

    def open(self, info: MediaInfo) -> _Analyser:
        return _Analyser(info)

    def facts(self, tracks: Tracks, clip: Clip, info: MediaInfo) -> Facts:
        total = int(tracks["samples"][0])
        if info.audio is None or not total:
            return dict.fromkeys(_NAMES, NotApplicable("no sound"))
        first, last = sound_span(clip, info)
        windows, shares = Grid(info.audio.rate, WINDOW_MS).shares(first, last, total)
        if not len(shares):
            return dict.fromkeys(_NAMES, NotApplicable("no sound inside the clip"))
        moments = shares @ tracks["moments"][windows].astype(np.float64) / shares.sum()
        left, right, left2, right2, both, side = moments
        facts: dict[str, float | NotApplicable] = {"dc_offset": float(max(abs(left), abs(right)))}
        if info.audio.channels < 2:
            return facts | dict.fromkeys(_NAMES[:2], NotApplicable("one channel"))
        power = (left2 + right2) / 2
        if power <= 10 ** (FLOOR / 10):
            return facts | dict.fromkeys(_NAMES[:2], NotApplicable("silent"))
        spread = np.sqrt(max(left2 - left**2, 0) * max(right2 - right**2, 0))
        alike = (both - left * right) / spread if spread > 1e-6 * power else 0.0
        facts["channel_correlation"] = float(np.clip(alike, -1, 1))
        facts["side_level"] = max(FLOOR, float(10 * np.log10(max(side, 1e-30) / power)))
        return facts
