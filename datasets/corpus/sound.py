"""Sound of a scene: a short tone for every bounce, over a quiet room."""

from __future__ import annotations

import numpy as np

from reelmill.datasets.corpus.scene import Scene

DECAY = 0.1  # seconds to 1/e
TONE = 0.6  # seconds until a tone is cut, at -52 dB
ATTACK = 0.001
LOUD = 0.8
OVERTONE = 0.35
PEAK = 0.85
AMBIENCE_DBFS = -42.0
LOOP = 1 << 16  # samples after which the room's noise repeats, without a seam


def tone(pitch: float, rate: int) -> np.ndarray:
    """One bounce, float64 [samples], peak about 1: begins at once and dies away."""
    t = np.arange(round(TONE * rate)) / rate
    wave = np.sin(2 * np.pi * pitch * t) + OVERTONE * np.sin(4 * np.pi * pitch * t)
    return wave * np.exp(-t / DECAY) * np.minimum(t / ATTACK, 1) / (1 + OVERTONE)


def ambience(samples: int, rate: int, seed: int) -> np.ndarray:
    """Noise of a quiet room, float64 [2, samples]: falls by 3 dB an octave above 60 Hz."""
    rng = np.random.default_rng([seed, 0xA1B])
    spectrum = np.fft.rfft(rng.standard_normal((2, LOOP)))
    hz = np.fft.rfftfreq(LOOP, 1 / rate)
    noise = np.fft.irfft(spectrum / np.sqrt(np.maximum(hz, 60.0)), n=LOOP)
    noise *= 10 ** (AMBIENCE_DBFS / 20) / noise.std()
    return np.tile(noise, -(-samples // LOOP))[:, :samples]


def scene_audio(scene: Scene, rate: int = 48_000) -> np.ndarray:
    """The sound of a scene, float32 [2, samples] in [-0.85, 0.85], of the scene's length.

    Each bounce sounds from its moment on, in the pitch of its colour, panned by where it happens
    with constant power: left gain cos((pan + 1) pi / 4), right gain sin of the same.
    """
    samples = round(scene.seconds * rate)
    sound = np.zeros((2, samples))
    tones = {pitch: tone(pitch, rate) for pitch in {b.pitch for b in scene.bounces}}
    for bounce in scene.bounces:
        start = round(bounce.t * rate)
        wave = tones[bounce.pitch][: max(0, samples - start)]
        angle = (bounce.pan + 1) * np.pi / 4
        gains = np.array([[np.cos(angle)], [np.sin(angle)]])
        sound[:, start : start + len(wave)] += LOUD * gains * wave
    sound += ambience(samples, rate, scene.background.seed)
    peak = np.abs(sound).max(initial=0.0)
    return (sound * min(1.0, PEAK / max(peak, 1e-9))).astype(np.float32)
