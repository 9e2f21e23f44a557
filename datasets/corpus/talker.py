"""Drawn faces whose mouths follow speech: clips whose lips are in time by construction.

The mouth opens with the loudness between 250 and 1100 Hz, where open vowels are strong, grows wide
with what lies between 1700 and 3200 Hz and round without it, and shows its teeth in hisses. It
is no likeness of how people speak, but what is seen depends on what is heard, frame by frame.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from scipy.ndimage import gaussian_filter1d

FPS = 25
WINDOW_S = 0.04
RANGE_DB = 35.0  # below the loudest moment the mouth is shut
BANDS = ((250, 1100), (1700, 3200), (4000, 7500))  # Hz: open, wide, hiss

Colour = tuple[int, int, int]


@dataclass(frozen=True)
class Mouth:
    """Shape of a mouth at each frame, float64 [frames] from 0 to 1."""

    open: np.ndarray
    wide: np.ndarray
    hiss: np.ndarray


def mouth_of(speech: np.ndarray, rate: int) -> Mouth:
    """From float32 [samples]; a frame shows the middle of its 40 ms."""
    count = int(len(speech) * FPS / rate)
    half = round(WINDOW_S * rate)
    padded = np.pad(np.asarray(speech, np.float64), half)
    starts = np.rint((np.arange(count) + 0.5) / FPS * rate).astype(int)
    windows = padded[starts[:, None] + np.arange(2 * half)] * np.hanning(2 * half)
    power = np.square(np.abs(np.fft.rfft(windows, axis=1)))
    hertz = np.fft.rfftfreq(2 * half, 1 / rate)
    bands = [power[:, (hertz >= low) & (hertz < high)].sum(axis=1) for low, high in BANDS]
    decibels = [10 * np.log10(band + 1e-12) for band in bands]
    loud = np.clip(1 + (decibels[0] - decibels[0].max(initial=-120)) / RANGE_DB, 0, 1)
    wide = np.clip(0.5 + (decibels[1] - decibels[0] + 12) / 24, 0, 1)
    hiss = np.clip((decibels[2] - decibels[0] + 5) / 20, 0, 1) * (decibels[2] > -60)
    return Mouth(*(gaussian_filter1d(values, 0.6, mode="nearest") for values in (loud, wide, hiss)))


@dataclass(frozen=True)
class Talker:
    """One drawn person of many: `seed` makes colours, proportions, hair, how the head sways."""

    seed: int
    size: int = 192

    def frames(self, mouth: Mouth) -> np.ndarray:
        """uint8 RGB [frames, size, size, 3] at 25 a second."""
        rng = np.random.default_rng(self.seed)
        look = _Look.of(rng)
        count = len(mouth.open)
        sway = gaussian_filter1d(rng.standard_normal((3, count + 200)), 12, axis=1)[:, 100:-100]
        sway *= np.array([[20.0], [14.0], [8.0]]) / 100 * self.size / 192
        blinks = np.zeros(count)
        for at in np.cumsum(rng.uniform(40, 110, 1 + count // 40)).astype(int):
            blinks[at : at + 4] = 1
        out = np.empty((count, self.size, self.size, 3), np.uint8)
        for i in range(count):
            face = _draw(look, mouth.open[i], mouth.wide[i], mouth.hiss[i], blinks[i] > 0)
            turn = cv2.getRotationMatrix2D((_SIZE / 2, _SIZE / 2), float(sway[2, i]) * 25, 1.0)
            turn[:, 2] += sway[:2, i] * _SIZE / self.size * 5
            face = cv2.warpAffine(face, turn, (_SIZE, _SIZE), borderMode=cv2.BORDER_REPLICATE)
            out[i] = cv2.resize(face, (self.size, self.size), interpolation=cv2.INTER_AREA)
        noise = rng.normal(0, 2.5, out.shape).astype(np.float32)
        return np.clip(out + noise, 0, 255).astype(np.uint8)


_SIZE = 384


@dataclass(frozen=True)
class _Look:
    skin: Colour
    hair: Colour
    lips: Colour
    ground: Colour
    shirt: Colour
    iris: Colour
    face: tuple[float, float]  # half axes
    eyes: float
    lip: float  # half width of the shut mouth
    thick: float
    light: float  # from which side
    long_hair: bool

    @classmethod
    def of(cls, rng: np.random.Generator) -> _Look:
        tone = rng.uniform(0, 1)
        skin = np.array([235, 190, 165]) * (1 - tone) + np.array([120, 78, 55]) * tone
        lips = skin * np.array([0.86, 0.62, 0.62])
        hair = np.array([40, 28, 22]) + rng.uniform(0, 1) * np.array([150, 110, 60])
        return cls(
            skin=_rgb(skin),
            hair=_rgb(hair),
            lips=_rgb(lips),
            ground=_rgb(rng.uniform(60, 220, 3)),
            shirt=_rgb(rng.uniform(20, 230, 3)),
            iris=_rgb(rng.uniform(20, 120, 3)),
            face=(rng.uniform(84, 98), rng.uniform(112, 126)),
            eyes=rng.uniform(36, 42),
            lip=rng.uniform(28, 36),
            thick=rng.uniform(6, 10),
            light=rng.uniform(-1, 1),
            long_hair=bool(rng.integers(2)),
        )


def _rgb(values: np.ndarray) -> Colour:
    red, green, blue = (int(v) for v in np.clip(values, 0, 255))
    return red, green, blue


def _shade(colour: Colour, by: float) -> Colour:
    return _rgb(np.array(colour) * by)


def _draw(look: _Look, opened: float, wide: float, hiss: float, blink: bool) -> np.ndarray:
    """uint8 RGB [384, 384, 3]: one face from the front."""
    picture = np.empty((_SIZE, _SIZE, 3), np.uint8)
    picture[:] = look.ground
    x, y = _SIZE // 2, 180
    across, down = look.face

    def oval(cx: float, cy: float, rx: float, ry: float, colour: Colour) -> None:
        centre, axes = (round(cx * 16), round(cy * 16)), (round(rx * 16), round(ry * 16))
        cv2.ellipse(picture, centre, axes, 0, 0, 360, colour, -1, cv2.LINE_AA, 4)

    oval(x, _SIZE + 30, 165, 110, look.shirt)
    if look.long_hair:
        oval(x, y + 25, across + 26, down + 40, look.hair)
    oval(x, y + down, 42, 70, _shade(look.skin, 0.82))
    oval(x, y - 22, across + 12, down + 6, look.hair)
    oval(x, y, across, down, look.skin)
    for side in (-1, 1):
        oval(x + side * across, y + 5, 10, 24, _shade(look.skin, 0.92))
    oval(x, y - down + 12, across * 0.8, 26, look.hair)
    for side in (-1, 1):
        ex, ey = x + side * look.eyes, y - 22
        oval(ex, ey, 22, 13, _shade(look.skin, 0.8))
        if blink:
            oval(ex, ey + 2, 18, 3, _shade(look.skin, 0.5))
        else:
            oval(ex, ey, 18, 9, (240, 240, 238))
            oval(ex, ey, 8, 8, look.iris)
            oval(ex, ey, 4, 4, (10, 10, 10))
        oval(ex, ey - 20, 22, 4.5, _shade(look.hair, 0.8))
    oval(x, y + 12, 9, 28, _shade(look.skin, 1.05))
    for side in (-1, 1):
        oval(x + side * 11, y + 36, 9, 6, _shade(look.skin, 0.75))
        oval(x + side * 8, y + 39, 4, 2.5, _shade(look.skin, 0.4))
    my = y + 70
    rx = look.lip * (0.7 + 0.45 * wide)
    ry = 2 + 24 * opened
    oval(x, my, rx + look.thick, ry + look.thick, look.lips)
    oval(x, my, rx, ry, (45, 15, 18))
    if hiss > 0.3 or opened > 0.35:
        oval(x, my - ry * 0.6, rx * 0.8, max(1.0, min(7.0, ry * 0.4)), (225, 222, 212))
    oval(x, my + ry + look.thick + 12, 20, 4, _shade(look.skin, 0.88))
    slope = 1 + 0.16 * look.light * np.linspace(-1, 1, _SIZE)[None, :, None]
    lit = np.clip(picture * slope, 0, 255).astype(np.uint8)
    return cv2.GaussianBlur(lit, (0, 0), 1.6)
