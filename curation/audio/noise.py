"""Noise: how far a clip's sound stands out of the noise beneath it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from reelmill.curation.audio.loudness import FLOOR
from reelmill.curation.audio.windows import Grid, WindowHeads, WindowListener, Windows
from reelmill.curation.stage import (
    AudioStage,
    Bound,
    Fact,
    Facts,
    NotApplicable,
    Tracks,
    at_least,
)
from reelmill.datasets.media.clock import sound_span
from reelmill.datasets.media.decode import DecodeSummary, MediaInfo
from reelmill.datasets.sample import Clip

WINDOW_MS = 128  # long enough to tell a held note from hiss
BANDS = 24  # equal steps of mel from LOWEST to half the sample rate
LOWEST = 60.0  # Hz: below is rumble that nobody hears
LEAST_BINS = 8  # of a band
LEAST_WINDOWS = 6
QUANTILE = 0.2  # of a band's windows that are taken for noise alone
HANN_BINS = 1.5  # neighbouring bins that count as one independent value under a Hann window
PAUSE_DB = 30.0  # what lies further below the loudest does not count as sound that stands out
FLAT = float(np.exp(-np.euler_gamma))  # spectral flatness of Gaussian noise
STEADY_DB = -6.0


def mel_edges(rate: int, size: int) -> np.ndarray:
    """int64 [bands + 1]: first bin of each band of a spectrum of `size` samples at `rate` Hz."""
    top = 2595 * np.log10(1 + rate / 2 / 700)
    low = 2595 * np.log10(1 + LOWEST / 700)
    hz = 700 * (10 ** (np.linspace(low, top, BANDS + 1) / 2595) - 1)
    edges: list[int] = []
    for bin_ in np.ceil(hz * size / rate).astype(int).tolist():
        if not edges or bin_ - edges[-1] >= LEAST_BINS:
            edges.append(bin_)
    edges[-1] = size // 2 + 1
    return np.array(edges, np.int64)


def floor_of(power: np.ndarray, bins: np.ndarray) -> np.ndarray:
    """float64 [bands]: mean power of the noise in each band, from float64 [windows, bands].

    The quietest QUANTILE of a band's windows hold noise alone; the power of Gaussian noise over n
    bins follows a gamma distribution, whose own quantile says by how much those are too low.
    """
    from scipy.special import gammaincinv

    shape = bins / HANN_BINS
    return np.quantile(power, QUANTILE, axis=0) * shape / gammaincinv(shape, QUANTILE)


class _Analyser(WindowListener):
    def __init__(self, info: MediaInfo):
        from scipy.fft import prev_fast_len

        super().__init__(Grid(info.audio.rate, WINDOW_MS) if info.audio else None)
        self._edges = np.array([0, 1], np.int64)
        self._power: list[np.ndarray] = []
        self._flat: list[np.ndarray] = []
        if info.audio is not None:
            size = prev_fast_len(info.audio.rate * WINDOW_MS // 1000, real=True)
            self._edges = mel_edges(info.audio.rate, size)
            hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(size) / size)
            # Scaled so that the sum over all bins is the mean square of the window.
            scaled = (hann * np.sqrt(2 / np.square(hann).sum() / size)).astype(np.float32)
            self._heads = WindowHeads(scaled)

    def measure(self, windows: Windows) -> None:
        from scipy.fft import rfft

        if not windows.whole:
            return
        samples, edges = windows.samples, windows.edges
        widths = np.diff(self._edges)
        starts, total = self._edges[:-1], len(samples)
        powers = np.zeros((len(edges) - 1, len(widths)))
        flats = np.zeros_like(powers)
        for channel in samples:  # one at a time stays in the processor's cache
            spectrum = rfft(self._heads(channel, edges), overwrite_x=True)
            bins = np.square(spectrum.real) + np.square(spectrum.imag)
            power = np.add.reduceat(bins, starts, axis=1)
            bins += 1e-20
            logs = np.add.reduceat(np.log(bins, out=bins), starts, axis=1) / widths
            powers += power
            flats += np.exp(logs) / (power / widths + 1e-20)
        self._power.append(powers / total)
        self._flat.append(flats / total)

    def finish(self, summary: DecodeSummary) -> dict[str, np.ndarray]:
        self.flush()
        power = np.concatenate(self._power) if self._power else np.zeros((0, 1))
        flat = np.concatenate(self._flat) if self._flat else np.zeros((0, 1))
        return {
            "power": power.astype(np.float32),
            "flat": flat.astype(np.float32),
            "bins": np.diff(self._edges),
        }


@dataclass(frozen=True, kw_only=True)
class Noise(AudioStage):
    """Ratio of what stands out to the steady noise beneath it, for speech and any other sound.

    Track: power and spectral flatness per 128 ms and mel band, at the file's own rate, mean over
    channels. The noise of a band is what its quietest fifth of windows says (`floor_of`); the
    sound is the excess over it, in windows that reach within 30 dB of the loudest. Windows of
    digital silence say nothing of noise and are left out.

    It is blind to two things, and says so instead of a number: a sound that never pauses has no
    windows of noise alone (its quietest windows are then held notes, not hiss: their flatness is
    below `min_flatness` of that of noise), and a steady sound such as rain has nothing that stands
    out of it. Noise that comes and goes, as thunder does, is taken for sound.

    The paper filters by SNR (section 3.4) without a number; 5 dB is ours.
    """

    adds: ClassVar = (
        Fact("snr", "dB", "Sound that stands out over the noise beneath it.", -10.0, 60.0),
        Fact("noise_floor", "dBFS", "Mean square of the steady noise.", FLOOR, 0.0),
    )
    paper: ClassVar = "section 3.4"
    min_flatness: float = 0.65
    min_snr: Bound = at_least(5.0, "snr", "noisy")

    def open(self, info: MediaInfo) -> _Analyser:
        return _Analyser(info)

    def facts(self, tracks: Tracks, clip: Clip, info: MediaInfo) -> Facts:
        names = ("snr", "noise_floor")
        if info.audio is None or not len(tracks["power"]):
            none = "no sound" if info.audio is None else "shorter than 128 ms"
            return dict.fromkeys(names, NotApplicable(none))
        grid = Grid(info.audio.rate, WINDOW_MS)
        first, last = sound_span(clip, info)
        total = int(grid.edges(0, len(tracks["power"]))[-1])
        windows, shares = grid.shares(first, last, total)
        whole = shares == np.diff(grid.edges(windows.start, windows.stop))
        power = tracks["power"][windows][whole].astype(np.float64)
        flat = tracks["flat"][windows][whole]
        heard = power.sum(axis=1) > 10 ** (FLOOR / 10)
        if heard.sum() < LEAST_WINDOWS:
            few = f"less than {LEAST_WINDOWS * WINDOW_MS / 1000:.2f} s of sound"
            return dict.fromkeys(names, NotApplicable(few))
        power, flat = power[heard], flat[heard]
        floor = floor_of(power, tracks["bins"])
        noise = max(float(floor.sum()), 10 ** (FLOOR / 10))
        level = float(10 * np.log10(noise))
        quiet = power <= np.quantile(power, QUANTILE, axis=0)
        flatness = (flat * quiet).sum(axis=0) / quiet.sum(axis=0) / FLAT
        if float(floor @ flatness) < self.min_flatness * float(floor.sum()):
            held = NotApplicable("its quietest part is no noise: sound that never pauses")
            return dict.fromkeys(names, held)
        excess = np.maximum(power.sum(axis=1) - noise, 0)
        loud = excess[excess > np.quantile(excess, 0.95) * 10 ** (-PAUSE_DB / 10)]
        ratio = float(10 * np.log10(loud.mean() / noise)) if len(loud) else -np.inf
        if ratio < STEADY_DB:
            return {"snr": NotApplicable("steady sound: nothing stands out"), "noise_floor": level}
        return {"snr": ratio, "noise_floor": level}
