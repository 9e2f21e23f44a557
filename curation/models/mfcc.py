"""MFCC as the networks for lips and voices were trained on them.

Those of the package python_speech_features at its defaults (MIT), which syncnet_python and
Light-ASD call on 16-bit sound of 16 kHz: windows of 25 ms without a taper, 100 a second, 26
triangles from 0 to 8 kHz, 13 coefficients liftered by 22, the first one the log energy.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from scipy.fft import dct

RATE = 16_000
STEP, WINDOW = 160, 400
SIZE = 512
FILTERS, COEFFICIENTS, LIFTER = 26, 13, 22
EMPHASIS = 0.97
INT16 = 32_767.0


def mfcc(sound: np.ndarray) -> np.ndarray:
    """float32 [n, 13] of float32 [samples] at 16 kHz, full scale 1: one row every 10 ms.

    Samples are rounded to 16 bits first. n: as many windows as touch the sound, at least one.
    """
    whole = np.rint(np.clip(sound, -1, 1).astype(np.float64) * INT16)
    flat = np.concatenate((whole[:1], whole[1:] - EMPHASIS * whole[:-1]))
    count = 1 + max(0, -(-(len(flat) - WINDOW) // STEP))
    flat = np.pad(flat, (0, max(0, (count - 1) * STEP + WINDOW - len(flat))))
    windows = np.lib.stride_tricks.sliding_window_view(flat, WINDOW)[: count * STEP : STEP]
    power = np.square(np.abs(np.fft.rfft(windows, SIZE))) / SIZE
    least = np.finfo(np.float64).eps
    energy = power.sum(axis=1)
    bands = power @ _triangles().T
    bands, energy = np.where(bands == 0, least, bands), np.where(energy == 0, least, energy)
    cepstrum = dct(np.log(bands), type=2, axis=1, norm="ortho")[:, :COEFFICIENTS]
    cepstrum = cepstrum * (1 + LIFTER / 2 * np.sin(np.pi * np.arange(COEFFICIENTS) / LIFTER))
    cepstrum[:, 0] = np.log(energy)
    return cepstrum.astype(np.float32)


@cache
def _triangles() -> np.ndarray:
    """float64 [26, 257]: overlapping triangles, equal in width on the mel scale."""
    top = 2595 * np.log10(1 + RATE / 2 / 700)
    hertz = 700 * (10 ** (np.linspace(0, top, FILTERS + 2) / 2595) - 1)
    corners = np.floor((SIZE + 1) * hertz / RATE).astype(int)
    found = np.zeros((FILTERS, SIZE // 2 + 1))
    for row, (low, middle, high) in enumerate(zip(corners, corners[1:], corners[2:], strict=False)):
        found[row, low:middle] = (np.arange(low, middle) - low) / (middle - low)
        found[row, middle:high] = (high - np.arange(middle, high)) / (high - middle)
    return found
