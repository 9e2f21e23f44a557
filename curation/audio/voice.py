"""Voice: where somebody speaks, and where nothing at all is heard."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from reelmill.curation.audio.windows import Grid, WindowCutter
from reelmill.curation.models.silero import RATE, SpeechProbability, speech_spans
from reelmill.curation.stage import (
    AudioStage,
    Bound,
    Fact,
    Facts,
    NotApplicable,
    Resources,
    Tracks,
    below,
)
from reelmill.datasets.media.clock import sound_span
from reelmill.datasets.media.decode import AudioBlock, DecodeSummary, MediaInfo
from reelmill.datasets.sample import Clip

WINDOW_MS = 32


class _Analyser:
    def __init__(self, info: MediaInfo, threshold: float):
        self._threshold = threshold
        self._speech = SpeechProbability()
        self._power: list[np.ndarray] = []
        self._cutter = WindowCutter(Grid(info.audio.rate, WINDOW_MS)) if info.audio else None

    def block(self, block: AudioBlock) -> None:
        assert self._cutter is not None
        self._speech.push(block.mono16k)
        for samples, edges in self._cutter.push(block.samples):
            self._measure(samples, edges)

    def _measure(self, samples: np.ndarray, edges: np.ndarray) -> None:
        power = np.square(samples, dtype=np.float64).mean(axis=0)
        self._power.append(np.add.reduceat(power, edges[:-1]) / np.diff(edges))

    def finish(self, summary: DecodeSummary) -> dict[str, np.ndarray]:
        if self._cutter is not None:
            for samples, edges in self._cutter.flush():
                self._measure(samples, edges)
        probability = self._speech.finish()
        power = np.concatenate(self._power) if self._power else np.zeros(0)
        return {
            "probability": probability,
            "speech": speech_spans(probability, self._speech.samples, threshold=self._threshold),
            "power": power.astype(np.float32),
            "samples": np.array([self._cutter.total if self._cutter else 0], np.int64),
        }


@dataclass(frozen=True, kw_only=True)
class Voice(AudioStage):
    """Shares of a clip's time with speech, and with silence.

    Speech: the spans of silero-vad at its own defaults. Silence: windows of 32 ms outside every
    span of speech whose level is below `silence_dbfs` (mean square over all channels), and the
    time of the clip before its sound begins or after it ends. So music and effects are not silence,
    and a quiet word is not either. -60 dBFS is the default of FFmpeg's silencedetect and the
    paper's floor for mean volume.

    Tracks: speech probability per 512 samples of 16 kHz, speech spans in samples of 16 kHz, mean
    square per 32 ms. The paper keeps silence ratios below 0.2 for audio (section 3.4); for video it
    says nothing, so the bound is off until a recipe sets it.
    """

    adds: ClassVar = (
        Fact("speech_ratio", "", "Share of the clip's time with speech."),
        Fact("silence_ratio", "", "Share of the clip's time with neither speech nor sound."),
    )
    paper: ClassVar = "section 3.4"
    resources: ClassVar = Resources(weights=("silero_vad",))
    speech_threshold: float = 0.5
    silence_dbfs: float = -60.0
    max_silence_ratio: Bound = below(None, "silence_ratio", "mostly_silent")

    def open(self, info: MediaInfo) -> _Analyser:
        return _Analyser(info, self.speech_threshold)

    def facts(self, tracks: Tracks, clip: Clip, info: MediaInfo) -> Facts:
        total = int(tracks["samples"][0])
        if info.audio is None or not total:
            return dict.fromkeys(("speech_ratio", "silence_ratio"), NotApplicable("no sound"))
        rate = info.audio.rate
        first, last = sound_span(clip, info)
        if first >= last:
            return dict.fromkeys(("speech_ratio", "silence_ratio"), NotApplicable("no length"))
        grid = Grid(rate, WINDOW_MS)
        windows, shares = grid.shares(first, last, total)
        edges = max(first, 0) + np.concatenate(([0], np.cumsum(shares)))
        spoken = np.diff(_spoken_before(tracks["speech"], edges / rate))
        quiet = tracks["power"][windows] < 10 ** (self.silence_dbfs / 10)
        unspoken = np.maximum(shares / rate - spoken, 0)
        length = (last - first) / rate
        silent = length - shares.sum() / rate + float(unspoken[quiet].sum())
        return {
            "speech_ratio": min(1.0, float(spoken.sum() / length)),
            "silence_ratio": min(1.0, max(0.0, silent / length)),
        }


def _spoken_before(spans: np.ndarray, seconds: np.ndarray) -> np.ndarray:
    """Seconds of speech before each time."""
    if not len(spans):
        return np.zeros(len(seconds))
    lengths = np.stack([np.zeros(len(spans)), (spans[:, 1] - spans[:, 0]) / RATE], axis=1)
    before = np.concatenate(([0], np.cumsum(lengths[:-1, 1])))[:, None]
    return np.interp(seconds, spans.ravel() / RATE, (lengths + before).ravel())
