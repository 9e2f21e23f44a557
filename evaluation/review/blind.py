"""Blind copies: clips of all systems made alike, so that only picture and sound tell them apart.

Every copy goes through the same encoder at the same settings: H.264 and lossless sound at 48 kHz
in stereo, in an MP4 without a word of metadata, on one picture size for all clips of a prompt.
Codec, container, encoder tags, picture size, sample rate, time base, file size and file time are
then the same for all. What stays is what raters judge, and the frame rate and length, which cannot
be hidden without harm.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np

from reelmill.datasets.media.container import describe
from reelmill.datasets.media.decode import MediaInfo, decode_audio, probe
from reelmill.datasets.media.encode import write_video
from reelmill.datasets.media.picture import Scaler, even, frames_between
from reelmill.datasets.media.sound import resample
from reelmill.datasets.sample import Kind
from reelmill.errors import MediaError
from reelmill.evaluation.clip import ClipMedia
from reelmill.evaluation.damage import Damage, Footage, damaged
from reelmill.evaluation.metrics.loudness import Loudness

RATE = 48_000
TIME_BASE = Fraction(1, 90_000)
GRID_S = 0.0011  # what a container may round a time stamp by
CRF = 14  # visually lossless; the same for all
SIDE = 1280  # of the longer side, at most
MAX_SECONDS = 60.0
MAX_FOOTAGE_BYTES = 768 << 20
BLOCK = 4096
FILE_TIME = 946_684_800  # 2000-01-01
FASTEST = 120  # frames a second
QUIETEST = -50.0  # LUFS: what is quieter is not made the measure of the other clip
AUDIBLE = 1e-10  # mean square below which a clip is silent
Size = tuple[int, int]  # width, height


@dataclass(frozen=True)
class Looks:
    """What a copy is made from. size: of the upright picture; frames: as the container says."""

    path: Path
    info: MediaInfo
    size: Size
    frames: int | None

    @property
    def rate(self) -> Fraction:
        """Frames a second, as the container says; 25 where it says nothing that can be."""
        assert self.info.video is not None
        told = self.info.video.average_rate
        return told if told is not None and 1 <= told <= FASTEST else Fraction(25)


@dataclass(frozen=True)
class Copy:
    """One blind copy. loudness: LUFS, None where there is nothing loud enough to measure."""

    loudness: float | None
    silent: bool


def look(path: Path) -> Looks:
    """Raises MediaError for a clip without a picture, of more than a minute, or unreadable."""
    info = probe(path)
    if info.video is None or info.kind is Kind.IMAGE:
        raise MediaError(f"{describe(path)} is no video: people judge clips that move.")
    if info.seconds is not None and info.seconds > MAX_SECONDS:
        raise MediaError(
            f"{describe(path)} lasts {info.seconds:.0f} s; a review takes clips of at most "
            f"{MAX_SECONDS:.0f} s. Cut it first."
        )
    return Looks(path, info, (info.video.width, info.video.height), info.video.frames_expected)


def canvas(sizes: list[Size], side: int = SIDE) -> Size:
    """The picture size for all clips of a prompt: the largest, its longer side `side` at most.

    Smaller clips are scaled up, other shapes get black bars: the size tells nothing of the system.
    """
    width, height = max(w for w, _ in sizes), max(h for _, h in sizes)
    scale = min(1.0, side / max(width, height))
    return max(16, even(width * scale)), max(16, even(height * scale))


def damageable(looks: Looks, size: Size) -> bool:
    """Whether a gold pair may be made of it: its frames must fit into memory at once."""
    seconds = looks.info.seconds or MAX_SECONDS
    frames = looks.frames or float(seconds * looks.rate) + 1
    return frames * size[0] * size[1] * 3 <= MAX_FOOTAGE_BYTES


def write_copy(looks: Looks, size: Size, out: Path, damage: str = "", level: int = 0) -> Copy:
    """Writes the blind copy of a clip, damaged if so asked. Raises MediaError."""
    samples = _sound(looks)
    if damage:
        pictures, base = _stacked(looks, size)
        footage = Footage(pictures, float(1 / base), samples, RATE)
        spoiled = damaged(footage, Damage(damage), level)
        frames = (
            _frame(_framed(rgb, size), round(i * base / TIME_BASE))
            for i, rgb in enumerate(spoiled.frames)
        )
        samples = spoiled.samples
    else:
        frames = (_frame(_framed(rgb, size), tick) for tick, rgb in _pictures(looks, size))
    write_video(
        out,
        _with_durations(frames, looks.rate),
        fps=looks.rate,
        own_pts=True,
        time_base=TIME_BASE,
        audio=samples,
        audio_rate=RATE,
        audio_codec="flac",
        crf=CRF,
        container="mp4",
    )
    sound = _heard(out, looks.info, samples)
    loud = Loudness().measure(sound)
    return Copy(
        loudness=loud if isinstance(loud, float) and loud >= QUIETEST else None,
        silent=sound.mean_square < AUDIBLE,
    )


def even_out(files: list[Path]) -> int:
    """Gives all files one size and one time; returns the size in bytes.

    An MP4 `free` box at the end holds what is missing, as a hole: it takes no room on disk.
    """
    sizes = [file.stat().st_size for file in files]
    whole = -(-(max(sizes, default=0) + 8) // BLOCK) * BLOCK
    for file, size in zip(files, sizes, strict=True):
        with file.open("r+b") as out:
            out.seek(size)
            out.write((whole - size).to_bytes(4, "big") + b"free")
            out.truncate(whole)
        os.utime(file, (FILE_TIME, FILE_TIME))
    return whole


def _pictures(looks: Looks, size: Size) -> Iterator[tuple[int, np.ndarray]]:
    """(tick of TIME_BASE since the first, uint8 RGB that fits into `size`) of every frame."""
    video = looks.info.video
    assert video is not None
    width, height = size
    scale = min(width / looks.size[0], height / looks.size[1])
    w = min(width, even(looks.size[0] * scale))
    h = min(height, even(looks.size[1] * scale))
    first: int | None = None
    last = -1
    scaler = Scaler()
    begin = round(video.start_s / video.time_base)
    frames = frames_between(looks.path, begin, begin + (1 << 60))
    for index, (pts, frame) in enumerate(frames):
        first = pts if first is None else first
        seconds = (pts - first) * video.time_base
        if seconds > MAX_SECONDS:
            raise MediaError(f"{describe(looks.path)} lasts longer than {MAX_SECONDS:.0f} s.")
        even_tick = round(index / (looks.rate * TIME_BASE))
        tick = round(seconds / TIME_BASE)
        # Containers that count milliseconds are not told from those that count exactly.
        tick = even_tick if abs(tick - even_tick) * TIME_BASE <= GRID_S else tick
        tick = max(last + 1, tick)
        last = tick
        yield tick, scaler.rgb(frame, w, h, video.rotation)
    if first is None:
        raise MediaError(f"{describe(looks.path)}: no picture could be decoded.")


def _heard(path: Path, info: MediaInfo, samples: np.ndarray) -> ClipMedia:
    """The sound of a copy, as the metrics of sound read it."""
    return ClipMedia(
        path=path,
        info=info,
        times=np.zeros(0),
        end=0.0,
        gray=np.zeros((0, 0, 0), np.uint8),
        colour=np.zeros((0, 3), np.float32),
        stills=np.zeros((0, 0, 0, 3), np.uint8),
        cuts=(),
        samples=samples,
        rate=RATE,
        sound_start=0.0,
    )


def _framed(rgb: np.ndarray, size: Size) -> np.ndarray:
    """The picture in the middle of the canvas, with black bars where it is of another shape."""
    height, width = rgb.shape[:2]
    left, top = (size[0] - width) // 2, (size[1] - height) // 2
    bars = (top, size[1] - height - top, left, size[0] - width - left)
    return cv2.copyMakeBorder(rgb, *bars, cv2.BORDER_CONSTANT) if any(bars) else rgb


def _stacked(looks: Looks, size: Size) -> tuple[np.ndarray, Fraction]:
    """All frames, and the mean time from one to the next in seconds."""
    frames, held, tick = [], 0, 0
    for tick, rgb in _pictures(looks, size):  # noqa: B007 - the last is used
        frames.append(rgb)
        held += rgb.nbytes
        if held > MAX_FOOTAGE_BYTES:
            raise MediaError(f"{describe(looks.path)}: too many frames to damage at once.")
    step = tick * TIME_BASE / (len(frames) - 1) if len(frames) > 1 else 1 / looks.rate
    return np.stack(frames), step


def _frame(rgb: np.ndarray, tick: int) -> av.VideoFrame:
    plain = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24")
    frame = plain.reformat(format="yuv420p", dst_colorspace="ITU601", dst_color_range="MPEG")
    frame.colorspace, frame.color_range = 6, 1
    frame.pts, frame.time_base = tick, TIME_BASE
    return frame


def _with_durations(frames: Iterator[av.VideoFrame], rate: Fraction) -> Iterator[av.VideoFrame]:
    """Each lasts until the next; the last as long as the rate says."""
    held: av.VideoFrame | None = None
    for frame in frames:
        if held is not None:
            held.duration = (frame.pts or 0) - (held.pts or 0)
            yield held
        held = frame
    if held is not None:
        held.duration = max(1, round(1 / (rate * TIME_BASE)))
        yield held


def _sound(looks: Looks) -> np.ndarray:
    """float32 [2, n] at 48 kHz, sample 0 at the first frame. A clip without sound is silent."""
    info = looks.info
    assert info.video is not None
    if info.audio is None:
        return np.zeros((2, round((info.seconds or 1.0) * RATE)), np.float32)
    most = round((MAX_SECONDS + 1) * info.audio.rate)
    blocks, held = [], 0
    for block in decode_audio(looks.path, info):
        blocks.append(_stereo(block.samples))
        held += block.samples.shape[1]
        if held > most:
            raise MediaError(f"{describe(looks.path)}: its sound is longer than a minute.")
    if not blocks:
        return np.zeros((2, round((info.seconds or 1.0) * RATE)), np.float32)
    sound = np.concatenate(blocks, axis=1)
    late = round((info.audio.start_s - info.video.start_s) * info.audio.rate)
    if late > most:
        raise MediaError(f"{describe(looks.path)}: its sound begins after {MAX_SECONDS:.0f} s.")
    sound = np.pad(sound, ((0, 0), (late, 0))) if late > 0 else sound[:, -late:]
    if info.audio.rate == RATE:
        return sound
    return np.stack([resample(row, info.audio.rate, RATE) for row in sound])


def _stereo(samples: np.ndarray) -> np.ndarray:
    """float32 [2, n] of [channels, n]; more than two in FFmpeg's order: L R C LFE surrounds."""
    if len(samples) == 2:
        return samples
    if len(samples) == 1:
        return np.repeat(samples, 2, axis=0)
    front = samples[:2].copy()
    half = np.float32(np.sqrt(0.5))
    front += half * samples[2]
    for i, channel in enumerate(samples[4:]):
        front[i % 2] += half * channel
    return (front / (1 + 2 * half)).astype(np.float32)
