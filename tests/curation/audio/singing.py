"""Singing made of speech: its words, drawn out, on a melody with vibrato, in a room.

The mouth is that of the recording (linear prediction, 200 times a second), the voice a row of
pulses: what a vocoder does. No recording of anybody's singing is needed.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.linalg import solve_toeplitz
from scipy.signal import fftconvolve, lfilter

RATE = 16_000
MELODY = (262, 262, 392, 392, 440, 440, 392, 392, 349, 349, 330, 330, 294, 294, 262, 262)  # Hz
PARTS = (0.5, 1.0, 1.25, 1.5)  # of a choir, by the melody
HOP, WINDOW, ORDER, STRETCH = 80, 400, 20, 3
EMPHASIS, VIBRATO_HZ, HALF_TONES, BREATH = 0.97, 5.5, 0.5, 0.01


def sung(speech: np.ndarray, notes: Sequence[float] = MELODY) -> np.ndarray:
    """float32 [about 3 n] of float32 [n] at 16 kHz, notes of equal length in Hz."""
    bright = lfilter([1, -EMPHASIS], [1], speech)
    count = (len(speech) - WINDOW) // HOP
    step = HOP * STRETCH
    excitation = _voice(count * step, notes)
    found, memory = np.empty(count * step), np.zeros(ORDER)
    for i in range(count):
        part = bright[i * HOP : i * HOP + WINDOW] * np.hanning(WINDOW)
        row = np.correlate(part, part, "full")[WINDOW - 1 : WINDOW + ORDER]
        row[0] = row[0] * 1.0005 + 1e-9
        taps = solve_toeplitz(row[:-1], row[1:])
        level = np.sqrt(max(0.0, row[0] - taps @ row[1:]))
        at = slice(i * step, (i + 1) * step)
        mouth = np.concatenate(([1], -taps))
        found[at], memory = lfilter([1], mouth, excitation[at] * level, zi=memory)
    return _loud(lfilter([1], [1, -EMPHASIS], found))


def _voice(count: int, notes: Sequence[float]) -> np.ndarray:
    pitch = np.repeat(np.array(notes, float), -(-count // len(notes)))[:count]
    pitch = np.convolve(np.pad(pitch, 400, mode="edge"), np.full(801, 1 / 801), "valid")[:count]
    swing = np.sin(2 * np.pi * VIBRATO_HZ * np.arange(count) / RATE)
    pitch = pitch * 2 ** (HALF_TONES / 12 * swing)
    pulses = np.diff(np.floor(np.cumsum(pitch / RATE)), prepend=0)
    return pulses * np.sqrt(RATE / pitch) + BREATH * np.random.default_rng(0).normal(size=count)


def choir(speech: np.ndarray) -> np.ndarray:
    """Four voices, not quite together and not quite in tune."""
    voices = [
        sung(speech[i * 37 :], [note * part * (1 + 0.004 * i) for note in MELODY])
        for i, part in enumerate(PARTS)
    ]
    least = min(map(len, voices))
    return _loud(np.sum([voice[:least] for voice in voices], axis=0))


def in_a_room(sound: np.ndarray) -> np.ndarray:
    """With 1.2 s of reverberation."""
    n = np.arange(round(1.2 * RATE))
    answer = np.random.default_rng(1).normal(size=len(n)) * np.exp(-5 * n / RATE)
    answer[0] = 6
    return _loud(fftconvolve(sound, answer)[: len(sound)])


def _loud(sound: np.ndarray) -> np.ndarray:
    return (sound / np.abs(sound).max() * 0.5).astype(np.float32)
