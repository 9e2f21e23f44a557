"""Damage of known kind and level: what metrics must answer to, and raters must notice.

Used by the tests of the metrics and for gold pairs in a review (a clip against its damaged self).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

import cv2
import numpy as np
from scipy.signal import butter, sosfiltfilt

LEVELS = 5


class Damage(StrEnum):
    """level runs from 1 (just noticeable) to 5 (gross); 0 is no damage."""

    SHIFTED_SOUND = "shifted sound"  # late by 80 ms a level
    DROPPED_FRAMES = "dropped frames"  # one frame of 16, 8, 6, 4, 3 is skipped, the rest closes up
    REPEATED_FRAMES = "repeated frames"  # one frame of 16, 8, 4, 3, 2 shows the one before
    BLUR = "blur"  # Gaussian, sigma 0.4 % of the width a level
    FLICKER = "flicker"  # brightness of every frame varies by 2 % a level, standard deviation
    PICTURE_NOISE = "picture noise"  # white noise, 3 grey levels a level, new in each frame
    WRONG_CUT = "wrong cut"  # as many cuts as the level, to another picture and back
    COLOUR_SHIFT = "colour shift"  # red rises and blue falls over the clip, by 6 % a level
    OVEREXPOSURE = "overexposure"  # gain at which 8 % of the pixels a level are blown out
    CLIPPING = "clipping"  # 6 dB too loud a level, cut at full scale
    BAND_LIMIT = "band limit"  # low-pass at 12, 8, 5, 3, 1.5 kHz
    SOUND_NOISE = "sound noise"  # white, 40 to 0 dB below the sound in steps of 10
    DROPOUTS = "drop-outs"  # silence of 6 % of the length a level, in pieces of 100 ms
    NARROWED = "narrowed"  # side signal down by 20 % a level


@dataclass(frozen=True)
class Footage:
    """frames: uint8 RGB [n, h, w, 3] at `fps`; samples: float32 [channels, m] at `rate` Hz."""

    frames: np.ndarray
    fps: float
    samples: np.ndarray
    rate: int


def damaged(footage: Footage, damage: Damage, level: int, seed: int = 0) -> Footage:
    """A damaged copy; the same arguments give the same samples and pixels. Level 0 to 5.

    Raises ValueError for another level.
    """
    if not 0 <= level <= LEVELS:
        raise ValueError(f"level {level}: damage has levels 0 to {LEVELS}")
    if level == 0:
        return footage
    return _DOERS[damage](footage, level, np.random.default_rng([seed, 0xDA]))


Doer = Callable[[Footage, int, np.random.Generator], Footage]


def _shift(f: Footage, level: int, rng: np.random.Generator) -> Footage:
    late = round(0.08 * level * f.rate)
    silence = np.zeros((len(f.samples), late), np.float32)
    moved = np.concatenate([silence, f.samples], axis=1)[:, : f.samples.shape[1]]
    return replace(f, samples=moved)


def _drop(f: Footage, level: int, rng: np.random.Generator) -> Footage:
    every = (16, 8, 6, 4, 3)[level - 1]
    return replace(f, frames=f.frames[np.arange(len(f.frames)) % every != every - 1])


def _repeat(f: Footage, level: int, rng: np.random.Generator) -> Footage:
    every = (16, 8, 4, 3, 2)[level - 1]
    order = np.arange(len(f.frames))
    order[order % every == every - 1] -= 1
    return replace(f, frames=f.frames[order])


def _each(f: Footage, change: Callable[[np.ndarray, int], np.ndarray]) -> Footage:
    return replace(f, frames=np.stack([change(frame, i) for i, frame in enumerate(f.frames)]))


def _blur(f: Footage, level: int, rng: np.random.Generator) -> Footage:
    sigma = 0.004 * level * f.frames.shape[2]
    return _each(f, lambda frame, i: cv2.GaussianBlur(frame, (0, 0), sigma))


def _scaled(frame: np.ndarray, gain: float | np.ndarray) -> np.ndarray:
    return np.clip(np.rint(frame * gain), 0, 255).astype(np.uint8)


def _flicker(f: Footage, level: int, rng: np.random.Generator) -> Footage:
    gains = 1 + 0.02 * level * rng.standard_normal(len(f.frames))
    return _each(f, lambda frame, i: _scaled(frame, gains[i]))


def _grain(f: Footage, level: int, rng: np.random.Generator) -> Footage:
    def change(frame: np.ndarray, i: int) -> np.ndarray:
        noise = 3.0 * level * rng.standard_normal((*frame.shape[:2], 1))
        return np.clip(np.rint(frame + noise), 0, 255).astype(np.uint8)

    return _each(f, change)


def _cut(f: Footage, level: int, rng: np.random.Generator) -> Footage:
    shot = np.arange(len(f.frames)) * (level + 1) // len(f.frames)
    other = f.frames[:, ::-1, ::-1, ::-1]  # upside down, red and blue changed
    other = 255 - other
    return replace(f, frames=np.where((shot % 2 == 1)[:, None, None, None], other, f.frames))


def _tint(f: Footage, level: int, rng: np.random.Generator) -> Footage:
    most = 0.06 * level
    share = np.linspace(0, most, len(f.frames))
    return _each(f, lambda frame, i: _scaled(frame, np.array([1 + share[i], 1, 1 - share[i]])))


def _brighten(f: Footage, level: int, rng: np.random.Generator) -> Footage:
    whitest = np.concatenate([frame.min(axis=2)[::4, ::4].ravel() for frame in f.frames])
    gain = 255 / max(1.0, float(np.percentile(whitest, 100 - 8 * level)))
    return _each(f, lambda frame, i: _scaled(frame, max(1.0, gain)))


def _overdrive(f: Footage, level: int, rng: np.random.Generator) -> Footage:
    peak = max(float(np.abs(f.samples).max(initial=0)), 1e-9)
    loud = f.samples * (10 ** (6 * level / 20) / peak)
    return replace(f, samples=np.clip(loud, -1, 1).astype(np.float32))


def _lowpass(f: Footage, level: int, rng: np.random.Generator) -> Footage:
    hz = (12_000, 8_000, 5_000, 3_000, 1_500)[level - 1]
    if hz >= f.rate / 2:
        return f
    sos = butter(12, hz, fs=f.rate, output="sos")
    left = sosfiltfilt(sos, f.samples, axis=1)
    left /= max(1.0, float(np.abs(left).max()))  # else its overshoots clip, which is another damage
    return replace(f, samples=left.astype(np.float32))


def _hiss(f: Footage, level: int, rng: np.random.Generator) -> Footage:
    rms = np.sqrt(np.square(f.samples, dtype=np.float64).mean())
    noise = rng.standard_normal(f.samples.shape) * rms * 10 ** ((-50 + 10 * level) / 20)
    return replace(f, samples=np.clip(f.samples + noise, -1, 1).astype(np.float32))


def _mute(f: Footage, level: int, rng: np.random.Generator) -> Footage:
    piece = round(0.1 * f.rate)
    slots = max(1, f.samples.shape[1] // piece)
    gone = rng.permutation(slots)[: max(1, round(0.06 * level * slots))]
    samples = f.samples.copy()
    for slot in gone:
        samples[:, slot * piece : (slot + 1) * piece] = 0
    return replace(f, samples=samples)


def _narrow(f: Footage, level: int, rng: np.random.Generator) -> Footage:
    middle = f.samples.mean(axis=0, keepdims=True)
    side = (f.samples - middle) * np.float32(1 - 0.2 * level)
    return replace(f, samples=(middle + side).astype(np.float32))


_DOERS: Mapping[Damage, Doer] = {
    Damage.SHIFTED_SOUND: _shift,
    Damage.DROPPED_FRAMES: _drop,
    Damage.REPEATED_FRAMES: _repeat,
    Damage.BLUR: _blur,
    Damage.FLICKER: _flicker,
    Damage.PICTURE_NOISE: _grain,
    Damage.WRONG_CUT: _cut,
    Damage.COLOUR_SHIFT: _tint,
    Damage.OVEREXPOSURE: _brighten,
    Damage.CLIPPING: _overdrive,
    Damage.BAND_LIMIT: _lowpass,
    Damage.SOUND_NOISE: _hiss,
    Damage.DROPOUTS: _mute,
    Damage.NARROWED: _narrow,
}
