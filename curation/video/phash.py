"""Perceptual hashes of a clip, for finding its near duplicates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import cv2
import numpy as np
from PIL import Image
from scipy.fftpack import dct

from reelmill.curation.stage import Fact, Facts, FrameStage, NotApplicable, Tracks
from reelmill.curation.video.sampling import Sampling, shrunk, within
from reelmill.datasets.media.decode import DecodeSummary, Frame, MediaInfo
from reelmill.datasets.sample import Clip

BORDER_LUMA = 12.0  # rows and columns darker than this on average, at the edges, are bars
MIN_PICTURE = 0.25  # of the frame; with less left it is a dark picture, not one with bars
MIN_DEVIATION = 2.0  # of luma; a flatter frame has a hash of noise
HEX = 16  # characters of one hash
TIME_DIGITS = 6  # characters of one time: up to 4.6 hours
CROPPED = 0.1  # of the width and of the height, that the inner picture lacks
PICTURE = 128  # pixels of the longer side that is hashed: half of the shared frames'
_SIDE = 32  # what imagehash.phash reduces to: 8 x 4
_DCT = dct(np.eye(_SIDE), axis=0)[:8]  # its first 8 rows: low frequencies are all that is read
_TRACKS = {"frame": np.int64, "seconds": np.float64} | dict.fromkeys(
    ("phash", "phash_mirrored", "phash_inner"), np.uint64
)
_MIRROR = np.where(np.arange(8) % 2, -1.0, 1.0)


@dataclass(frozen=True, kw_only=True)
class PHash(FrameStage):
    """imagehash's pHash of the picture without its black bars, of its mirror image, and of its
    inner nine tenths, `fps` times a second; an image has one. Taken at 128 pixels of the longer
    side.

    64 bits each, as 16 hexadecimal digits, joined in order of time. Frames of one flat tone have
    no hash. A copy cropped by a tenth was 10 bits apart in the mean and 24 at most, and from the
    inner picture's hash 4 at most (8 real clips). At 2 fps copies that begin 1.3 s later were up to
    18 bits apart in fast motion, at 4 fps at most 6 (measured at 256 pixels). source_pixels and
    source_bytes say which of two duplicates is the better copy.
    """

    paper: ClassVar = "section 3.4, deduplication; here by perceptual hash"
    adds: ClassVar = (
        Fact("phash", "", "Hashes of the sampled frames, hexadecimal.", dtype=str),
        Fact("phash_mirrored", "", "Hashes of the same frames, mirrored.", dtype=str),
        Fact("phash_inner", "", "Hashes of the inner nine tenths of them.", dtype=str),
        Fact("phash_ms", "", "When in the clip: milliseconds, six digits each.", dtype=str),
        Fact("source_pixels", "pixels", "Width times height of the file.", 0, 4e6, int),
        Fact("source_bytes", "bytes", "Size of the file.", 1e3, 1e10, int, log=True),
    )
    fps: float = 4.0

    def open(self, info: MediaInfo) -> _Hashes:
        return _Hashes(self.fps)

    def facts(self, tracks: Tracks, clip: Clip, info: MediaInfo) -> Facts:
        here = within(clip, tracks["frame"])
        pixels = info.video.width * info.video.height if info.video else 0
        found: dict[str, str | int | NotApplicable] = {
            "source_pixels": pixels,
            "source_bytes": info.bytes,
        }
        seconds = tracks["seconds"][here]
        begin = float((clip.start_pts - clip.origin_pts) * clip.time_base)
        texts = {
            "phash": [f"{h:016x}" for h in tracks["phash"][here].tolist()],
            "phash_mirrored": [f"{h:016x}" for h in tracks["phash_mirrored"][here].tolist()],
            "phash_inner": [f"{h:016x}" for h in tracks["phash_inner"][here].tolist()],
            "phash_ms": [f"{_ms(s - begin):06x}" for s in seconds.tolist()],
        }
        flat = NotApplicable("no sampled frame has any structure")
        return found | {name: "".join(each) if each else flat for name, each in texts.items()}


def hashes_of(text: str) -> np.ndarray:
    """uint64 [frames] of a `phash` fact."""
    return np.frombuffer(bytes.fromhex(text), ">u8").astype(np.uint64)


def without_bars(gray: np.ndarray) -> np.ndarray:
    """The picture inside its black bars, a view of uint8 [height, width]."""
    inner = gray
    for axis in (0, 1):
        means = cv2.reduce(inner, 1 - axis, cv2.REDUCE_AVG, dtype=cv2.CV_32F)
        lit = np.flatnonzero(means > BORDER_LUMA)
        if not len(lit):
            return gray
        cut = slice(int(lit[0]), int(lit[-1]) + 1)
        inner = inner[cut] if axis == 0 else inner[:, cut]
    return inner if inner.size >= MIN_PICTURE * gray.size else gray


class _Hashes:
    def __init__(self, fps: float):
        self._sampling = Sampling(fps)
        self._rows: list[tuple[int, float, int, int, int]] = []

    def frame(self, frame: Frame) -> None:
        if not self._sampling.takes(frame.seconds):
            return
        inner = shrunk(without_bars(frame.gray), PICTURE)
        if cv2.meanStdDev(inner)[1][0, 0] < MIN_DEVIATION:
            return
        self._rows.append((frame.index, frame.seconds, *phash(inner), inner_phash(inner)))

    def finish(self, summary: DecodeSummary) -> dict[str, np.ndarray]:
        columns = zip(*self._rows, strict=True) if self._rows else ((),) * len(_TRACKS)
        return {
            name: np.array(column, dtype)
            for (name, dtype), column in zip(_TRACKS.items(), columns, strict=True)
        }


def phash(gray: np.ndarray) -> tuple[int, int]:
    """64 bits of uint8 [height, width], and of its mirror image: imagehash.phash's, bit for bit.

    Mirroring a picture turns the sign of every odd column of its DCT, so one transform does both.
    """
    picture = Image.fromarray(np.ascontiguousarray(gray))
    pixels = np.asarray(picture.resize((_SIDE, _SIDE), Image.Resampling.LANCZOS))
    low = _DCT @ pixels @ _DCT.T
    return _bits(low), _bits(low * _MIRROR)


def inner_phash(gray: np.ndarray) -> int:
    """phash of what a crop by a tenth leaves of uint8 [height, width], to a bit or two.

    Reduced over areas, in a third of the time. What it is compared with is reduced by Lanczos'
    filter: real pictures and their crops were as near as with that on both sides.
    """
    height, width = gray.shape
    y, x = round(height * CROPPED / 2), round(width * CROPPED / 2)
    part = gray[y : height - y, x : width - x]
    pixels = cv2.resize(part, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
    return _bits(_DCT @ pixels.astype(np.float64) @ _DCT.T)


def _ms(seconds: float) -> int:
    return min(max(round(seconds * 1000), 0), 16**TIME_DIGITS - 1)


def _bits(low: np.ndarray) -> int:
    middle = np.partition(low, (31, 32), axis=None)[31:33].mean()  # np.median, but quicker
    return int.from_bytes(np.packbits(low > middle).tobytes(), "big")
