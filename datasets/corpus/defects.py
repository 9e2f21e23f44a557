"""What can be wrong with media, done on purpose and to a known degree.

Pictures are uint8 RGB [frames, height, width, 3], sound float32 [channels, samples]. Each function
returns a new array; its argument stays as it is.
"""

from __future__ import annotations

import cv2
import numpy as np

Box = tuple[int, int, int, int]


def black(frames: np.ndarray) -> np.ndarray:
    return np.zeros_like(frames)


def overexposed(frames: np.ndarray) -> np.ndarray:
    """Most of the picture at white, the rest close to it."""
    return np.clip(frames * 1.3 + 150.0, 0, 255).astype(np.uint8)


def underexposed(frames: np.ndarray) -> np.ndarray:
    """A tenth to a fifth of the light: dark, but not black."""
    return np.rint(frames * 0.2).astype(np.uint8)


def blurred(frames: np.ndarray, sigma: float) -> np.ndarray:
    return np.stack([cv2.GaussianBlur(frame, (0, 0), sigma) for frame in frames])


def frozen(frames: np.ndarray, first: int, last: int) -> np.ndarray:
    """Frames [first, last) all show what frame `first` shows."""
    held = frames.copy()
    held[first:last] = frames[first]
    return held


def logo_box(width: int, height: int) -> Box:
    """Where logo() draws: the upper right corner."""
    side, tall, margin = width // 4 // 4 * 4, height // 6 // 4 * 4, 8
    return (width - margin - side, margin, width - margin, margin + tall)


def logo(frames: np.ndarray, box: Box) -> np.ndarray:
    """A white plate with dark letters, opaque, the same in every frame."""
    x0, y0, x1, y1 = box
    plate = np.full((y1 - y0, x1 - x0, 3), 235, np.uint8)
    cv2.putText(
        plate, "LOGO", (3, y1 - y0 - 7), cv2.FONT_HERSHEY_SIMPLEX, (x1 - x0) / 86, (20, 20, 60), 2
    )
    marked = frames.copy()
    marked[:, y0:y1, x0:x1] = plate
    return marked


def letterboxed(frames: np.ndarray, bar: int) -> np.ndarray:
    """The picture squeezed between two black bars of `bar` rows; the size stays."""
    height, width = frames.shape[1:3]
    framed = np.zeros_like(frames)
    for target, frame in zip(framed, frames, strict=True):
        inner = cv2.resize(frame, (width, height - 2 * bar), interpolation=cv2.INTER_AREA)
        target[bar : height - bar] = inner
    return framed


def resized(frames: np.ndarray, width: int, height: int) -> np.ndarray:
    return np.stack([cv2.resize(f, (width, height), interpolation=cv2.INTER_AREA) for f in frames])


def mirrored(frames: np.ndarray) -> np.ndarray:
    return frames[:, :, ::-1].copy()


def clipped(sound: np.ndarray, share: float) -> np.ndarray:
    """Gain so high that `share` of all samples end at full scale."""
    level = float(np.quantile(np.abs(sound), 1 - share))
    return np.clip(sound / level, -1, 1).astype(np.float32)


def noisy(sound: np.ndarray, snr_db: float, seed: int) -> np.ndarray:
    """White noise added at that ratio of powers over the whole length; peak at most 0.95."""
    rng = np.random.default_rng([seed, 0x01CE])
    noise = rng.standard_normal(sound.shape)
    noise *= float(np.sqrt(np.mean(np.square(sound, dtype=np.float64)))) / noise.std()
    mixed = sound + noise * 10 ** (-snr_db / 20)
    return (mixed * min(1.0, 0.95 / float(np.abs(mixed).max()))).astype(np.float32)


def shifted(sound: np.ndarray, samples: int) -> np.ndarray:
    """The sound later by `samples`; what leaves at the end comes back at the start."""
    return np.roll(sound, samples, axis=1)
