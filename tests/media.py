"""Small real media files with known truth, and plain readers to measure them with.

Import as `from tests.media import flash_beep_clip, read_plain`. Everything is written through the
project's one media writer, except the broken copies, which are made from bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from reelmill.datasets.media.encode import write_audio, write_image, write_video


@dataclass(frozen=True)
class Plain:
    """A file as a plain loader sees it: frames and samples counted from zero, no start times.

    rgb: uint8 [frames, h, w, 3]. pts: int64 [frames]. samples: float32 [channels, n] or None.
    """

    rgb: np.ndarray
    pts: np.ndarray
    time_base: Fraction
    fps: float
    samples: np.ndarray | None
    rate: int

    @property
    def gray(self) -> np.ndarray:
        """float32 [frames, h, w], 0 to 255."""
        return self.rgb.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)

    @property
    def seconds(self) -> np.ndarray:
        """Time of each frame since the first."""
        return (self.pts - self.pts[0]) * float(self.time_base)


def read_plain(path: Path) -> Plain:
    """Decodes a whole file with PyAV alone. Pictures are [0, 0, 0, 3] for a file of sound."""
    frames, pts, blocks = [], [], []
    with av.open(str(path)) as container:
        video = container.streams.video[0] if container.streams.video else None
        audio = container.streams.audio[0] if container.streams.audio else None
        for frame in container.decode(*[s for s in (video, audio) if s is not None]):
            if isinstance(frame, av.VideoFrame):
                frames.append(frame.to_ndarray(format="rgb24"))
                pts.append(frame.pts)
            else:
                blocks.append(_floats(frame))
        return Plain(
            rgb=np.stack(frames) if frames else np.zeros((0, 0, 0, 3), np.uint8),
            pts=np.array(pts, np.int64),
            time_base=video.time_base if video is not None else Fraction(1),
            fps=float(video.average_rate or 0) if video is not None else 0.0,
            samples=np.concatenate(blocks, axis=1) if blocks else None,
            rate=audio.rate if audio is not None else 0,
        )


def _floats(frame: Any) -> np.ndarray:
    """float32 [channels, samples] of one decoded audio frame."""
    data = frame.to_ndarray()
    if not frame.format.is_planar:
        data = data.reshape(-1, len(frame.layout.channels)).T
    if np.issubdtype(data.dtype, np.integer):
        return data.astype(np.float32) / -np.float32(np.iinfo(data.dtype).min)
    return data.astype(np.float32)


def tone(seconds: float, rate: int = 48_000, hz: float = 440.0, amplitude: float = 0.3):
    """A sine, float32 [1, samples]."""
    t = np.arange(round(seconds * rate)) / rate
    return (amplitude * np.sin(2 * np.pi * hz * t)).astype(np.float32)[None]


def noise(seconds: float, rate: int = 48_000, amplitude: float = 0.1, seed: int = 0):
    """White noise, float32 [1, samples]; `amplitude` is its RMS."""
    wave = np.random.default_rng(seed).standard_normal(round(seconds * rate))
    return (amplitude * wave).astype(np.float32)[None]


def smooth_noise(
    frames: int, size: tuple[int, int] = (96, 128), *, seed: int = 0, drift: int = 2
) -> np.ndarray:
    """A textured picture that drifts `drift` pixels a frame: uint8 [frames, h, w, 3].

    Two seeds give pictures with nothing in common.
    """
    rng = np.random.default_rng(seed)
    height, width = size
    coarse = rng.uniform(0, 255, (height // 8 + 2, width // 8 + 2, 3))
    big = np.kron(coarse, np.ones((8, 8, 1))) + rng.normal(0, 12, (coarse.shape[0] * 8, 1, 3))
    field = np.clip(big[:height, :width], 0, 255).astype(np.uint8)
    return np.stack([np.roll(field, drift * i, axis=1) for i in range(frames)])


def flash_beep_times(seconds: float) -> list[float]:
    """When flash_beep_clip flashes: 0.5 s, then every second."""
    return [t + 0.5 for t in range(int(seconds)) if t + 0.75 <= seconds]


def flash_beep_clip(
    path: Path,
    *,
    fps: Fraction | int = 25,
    seconds: float = 4.0,
    size: tuple[int, int] = (96, 128),
    rate: int = 48_000,
    pts: Sequence[int] | None = None,
    time_base: Fraction = Fraction(1, 1000),
    sound_shift_s: float = 0.0,
    **options: Any,
) -> list[float]:
    """White flashes on black, each with a 1 kHz beep that begins with its first frame.

    Returns the times in seconds since the first frame. `pts` makes it variable-rate. Sound lies
    `sound_shift_s` later than the picture. More options go to write_video: codec, audio_codec,
    start_s, audio_start_s, container, ...
    """
    stamps = (
        [float(p * time_base) - float(pts[0] * time_base) for p in pts]
        if pts is not None
        else [float(i / Fraction(fps)) for i in range(round(seconds * float(fps)))]
    )
    times = flash_beep_times(seconds)
    first = [min(i for i, t in enumerate(stamps) if t >= f - 1e-9) for f in times]
    onsets = [stamps[i] for i in first]
    lit = {i + k for i in first for k in range(3)}
    frames = (np.full((*size, 3), 255 if i in lit else 16, np.uint8) for i in range(len(stamps)))
    wave = np.zeros((1, round(seconds * rate)), np.float32)
    beep = np.cos(2 * np.pi * 1000 * np.arange(round(0.05 * rate)) / rate) * 0.7
    for onset in onsets:
        start = round((onset + sound_shift_s) * rate)
        wave[0, start : start + len(beep)] = beep[: max(0, wave.shape[1] - start)]
    timing: dict[str, Any] = (
        {"pts": pts, "time_base": time_base} if pts is not None else {"fps": fps}
    )
    write_video(path, frames, audio=wave, audio_rate=rate, **timing, **options)
    return onsets


def flash_beep_offsets(path: Path) -> np.ndarray:
    """Seconds by which each beep follows its flash, to a loader that ignores start times."""
    plain = read_plain(path)
    assert plain.samples is not None
    bright = plain.rgb.mean(axis=(1, 2, 3)) > 128
    flashes = plain.seconds[np.flatnonzero(bright & ~np.r_[False, bright[:-1]])]
    loud = np.flatnonzero(np.abs(plain.samples[0]) > 0.25)
    beeps = loud[np.r_[True, np.diff(loud) > plain.rate * 0.2]] / plain.rate
    assert len(flashes) == len(beeps), (flashes, beeps)
    return beeps - flashes


def noise_video(
    path: Path,
    *,
    seconds: float = 2.0,
    fps: int = 16,
    size: tuple[int, int] = (96, 128),
    seed: int = 0,
    sound: bool = True,
    rate: int = 16_000,
    **options: Any,
) -> Path:
    """A clean short clip: drifting texture, quiet noise. Seeds differ in picture and sound."""
    frames = smooth_noise(round(seconds * fps), size, seed=seed)
    audio = noise(seconds, rate, seed=seed) if sound else None
    write_video(path, frames, fps=fps, audio=audio, audio_rate=rate, **options)
    return path


def shots_video(path: Path, lengths: Sequence[int], *, fps: int = 24, **options: Any) -> list[int]:
    """Hard cuts between unlike textures; returns the first frame of each shot after the first."""
    frames = np.concatenate([smooth_noise(n, seed=100 + i) for i, n in enumerate(lengths)])
    write_video(path, frames, fps=fps, **options)
    return np.cumsum(lengths)[:-1].tolist()


def still(
    path: Path, *, size: tuple[int, int] = (256, 320), seed: int = 0, suffix: str | None = None
) -> Path:
    """One textured picture."""
    write_image(path, smooth_noise(1, size, seed=seed)[0], suffix=suffix)
    return path


def sound_file(path: Path, samples: np.ndarray, rate: int = 48_000, **options: Any) -> Path:
    write_audio(path, samples, rate, **options)
    return path


def truncated_copy(source: Path, target: Path, share: float) -> Path:
    """The first `share` of the bytes."""
    data = source.read_bytes()
    target.write_bytes(data[: int(len(data) * share)])
    return target


def rotten_copy(source: Path, target: Path, *, flips: int = 200, seed: int = 0, spare: int = 4096):
    """`flips` random bytes changed, none of the first `spare` (where an mp4 has its index)."""
    data = bytearray(source.read_bytes())
    rng = np.random.default_rng(seed)
    for at in rng.integers(min(spare, len(data) - 1), len(data), flips):
        data[at] ^= int(rng.integers(1, 256))
    target.write_bytes(data)
    return target
