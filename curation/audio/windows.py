"""A grid of short windows over a stream of sound, at any sample rate."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np


class Grid:
    """Windows of `milliseconds` each over sound at `rate` Hz.

    Window i holds the samples [edge(i), edge(i + 1)); where a window is no whole number of samples
    its length alternates, so that nothing drifts. The last window of a stream may be shorter.
    """

    def __init__(self, rate: int, milliseconds: int):
        self.rate, self.milliseconds = rate, milliseconds

    def edges(self, first: int, last: int) -> np.ndarray:
        """int64 edges of the windows [first, last): last - first + 1 sample numbers."""
        return np.arange(first, last + 1, dtype=np.int64) * self.rate * self.milliseconds // 1000

    def at(self, sample: int) -> int:
        """Window that holds a sample."""
        guess = sample * 1000 // (self.rate * self.milliseconds)
        return guess + int(sample >= self.edges(guess + 1, guess + 1)[0])

    def shares(self, first: int, last: int, total: int) -> tuple[slice, np.ndarray]:
        """Windows that the samples [first, last) touch, and int64 how many samples of each.

        total: samples of the stream; beyond it, and before 0, there are no windows.
        """
        first, last = max(first, 0), min(last, total)
        if first >= last:
            return slice(0, 0), np.zeros(0, np.int64)
        low, high = self.at(first), self.at(last - 1) + 1
        edges = np.clip(self.edges(low, high), first, last)
        return slice(low, high), np.diff(edges)


class WindowCutter:
    """Turns blocks of any length into whole windows, so that results do not depend on the blocks.

    Feed `push` with float32 [channels, n]; it gives (samples [channels, m], edges int64 [k + 1])
    of k whole windows, edges counted from the first of these samples. `flush` gives the rest.
    """

    def __init__(self, grid: Grid):
        self._grid = grid
        self._waiting: list[np.ndarray] = []
        self._count = 0
        self._window = 0
        self.total = 0

    def push(self, samples: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        self._waiting.append(samples)
        self._count += samples.shape[1]
        self.total += samples.shape[1]
        whole = self._grid.at(self.total)
        if whole > self._window:
            edges = self._grid.edges(self._window, whole)
            edges -= edges[0]
            block = np.concatenate(self._waiting, axis=1)
            self._waiting = [block[:, edges[-1] :].copy()]
            self._count -= int(edges[-1])
            self._window = whole
            yield block[:, : edges[-1]], edges

    def flush(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        if self._count:
            rest = np.concatenate(self._waiting, axis=1)
            self._waiting, self._count = [], 0
            yield rest, np.array([0, rest.shape[1]], np.int64)
