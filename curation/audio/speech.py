"""Listening for speech: its probability, its spans, and the level of all there is."""

from __future__ import annotations

import numpy as np

from reelmill.curation.audio.windows import Grid, WindowCutter, window_energy
from reelmill.curation.models.silero import SpeechProbability, speech_spans
from reelmill.datasets.media.decode import AudioBlock, DecodeSummary, MediaInfo

WINDOW_MS = 32


class SpeechAnalyser:
    """Tracks: `probability` of speech per 512 samples of 16 kHz; `speech`, spans in samples of 16
    kHz; `power`, mean square over all channels per 32 ms; `samples`, how many there are.
    Of several that hear one stream, the first runs the network.
    """

    def __init__(self, info: MediaInfo, threshold: float = 0.5):
        self._threshold = threshold
        self._speech = self._own = SpeechProbability()
        self._power: list[np.ndarray] = []
        self._cutter = WindowCutter(Grid(info.audio.rate, WINDOW_MS)) if info.audio else None

    def block(self, block: AudioBlock) -> None:
        assert self._cutter is not None
        self._speech = block.shared.setdefault("speech", self._own)
        if self._speech is self._own:
            self._own.push(block.mono16k)
        for samples, edges in self._cutter.push(block.samples):
            self._measure(samples, edges)

    def _measure(self, samples: np.ndarray, edges: np.ndarray) -> None:
        self._power.append(window_energy(samples, edges).mean(axis=0) / np.diff(edges))

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
