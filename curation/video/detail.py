"""How much resolution is really there: detail by frequency, bits by pixel."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import numpy as np
from scipy.fft import rfft

from reelmill.curation.stage import (
    VISUAL,
    Bound,
    Fact,
    Facts,
    FrameStage,
    NotApplicable,
    Tracks,
    at_least,
)
from reelmill.curation.video.sampling import Sampling, within
from reelmill.datasets.media.decode import DecodeSummary, Frame, MediaInfo
from reelmill.datasets.sample import Clip

LINES = 16  # rows, and columns, that are looked at in a picture
BANDS = 16  # of the spectrum
LOW = slice(1, 5)  # bands that tell how much detail the picture has at all
LEAST = 0.25  # of the energy of those: -6 dB
MIN_SIDE = 32
MIN_POWER = 1.0  # mean square of luma about a line's mean: less is a flat picture


@dataclass(frozen=True, kw_only=True)
class Detail(FrameStage):
    """The frequency up to which a picture holds detail, and the bits spent on a pixel.

    A picture that was enlarged has nothing above its old resolution. The spectrum of rows (and of
    columns) weighted by frequency squared, that is of the picture's slope, is about flat for
    natural pictures (Field 1987). `detail` is where it falls 6 dB below that of the low
    frequencies, as a share of the highest frequency that the size can hold, the lesser of both
    directions: mostly 0.5 to 1 for pictures of their own size, half of that for what was enlarged
    twice. Measured in the coded picture in frames taken at `fps`; the median over the clip.
    `effective_height` is the height that would hold that detail, which is lower than the true one
    for soft pictures too. `bits_per_pixel` takes the whole file, sound included; Open-Sora 2.0
    drops below 0.02, which newer codecs pass under without fault, hence no bound by default. The
    bound on detail is ours, from clips enlarged on purpose: it drops what was enlarged four times.
    """

    kinds: ClassVar = VISUAL
    paper: ClassVar = "section 3.4, basic quality: resolution"
    coded: ClassVar = True
    adds: ClassVar = (
        Fact("detail", "", "Highest frequency with detail, of what the size can hold.", 0, 1),
        Fact("effective_height", "pixels", "Height that would hold this detail.", 0, 2160),
        Fact("bits_per_pixel", "bits", "Of the file, sound included.", 1e-4, 10, log=True),
    )
    fps: float = 1.0
    min_detail: Bound = at_least(0.285, "detail", "enlarged")
    min_effective_height: Bound = at_least(None, "effective_height", "enlarged")
    min_bits_per_pixel: Bound = at_least(None, "bits_per_pixel", "low_bit_rate")

    def open(self, info: MediaInfo) -> _Spectra:
        return _Spectra(self.fps)

    def facts(self, tracks: Tracks, clip: Clip, info: MediaInfo) -> Facts:
        if info.video is None:
            return {fact.name: NotApplicable("no picture") for fact in self.adds}
        values = tracks["detail"][within(clip, tracks["frame"])]
        pixels = info.video.coded_width * info.video.coded_height * int(tracks["frames"][0])
        bits = 8 * info.bytes / pixels
        if not len(values):
            flat = NotApplicable("no sampled frame is large enough and not flat")
            return {"detail": flat, "effective_height": flat, "bits_per_pixel": bits}
        detail = float(np.median(values))
        return {
            "detail": detail,
            "effective_height": detail * info.video.height,
            "bits_per_pixel": bits,
        }


def detail(luma: np.ndarray) -> float | None:
    """Of one picture, uint8 [height, width]; None where it is flat."""
    found = [_highest(luma), _highest(luma.T)]
    known = [frequency for frequency in found if frequency is not None]
    return min(known) if known else None


def _highest(lines: np.ndarray) -> float | None:
    chosen = lines[:: max(1, len(lines) // LINES)].astype(np.float32)
    chosen -= chosen.mean(axis=1, keepdims=True)
    if float(np.square(chosen).mean()) < MIN_POWER:
        return None
    window, weight, starts = _bands(lines.shape[1])
    spectrum = rfft(chosen * window)
    power = (spectrum.real**2 + spectrum.imag**2).mean(axis=0)
    slope = np.add.reduceat(power * weight, starts)
    level = slope / slope[LOW].mean()
    weak = np.flatnonzero(level[LOW.stop :] < LEAST)
    if not len(weak):
        return 1.0
    last = LOW.stop + int(weak[0]) - 1  # where between the middles of two bands the level is LEAST
    high, low = np.log(max(level[last], LEAST)), np.log(max(level[last + 1], 1e-9))
    return float((last + 0.5 + (high - np.log(LEAST)) / max(high - low, 1e-9)) / BANDS)


@lru_cache(maxsize=8)
def _bands(length: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(window float32 [length], weight [bins], first bin of each band) of a line's spectrum.

    The weight is frequency squared over the number of bins in the band.
    """
    frequency = np.linspace(0, 1, length // 2 + 1)
    band = np.minimum((frequency * BANDS).astype(np.int64), BANDS - 1)
    starts = np.searchsorted(band, np.arange(BANDS))
    weight = frequency**2 / np.bincount(band, minlength=BANDS)[band]
    return np.hanning(length).astype(np.float32), weight.astype(np.float32), starts


class _Spectra:
    def __init__(self, fps: float):
        self._sampling = Sampling(fps)
        self._rows: list[tuple[int, float]] = []

    def frame(self, frame: Frame) -> None:
        if self._sampling.takes(frame.seconds):
            luma = frame.full_luma
            found = detail(luma) if min(luma.shape) >= MIN_SIDE else None
            if found is not None:
                self._rows.append((frame.index, found))

    def finish(self, summary: DecodeSummary) -> dict[str, np.ndarray]:
        return {
            "frame": np.array([index for index, _ in self._rows], np.int64),
            "detail": np.array([value for _, value in self._rows], np.float64),
            "frames": np.array([max(1, len(summary.frame_pts))], np.int64),
        }
