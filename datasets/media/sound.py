"""Decoded sound: float samples in one unbroken row, gaps filled and counted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from fractions import Fraction
from itertools import chain
from math import floor, gcd
from pathlib import Path

import av.error
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.container import InputContainer

from reelmill.datasets.media.container import decoded, describe, open_container, pick_streams
from reelmill.errors import MediaError

# A jump of timestamps below this is a container's rounding or drift, not lost sound. The smallest
# loss in practice is one codec frame: 20 ms (Opus) to 26 ms (MP3).
GAP_S = 0.01
MAX_GAP_S = 600.0
PREROLL_S = 1.0  # decoded before a seek's target: codecs with overlap or memory settle in it
BLOCK_MS = 3_200  # a multiple of the windows that sound is measured in: 32, 100, 128 ms
LONGEST = 4  # such blocks in one: at low rates, so that calls for each block weigh no more there
_LOUDEST = 1e6
# What FFmpeg's formats of samples hold, and what full scale is; 0: it is 1.
_KINDS: Mapping[str, tuple[type, float]] = {
    "u8": (np.uint8, 2.0**7),
    "s16": (np.int16, 2.0**15),
    "s32": (np.int32, 2.0**31),
    "s64": (np.int64, 2.0**63),
    "flt": (np.float32, 0),
    "dbl": (np.float64, 0),
}


def as_float(frame: AudioFrame, out: np.ndarray | None = None) -> np.ndarray:
    """float32 [channels, samples] of a decoded frame, in `out` where that has its shape.

    A channel that the decoder gave no samples of is left out.
    """
    name, count = frame.format.name, frame.samples
    planar = name.endswith("p")
    kind, half = _KINDS[name.removesuffix("p")]
    channels = frame.layout.nb_channels
    rows: Iterable[np.ndarray]
    if planar:  # a damaged stream's frames may have more planes or fewer than they have channels
        planes = frame.planes[:channels]
        channels = len(planes)
        rows = [_floats(np.frombuffer(p, kind, count), half) for p in planes]  # type: ignore[call-overload]
    else:  # made to floats before they are parted: in one row that is four times as fast
        row = np.frombuffer(frame.planes[0], kind, count * channels)  # type: ignore[call-overload]
        rows = _floats(row, half).reshape(-1, channels).T
    if out is None or out.shape != (channels, count):
        out = np.empty((channels, count), np.float32)
    for samples, place in zip(rows, out, strict=True):
        place[:] = samples
    return out


def _floats(row: np.ndarray, half: float) -> np.ndarray:
    """Numbers of any kind of which full scale is `half` (0: 1) as floats."""
    if not half:
        return row
    floats = row.astype(np.float32)
    floats *= 1 / half  # exact, as a power of two
    if row.dtype == np.uint8:
        floats -= 1
    return floats


def sane(samples: np.ndarray) -> bool:
    """Whether values are those of sound; where they are not, they are bounded in place."""
    if samples.size and not max(float(samples.max()), -float(samples.min())) <= _LOUDEST:
        np.clip(np.nan_to_num(samples, copy=False), -_LOUDEST, _LOUDEST, out=samples)
        return False
    return True


def block_ms(rate: int) -> int:
    """Length of the blocks that sound comes in: about as many samples at any rate."""
    return BLOCK_MS * min(LONGEST, max(1, 48_000 // rate))


class SoundRow:
    """Puts decoded frames into one row of samples, in blocks that end at multiples of `block_ms`.

    Sample n stands at `start + n / rate` on the container's clock. Where timestamps leave a gap,
    silence is put in; where they overlap, the second sound is dropped. Both are counted.
    """

    def __init__(self, rate: int, channels: int, start: Fraction, time_base: Fraction):
        self.rate, self.channels = rate, channels
        self.gap_samples = 0
        self.errors = 0
        self.count = 0
        self.per_tick = time_base * rate
        self._shift_by(-start * rate)
        self._tolerance = max(GAP_S * rate, float(self.per_tick) * 1.5)
        self.begin(0)

    @classmethod
    def of(cls, rate: int, channels: int, start_s: float, stream: AudioStream) -> SoundRow:
        time_base = stream.time_base or Fraction(1, rate)
        # Back from seconds to the exact tick that they came from.
        return cls(rate, channels, round(start_s / time_base) * time_base, time_base)

    def begin(self, at: int) -> None:
        """Counts on from sample `at`, after a seek."""
        self.count = at
        self._open()

    def _open(self) -> None:
        """Makes room for the samples up to the next edge."""
        self._from = self.count
        length = self.rate * block_ms(self.rate)  # in thousandths of a sample
        blocks = self.count * 1000 // length + 1
        self._edge = blocks * length // 1000
        if self._edge <= self.count:
            self._edge = (blocks + 1) * length // 1000
        self._block = np.empty((self.channels, self._edge - self._from), np.float32)
        self._bytes = [row.data.cast("B") for row in self._block]

    def _shift_by(self, shift: Fraction) -> None:
        """Sets the sample number of timestamp 0."""
        self._shift = shift
        self._below = self.per_tick.denominator * shift.denominator
        self._each = self.per_tick.numerator * shift.denominator
        self._more = shift.numerator * self.per_tick.denominator

    def index(self, pts: int) -> int:
        """Sample number of a timestamp: round(pts * per_tick + shift), in whole numbers."""
        whole, rest = divmod(pts * self._each + self._more, self._below)
        return whole + (2 * rest > self._below or (2 * rest == self._below and whole % 2 == 1))

    def ticks(self, index: int) -> int:
        """Timestamp at or before a sample."""
        return floor((index - self._shift) / self.per_tick)

    def push(self, frame: AudioFrame) -> Iterable[tuple[int, np.ndarray]]:
        """Takes a frame; gives (first sample, float32 [channels, n]) of each block it completes."""
        if frame.sample_rate != self.rate:
            self.errors += 1  # a stream that changes its rate: its place stays silent
            return ()
        jump = 0 if frame.pts is None else self.index(frame.pts) - self.count
        if abs(jump) <= self._tolerance and self.count + frame.samples < self._edge:
            at = self.count - self._from  # all but a few frames: no copy on the way
            if self._copy(frame, at):
                self.count += frame.samples
                return ()
            place = self._block[:, at : at + frame.samples]
            if as_float(frame, place).base is self._block:
                self.count += frame.samples
                return ()
        return self._push(frame, jump)

    def _copy(self, frame: AudioFrame, at: int) -> bool:
        """Whether a frame was one of floats for each channel, as most codecs give; then its bytes
        stand at sample `at` of the block: no array is made for each of 2,600 frames a minute.
        """
        planes, size = frame.planes, 4 * frame.samples
        if (
            frame.format.name != "fltp"
            or not len(planes) == self.channels == frame.layout.nb_channels
        ):
            return False
        for row, plane in zip(self._bytes, planes, strict=True):
            row[4 * at : 4 * at + size] = memoryview(plane)[:size]
        return True

    def _push(self, frame: AudioFrame, jump: int) -> Iterator[tuple[int, np.ndarray]]:
        samples = as_float(frame)
        if len(samples) != self.channels:
            self.errors += 1
            mono = samples.sum(axis=0, keepdims=True) / max(len(samples), 1)
            samples = np.repeat(mono, self.channels, axis=0)
        if abs(jump) > MAX_GAP_S * self.rate:
            self.errors += 1  # the clock was set anew
            self._shift_by(self._shift - jump)
        elif jump > self._tolerance:
            self.gap_samples += jump
            yield from self._add(np.zeros((self.channels, jump), np.float32))
        elif jump < -self._tolerance:
            self.gap_samples += min(-jump, samples.shape[1])
            samples = samples[:, -jump:]
        yield from self._add(samples)

    def _add(self, samples: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        while samples.shape[1]:
            at = self.count - self._from
            part = samples[:, : self._edge - self.count]
            self._block[:, at : at + part.shape[1]] = part
            self.count += part.shape[1]
            samples = samples[:, part.shape[1] :]
            if self.count == self._edge:
                yield from self.flush()

    def flush(self) -> Iterator[tuple[int, np.ndarray]]:
        if self.count > self._from:
            start, block = self._from, self._block[:, : self.count - self._from]
            self._open()
            self.errors += not sane(block)
            yield start, block


class MonoResampler:
    """Streams mono float32 sound from one rate to another (swresample). No delay is added."""

    def __init__(self, source: int, target: int):
        self._source, self._same, self._at = source, source == target, 0
        self._resampler = AudioResampler(format="flt", layout="mono", rate=target)

    def push(self, mono: np.ndarray) -> np.ndarray:
        if self._same or not len(mono):
            return mono
        frame = AudioFrame.from_ndarray(mono.reshape(1, -1), format="flt", layout="mono")
        frame.sample_rate = self._source
        frame.pts, frame.time_base = self._at, Fraction(1, self._source)
        self._at += len(mono)
        return self._join(self._resampler.resample(frame))

    def flush(self) -> np.ndarray:
        if self._same or not self._at:
            return np.empty(0, np.float32)
        return self._join(self._resampler.resample(None))

    @staticmethod
    def _join(frames: list[AudioFrame]) -> np.ndarray:
        arrays = [frame.to_ndarray()[0] for frame in frames]
        return np.concatenate(arrays) if arrays else np.empty(0, np.float32)


def resample(mono: np.ndarray, source: int, target: int) -> np.ndarray:
    """float32 [n] at `source` Hz to [about n * target / source] at `target` Hz."""
    resampler = MonoResampler(source, target)
    return np.concatenate([resampler.push(mono), resampler.flush()])


def context(source: int, target: int) -> tuple[int, int]:
    """(source samples, target samples) of one stretch of at least 50 ms, whole at both rates."""
    divisor = gcd(source, target)
    steps = -(-source // 20 // (source // divisor)) or 1
    return steps * (source // divisor), steps * (target // divisor)


def sound_between(
    path: Path, rate: int, channels: int, start_s: float, first: int, last: int
) -> tuple[np.ndarray, int]:
    """(float32 [channels, last - first], sounding): samples [first, last) of a file's sound.

    They are counted from its start and equal to what a decode from the start gives (but for the
    random noise that AAC decoders put in place of noise). Outside of the sound there is silence;
    `sounding` is the number of samples inside.
    """
    out = np.zeros((channels, last - first), np.float32)
    if first >= last or last <= 0:
        return out, 0
    target = first - round(PREROLL_S * rate)
    for seeks in (True, False) if target > 0 else (False,):
        with open_container(path) as container:
            _, stream = pick_streams(container, path)
            if stream is None:
                raise MediaError(f"{describe(path)} has no sound.")
            row = SoundRow.of(rate, channels, start_s, stream)
            frames = decoded(container, stream)
            if seeks:
                grid = _Grid(row, frames)
                if not grid.seek(container, stream, target):
                    continue
                frames = decoded(container, stream)
                head = next((f for f in frames if grid.place(f) is not None), None)
                at = None if head is None else grid.place(head)
                if head is None or at is None or at > first:
                    continue  # the seek went too far
                row.begin(at)
                frames = chain((head,), frames)
            sounding = 0
            for frame in frames:
                sounding += _copy(row.push(frame), first, out)
                if row.count >= last:
                    break
            return out, sounding + _copy(row.flush(), first, out)
    raise MediaError(f"{describe(path)}: its sound cannot be read.")


def _copy(blocks: Iterable[tuple[int, np.ndarray]], first: int, out: np.ndarray) -> int:
    copied = 0
    for start, samples in blocks:
        low, high = max(start, first), min(start + samples.shape[1], first + out.shape[1])
        if low < high:
            out[:, low - first : high - first] = samples[:, low - start : high - start]
            copied += high - low
    return copied


class _Grid:
    """Places the first frame after a seek to the sample.

    A clock that cannot tell samples (1 ms in Matroska, 1/90000 s in MPEG-TS) tells frames: those
    of one codec all have one size, but for the first, whose priming is cut off.
    """

    def __init__(self, row: SoundRow, frames: Iterator[AudioFrame]):
        self._row = row
        self._exact = (1 / row.per_tick).denominator == 1
        self._lead = self._size = 0
        if not self._exact:
            sizes = [frame.samples for frame, _ in zip(frames, range(3), strict=False)]
            if len(sizes) == 3 and sizes[1] == sizes[2]:
                self._lead, self._size = sizes[0], sizes[1]

    def seek(self, container: InputContainer, stream: AudioStream, target: int) -> bool:
        try:
            container.seek(self._row.ticks(target), stream=stream, backward=True)
        except av.error.FFmpegError:
            return False
        return True

    def place(self, frame: AudioFrame) -> int | None:
        """Sample number of a frame; None for one that cannot be placed."""
        if frame.pts is None or (self._size and frame.samples != self._size):
            return None
        at = self._row.index(frame.pts)
        if not self._size:
            return at
        nearest = self._lead + round((at - self._lead) / self._size) * self._size
        return nearest if abs(nearest - at) <= 1.5 * self._row.per_tick + 1 else at
