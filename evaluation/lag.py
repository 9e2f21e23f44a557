"""By how much sound follows motion, from the part of the picture that it seems to come from.

A hit, a step or a mouth moves a small part of a picture in which much else moves too, so each of
12 x 12 blocks is compared with the sound, and the few that follow it best at some lag count. They
would follow any sound a little at some lag; so an answer is only given when its lag stands out from
all others, and when both halves of the clip, each by itself, give the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np
from scipy.fft import irfft, next_fast_len, rfft
from scipy.ndimage import gaussian_filter1d

ENVELOPE_HZ = 100
WINDOW_S = 0.032
FLOOR_DB = 60.0  # below the loudest band; what is fainter begins nothing
NOTHING = 1e-5  # full scale: digital silence
SETS_IN = 5  # hundredths of a second
BLOCKS = 12
BEST = 8  # blocks: a twentieth of the picture
SMOOTH_S, SLOW_S = 0.03, 0.5  # what is quicker is noise, what is slower no event
MAX_LAG_S = 0.6
POWER = 0.5  # of motion: else one big movement is all that counts
WIDEST_S = 3.0  # lags against which the best is judged
SAME_S = 0.15
AGREE_S = 0.1
SHORTEST_S = 3.0


@dataclass(frozen=True)
class Lag:
    """seconds: by which sound follows motion; positive: late. correlation: of the best blocks.

    lead: correlation over the highest at a lag further than 0.15 s away. z: its distance from the
    mean of those, in standard deviations. first, second: of the halves. seen, heard: the envelopes
    that were compared, float64 at 100 Hz on the clock of the frames; `seen` of the best blocks.
    """

    seconds: float
    correlation: float
    lead: float
    z: float
    first: float
    second: float
    seen: np.ndarray
    heard: np.ndarray

    @property
    def steady(self) -> bool:
        """Whether both halves say the same."""
        return all(abs(half - self.seconds) <= AGREE_S for half in (self.first, self.second))


def onset_strength(mono: np.ndarray, rate: int) -> np.ndarray:
    """How strongly sound begins, float64 [seconds * 100]; value i is at (i + 0.5) / 100 s.

    Spectral flux: rises in decibels, mean over bands of equal width on a logarithmic scale. That
    the track itself sets in, be it after digital silence, is no rise.
    """
    hop, window = rate / ENVELOPE_HZ, round(WINDOW_S * rate)
    count = int(len(mono) / hop)
    if count < 3:
        return np.zeros(max(0, count))
    padded = np.pad(np.asarray(mono, np.float64), window)
    starts = np.rint((np.arange(count) + 0.5) * hop + window / 2).astype(int)
    frames = padded[starts[:, None] + np.arange(window)] * np.hanning(window)
    power = np.square(np.abs(np.fft.rfft(frames, axis=1)))
    hz = np.fft.rfftfreq(window, 1 / rate)
    edges = np.searchsorted(hz, np.geomspace(60, max(200, 0.45 * rate), 25))
    edges = np.unique(edges)
    bands = np.add.reduceat(power, edges, axis=1)[:, :-1]
    level = 10 * np.log10(bands + 1e-12)
    level = np.maximum(level, level.max() - FLOOR_DB)
    rise = np.maximum(np.diff(level, axis=0, prepend=level[:1]), 0).mean(axis=1)
    sounding = np.flatnonzero(np.abs(mono) > NOTHING)
    first = int(sounding[0] / hop) if len(sounding) else count
    rise[: first + SETS_IN] = 0
    return rise


def block_turns(gray: np.ndarray, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(times [n - 2], float64 [144, n - 2]): how much the change of each block changes by a frame.

    gray: uint8 [n, h, w]. The change of a block is its mean difference from one frame to the next.
    """
    size = (BLOCKS, BLOCKS)
    steps = [
        cv2.resize(cv2.absdiff(a, b).astype(np.float32), size, interpolation=cv2.INTER_AREA)
        for a, b in pairwise(gray)
    ]
    change = np.stack(steps).reshape(len(steps), -1).astype(np.float64)
    return times[1:-1], np.abs(np.diff(change, axis=0)).T ** POWER


