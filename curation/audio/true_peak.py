"""True peak: how high the sound rises between its samples (ITU-R BS.1770-4, annex 2)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import cv2
import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from reelmill.curation.audio.loudness import FLOOR, decibels
from reelmill.curation.audio.windows import Grid, WindowCutter, even_length, window_peaks
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
from reelmill.datasets.media.decode import AudioBlock, DecodeSummary, MediaInfo
from reelmill.datasets.sample import Clip

WINDOW_MS = 100
TAPS = 12  # per phase, as in the standard
BLOCKS = (16, 15, 18, 20, 12, 10, 21, 9, 8)  # samples: one divides most windows
ROOM = 2_000  # blocks at a time: what stays in a processor's cache
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


class _Analyser:
    def __init__(self, info: MediaInfo):
        self._peaks: list[np.ndarray] = []
        self._cutter: WindowCutter | None = None
        if info.audio is not None:
            self._cutter = WindowCutter(Grid(info.audio.rate, WINDOW_MS))
            self._phases = phases(min(4, max(1, -(-OVERSAMPLED // info.audio.rate))))
            self._matrix: np.ndarray | None = None
            self._before = np.zeros((info.audio.channels, TAPS - 1), np.float32)

    def block(self, block: AudioBlock) -> None:
        assert self._cutter is not None
        for samples, edges in self._cutter.push(block.samples):
            self._measure(samples, edges)

    def _measure(self, samples: np.ndarray, edges: np.ndarray) -> None:
        peaks = window_peaks(samples, edges).max(axis=0)
        if len(self._phases):
            row = np.concatenate((self._before, samples), axis=1)
            for between in self._between(row, even_length(edges), edges):
                np.maximum(peaks, between, out=peaks)
            self._before = row[:, -(TAPS - 1) :].copy()
        self._peaks.append(peaks)

    def _between(self, row: np.ndarray, length: int, edges: np.ndarray) -> Iterator[np.ndarray]:
        """Peaks [windows] between the samples of [channels, TAPS - 1 + n], some at a time."""
        block = next((b for b in BLOCKS if length and length % b == 0), 0)
        if block and len(edges) > 2:
            matrix = self._matrix
            if matrix is None or len(matrix) != block + TAPS - 1:
                matrix = self._matrix = _toeplitz(self._phases, block)
            rows = length // block
            size = max(1, ROOM // rows) * rows
            known = np.empty((size, block + TAPS - 1), np.float32)
            found = np.empty((size, matrix.shape[1]), np.float32)
            for channel in row:
                views = sliding_window_view(channel, block + TAPS - 1)[::block]
                parts = []
                for low in range(0, len(views), size):
                    some = views[low : low + size]
                    known[: len(some)] = some
                    part = np.matmul(known[: len(some)], matrix, out=found[: len(some)])
                    part = part.reshape(len(some) // rows, -1)
                    parts.append(np.maximum(part.max(axis=1), -part.min(axis=1)))
                yield np.concatenate(parts)
        else:
            for taps in self._phases:
                yield window_peaks(_correlated(row, taps), edges).max(axis=0)

    def finish(self, summary: DecodeSummary) -> dict[str, np.ndarray]:
        if self._cutter is not None:
            for samples, edges in self._cutter.flush():
                self._measure(samples, edges)
            if len(self._phases) and self._peaks:  # the last samples' right-hand neighbours
                tail = np.pad(self._before, ((0, 0), (0, TAPS // 2)))
                found = [_correlated(tail, taps) for taps in self._phases]
                self._peaks[-1][-1] = max(self._peaks[-1][-1], float(np.abs(found).max()))
        peaks = np.concatenate(self._peaks) if self._peaks else np.zeros(0)
        return {
            "peak": peaks.astype(np.float32),
            "samples": np.array([self._cutter.total if self._cutter else 0], np.int64),
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
