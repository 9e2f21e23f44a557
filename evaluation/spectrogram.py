"""The powers of a sound, in short frames."""

from __future__ import annotations

import numpy as np

WINDOW_S = 0.032


def frame_powers(samples: np.ndarray, rate: int) -> np.ndarray:
    """float64 [frames, bins], half-overlapping Hann windows of 32 ms, mean over channels.

    samples: float32 [channels, n]. A full-scale sine has power 1/2 in all bins of its frame
    together.
    """
    window = 2 * round(WINDOW_S * rate / 2)
    hop = window // 2
    count = (samples.shape[1] - window) // hop + 1
    if count < 1:
        return np.zeros((0, window // 2 + 1))
    hann = np.hanning(window)
    total = np.zeros((count, window // 2 + 1))
    for channel in samples:
        frames = np.lib.stride_tricks.sliding_window_view(channel, window)[::hop][:count]
        total += np.square(np.abs(np.fft.rfft(frames * hann, axis=1)))
    return total * (2 / (window * np.square(hann).sum() * len(samples)))
