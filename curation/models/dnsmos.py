"""DNSMOS P.835: a network's guess at how listeners would rate speech (arXiv 2110.01763).

The network is run directly; windows and polynomials are those of the speechmos package, which
wants librosa for a second score that is not used here.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime

from reelmill.curation.models.silero import single_thread

RATE = 16_000
WINDOW = 144_160  # 9.01 s
HOP = RATE
# Raw output to opinion score: signal, background, overall.
_POLYNOMIALS = (
    (-0.08397278, 1.22083953, 0.0052439),
    (-0.13166888, 1.60915514, -0.39604546),
    (-0.06766283, 1.11546468, 0.04602535),
)


class DNSMOS:
    """folder: of the weights entry `dnsmos`."""

    def __init__(self, folder: Path):
        path = folder / "sig_bak_ovr.onnx"
        self._session = onnxruntime.InferenceSession(
            path, single_thread(), ["CPUExecutionProvider"]
        )

    def __call__(self, sounds: Sequence[np.ndarray]) -> np.ndarray:
        """float64 [sounds, 3]: signal, background and overall score, 1 to 5, of each sound.

        sounds: float32 [n] at 16 kHz, n > 0. Each score is the mean over windows of 9.01 s, one per
        second; sound that is shorter is repeated.
        """
        return np.stack([self._rated(sound) for sound in sounds])

    def _rated(self, sound: np.ndarray) -> np.ndarray:
        # One window at a time: on a CPU, eight at once take 2.6 times as long each.
        raw = [self._session.run(None, {"input_1": w[None]})[0][0] for w in _windows(sound)]
        columns = zip(_POLYNOMIALS, np.array(raw, np.float64).T, strict=True)
        return np.array([np.polyval(p, column).mean() for p, column in columns])


def _windows(sound: np.ndarray) -> list[np.ndarray]:
    sound = np.clip(sound, -1, 1)
    while len(sound) < WINDOW:
        sound = np.concatenate((sound, sound))
    hops = int(len(sound) // RATE - WINDOW / RATE) + 1
    windows = [sound[i * HOP : i * HOP + WINDOW] for i in range(hops)]
    return [window for window in windows if len(window) == WINDOW]