def find_lag(
    gray: np.ndarray, times: np.ndarray, end: float, onsets: np.ndarray, sound_start: float
) -> Lag | None:
    """None where the clip is shorter than three seconds, or where nothing moves or begins.

    onsets: `onset_strength` of the sound, whose sample 0 sounds at `sound_start` seconds.
    """
    if end < SHORTEST_S or len(gray) < 3 or not len(onsets) or onsets.max() <= 0:
        return None
    clock = (np.arange(int(end * ENVELOPE_HZ)) + 0.5) / ENVELOPE_HZ
    at, turns = block_turns(gray, times)
    sound_clock = (np.arange(len(onsets)) + 0.5) / ENVELOPE_HZ + sound_start
    heard = events(np.interp(clock, sound_clock, onsets, left=0, right=0))
    seen = events(np.stack([np.interp(clock, at, turn, left=0, right=0) for turn in turns]))
    return best_lag(seen, heard)


def best_lag(
    seen: np.ndarray, heard: np.ndarray, best: int = BEST, most_s: float = MAX_LAG_S
) -> Lag | None:
    """The lag, within `most_s`, at which the `best` rows of `seen` follow `heard` most closely.

    seen: float64 [rows, n], heard: [n], both at 100 Hz on one clock. None where one is flat.
    """
    if heard.std() < 1e-9 or seen.std() < 1e-9:
        return None
    lags, found = _correlations(seen, heard, round(WIDEST_S * ENVELOPE_HZ))
    place = _best(lags, found, best, most_s)
    scores = _of_best(found, best)
    apart = np.abs(lags - lags[place])
    near = lags.max() - most_s * ENVELOPE_HZ  # as far to both sides, wherever the best lies
    others = scores[(apart > SAME_S * ENVELOPE_HZ) & (apart <= near)]
    if not len(others) or others.std() < 1e-9:
        return None
    half = len(heard) // 2
    halves = []
    for part in (slice(0, half), slice(half, None)):
        places, curve = _correlations(seen[:, part], heard[part], round(most_s * ENVELOPE_HZ) + 10)
        halves.append(float(places[_best(places, curve, best, most_s)]) / ENVELOPE_HZ)
    rows = np.argsort(found[:, place])[-best:]
    return Lag(
        seconds=float(lags[place]) / ENVELOPE_HZ,
        correlation=float(scores[place]),
        lead=float(scores[place] / max(others.max(), 1e-9)),
        z=float((scores[place] - others.mean()) / others.std()),
        first=halves[0],
        second=halves[1],
        seen=np.maximum(seen[rows].mean(axis=0), 0),
        heard=np.maximum(heard, 0),
    )


def events(envelope: np.ndarray) -> np.ndarray:
    """What is neither quicker than an event nor slower, along the last axis, at 100 Hz."""
    quick = gaussian_filter1d(envelope, SMOOTH_S * ENVELOPE_HZ, axis=-1)
    return quick - gaussian_filter1d(quick, SLOW_S * ENVELOPE_HZ, axis=-1)


def _of_best(found: np.ndarray, best: int) -> np.ndarray:
    return np.sort(found, axis=0)[-best:].mean(axis=0)


def _best(lags: np.ndarray, found: np.ndarray, best: int, most_s: float) -> int:
    """Index of the lag within `most_s` at which the best rows correlate most."""
    scores = np.where(np.abs(lags) <= most_s * ENVELOPE_HZ, _of_best(found, best), -2.0)
    return int(scores.argmax())


def _correlations(seen: np.ndarray, heard: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
    """Lags in samples, and Pearson correlation [blocks, lags] of seen[t] with heard[t + lag].

    Over the samples that both have: at least half of them.
    """
    n = seen.shape[1]
    most = min(most, n // 2)
    lags = np.arange(-most, most + 1)
    seen, heard = seen - seen.mean(axis=1, keepdims=True), heard - heard.mean()
    size = next_fast_len(2 * n, real=True)
    product = irfft(rfft(seen, size, axis=1).conj() * rfft(heard, size), size, axis=1)[:, lags]
    begin, stop = np.maximum(0, -lags), n - np.maximum(0, lags)
    other, halt = np.maximum(0, lags), n - np.maximum(0, -lags)
    count = stop - begin
    x, xx = (_sums(v, begin, stop) for v in (seen, seen * seen))
    y, yy = (_sums(v, other, halt) for v in (heard, heard * heard))
    above = product - x * y / count
    below = np.sqrt(np.maximum(xx - x * x / count, 0) * np.maximum(yy - y * y / count, 0))
    return lags, np.where(below > 1e-9, above / np.maximum(below, 1e-9), 0.0)


def _sums(values: np.ndarray, begin: np.ndarray, stop: np.ndarray) -> np.ndarray:
    total = np.cumsum(values, axis=-1)
    total = np.concatenate([np.zeros((*total.shape[:-1], 1)), total], axis=-1)
    return total[..., stop] - total[..., begin]
