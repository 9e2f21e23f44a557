"""True peak: how high the sound rises between its samples (ITU-R BS.1770-4, annex 2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import cv2
import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from reelmill.curation.audio.loudness import FLOOR, decibels
from reelmill.curation.audio.windows import Grid, WindowListener, Windows, even_length
from reelmill.curation.stage import (
    AudioStage,
    Bound,
    Fact,
    Facts,
    NotApplicable,
    Tracks,
    at_most,
)
from reelmill.datasets.media.clock import sound_span
from reelmill.datasets.media.decode import DecodeSummary, MediaInfo
from reelmill.datasets.sample import Clip

WINDOW_MS = 100
TAPS = 12  # per phase, as in the standard
BLOCKS = (16, 15, 18, 20, 12, 10, 21, 9, 8)  # samples: one divides most windows
ROOM = 1_000_000  # multiplications at a time: beyond it OpenBLAS copies what it is given
FEW = 8  # of so many places one may be looked at singly; above that a product of blocks is faster
SMOOTH = 32_000  # Hz: from here on, steps between samples are mostly small
OVERSAMPLED = 176_400  # Hz that are reached, by 4 at most, as BS.1770-4 does at 48 kHz


def phases(factor: int) -> np.ndarray:
    """float32 [factor - 1, TAPS]: interpolators to the places between two samples.

    A windowed sinc (Kaiser, beta 5) of the standard's length; each phase sums to 1, so that a
    constant has no true peak above itself.
    """
    at = np.arange(1, factor)[:, None] / factor
    away = np.arange(TAPS)[None, :] - (TAPS // 2 - 1) - at
    taps = np.sinc(away) * np.i0(5 * np.sqrt(np.maximum(0, 1 - (away / (TAPS / 2)) ** 2)))
    return (taps / taps.sum(axis=1, keepdims=True)).astype(np.float32)


def _toeplitz(phases: np.ndarray, block: int) -> np.ndarray:
    """float32 [block + TAPS - 1, block * phases]: all that lies between samples, by one product."""
    count = len(phases)
    found = np.zeros((block + TAPS - 1, block * count), np.float32)
    for at in range(block):
        found[at : at + TAPS, at * count : (at + 1) * count] = phases.T
    return found


def _correlated(rows: np.ndarray, taps: np.ndarray) -> np.ndarray:
    """[channels, n - TAPS + 1]; by OpenCV, three times as fast as numpy for so few taps.

    Where windows are no whole number of samples, and at the end.
    """
    anchored = cv2.filter2D(rows, -1, taps[None], anchor=(0, 0), borderType=cv2.BORDER_CONSTANT)
    return anchored[:, : rows.shape[1] - TAPS + 1]


def reach(phases: np.ndarray) -> float:
    """How far a place between two samples may lie above the nearer one, in the largest steps from
    sample to sample that its taps see: what is between two taps' weights, summed.
    """
    worst = 0.0
    for number, taps in enumerate(phases.astype(np.float64), 1):
        nearer = TAPS // 2 - (2 * number <= len(phases) + 1)
        before = np.cumsum(taps)[:-1]
        behind = np.arange(TAPS - 1) >= nearer
        worst = max(worst, float(np.abs(np.where(behind, 1 - before, before)).sum()))
    return worst


class _Analyser(WindowListener):
    def __init__(self, info: MediaInfo):
        super().__init__(Grid(info.audio.rate, WINDOW_MS) if info.audio else None)
        self._peaks: list[np.ndarray] = []
        if info.audio is not None:
            self._phases = phases(min(4, max(1, -(-OVERSAMPLED // info.audio.rate))))
            self._smooth = info.audio.rate >= SMOOTH
            self._reach = reach(self._phases)
            self._gain = float(np.abs(self._phases).sum(axis=1).max(initial=1))
            self._matrix: np.ndarray | None = None
            self._before = np.zeros((info.audio.channels, TAPS - 1), np.float32)

    def measure(self, windows: Windows) -> None:
        peaks = windows.peak.copy()
        if len(self._phases):
            length = even_length(windows.edges)
            row = np.concatenate((self._before, windows.samples), axis=1)
            for channel in row:
                between = self._few(channel, length, peaks)
                if between is None:
                    between = self._all(channel, length, windows.edges)
                np.maximum(peaks, between, out=peaks)
            self._before = row[:, -(TAPS - 1) :].copy()
        self._peaks.append(peaks)

    def _few(self, row: np.ndarray, length: int, peaks: np.ndarray) -> np.ndarray | None:
        """Peaks [windows] between samples of [TAPS - 1 + n], where they can be above `peaks` only.

        Two bounds say where they cannot: what the taps make of the loudest sample, and how far the
        largest step leads from the nearer sample. None where that leaves too many places.
        """
        count = len(row) - TAPS + 1
        if not self._smooth or length < TAPS or len(peaks) < 2:
            return None
        steps = row[1:] - row[:-1]
        rows = steps[:count].reshape(-1, length)
        largest = np.maximum(rows.max(axis=1), -rows.min(axis=1))
        ahead = np.append(largest[1:], np.abs(steps[count:]).max())  # the taps see some of it
        level = np.maximum(
            peaks - self._reach * np.maximum(largest, ahead), peaks / self._gain
        ).astype(np.float32)[:, None]
        middle = row[TAPS // 2 - 1 :][:count].reshape(-1, length)
        high = (middle > level).ravel()
        high |= (middle < -level).ravel()
        high[:-1] |= high[1:].copy()  # the other of the two samples that a place lies between
        high[length - 1 :: length] = True  # of which the other one was held against another level
        places = np.flatnonzero(high)
        if FEW * len(places) > count:
            return None
        found = np.abs(sliding_window_view(row, TAPS)[places] @ self._phases.T).max(axis=1)
        return np.maximum.reduceat(found, np.searchsorted(places, np.arange(0, count, length)))

    def _all(self, row: np.ndarray, length: int, edges: np.ndarray) -> np.ndarray:
        """Peaks [windows] between all samples of [TAPS - 1 + n]."""
        block = next((b for b in BLOCKS if length and length % b == 0), 0)
        if not block or len(edges) < 3:
            found = _correlated(row[None], self._phases[0])
            between = Windows(found, edges).peak
            for taps in self._phases[1:]:
                np.maximum(between, Windows(_correlated(row[None], taps), edges).peak, out=between)
            return between
        matrix = self._matrix
        if matrix is None or len(matrix) != block + TAPS - 1:
            matrix = self._matrix = _toeplitz(self._phases, block)
        rows = length // block
        size = max(1, ROOM // matrix.size // rows) * rows
        known = np.empty((size, block + TAPS - 1), np.float32)
        found = np.empty((size, matrix.shape[1]), np.float32)
        views = sliding_window_view(row, block + TAPS - 1)[::block]
        parts = []
        for low in range(0, len(views), size):
            some = views[low : low + size]
            known[: len(some)] = some
            part = np.matmul(known[: len(some)], matrix, out=found[: len(some)])
            part = part.reshape(len(some) // rows, -1)
            parts.append(np.maximum(part.max(axis=1), -part.min(axis=1)))
        return np.concatenate(parts)

    def finish(self, summary: DecodeSummary) -> dict[str, np.ndarray]:
        self.flush()
        if self._peaks and len(self._phases):  # the last samples' right-hand neighbours
            tail = np.pad(self._before, ((0, 0), (0, TAPS // 2)))
            found = [_correlated(tail, taps) for taps in self._phases]
            self._peaks[-1][-1] = max(self._peaks[-1][-1], float(np.abs(found).max()))
        peaks = np.concatenate(self._peaks) if self._peaks else np.zeros(0)
        return {
            "peak": peaks.astype(np.float32),
            "samples": np.array([self.total], np.int64),
        }


@dataclass(frozen=True, kw_only=True)
class TruePeak(AudioStage):
    """Highest point of a clip's wave, in dBTP: between the samples it may lie above them all.

    The sound is oversampled by 4 (above 44.1 kHz as far as 176.4 kHz asks) by an interpolator of
    12 taps a phase, the length of BS.1770-4's own. The bound is off: EBU R128 asks for at most
    -1 dBTP of what is broadcast, and old masters above it are no worse to learn from. A clip's
    border is known to the 100 ms windows of the track.
    """

    adds: ClassVar = (Fact("true_peak", "dBTP", "Highest point between samples.", FLOOR, 6.0),)
    paper: ClassVar = "section 3.4"
    max_true_peak: Bound = at_most(None, "true_peak", "over_full_scale")

    def open(self, info: MediaInfo) -> _Analyser:
        return _Analyser(info)

    def facts(self, tracks: Tracks, clip: Clip, info: MediaInfo) -> Facts:
        total = int(tracks["samples"][0])
        if info.audio is None or not total:
            return {"true_peak": NotApplicable("no sound")}
        first, last = sound_span(clip, info)
        windows, _ = Grid(info.audio.rate, WINDOW_MS).shares(first, last, total)
        found = tracks["peak"][windows]
        if not len(found):
            return {"true_peak": NotApplicable("no sound inside the clip")}
        peak = float(found.max())
        return {"true_peak": decibels(peak * peak)}
