"""Listening for speech: its probability, its spans, and the level of all there is."""

from __future__ import annotations

import numpy as np

from reelmill.curation.audio.windows import Grid, WindowListener, Windows
from reelmill.curation.models.silero import SpeechProbability, speech_spans
from reelmill.datasets.media.decode import AudioBlock, DecodeSummary, MediaInfo

WINDOW_MS = 32


class SpeechAnalyser(WindowListener):
    """Tracks: `probability` of speech per 512 samples of 16 kHz; `speech`, spans in samples of 16
    kHz; `power`, mean square over all channels per 32 ms; `samples`, how many there are.
    Of several that hear one stream, the first runs the network.
    """

    def __init__(self, info: MediaInfo, threshold: float = 0.5):
        self._threshold = threshold
        self._speech = self._own = SpeechProbability()
        self._power: list[np.ndarray] = []
        super().__init__(Grid(info.audio.rate, WINDOW_MS) if info.audio else None)

    def block(self, block: AudioBlock) -> None:
        self._speech = block.shared.setdefault("speech", self._own)
        if self._speech is self._own:
            self._own.push(block.mono16k)
        super().block(block)

    def measure(self, windows: Windows) -> None:
        self._power.append(windows.energy.mean(axis=0) / windows.lengths)

    def finish(self, summary: DecodeSummary) -> dict[str, np.ndarray]:
        self.flush()
        probability = self._speech.finish()
        power = np.concatenate(self._power) if self._power else np.zeros(0)
        return {
            "probability": probability,
            "speech": speech_spans(probability, self._speech.samples, threshold=self._threshold),
            "power": power.astype(np.float32),
            "samples": np.array([self.total], np.int64),
        }
