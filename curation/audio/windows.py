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
    of k whole windows, at most one second of them, edges counted from the first of these samples.
    `flush` gives the rest.
    """

    def __init__(self, grid: Grid):
        self._grid = grid
        self._waiting: list[np.ndarray] = []
        self._window = 0
        self._most = max(1, 1000 // grid.milliseconds)
        self.total = 0

    def push(self, samples: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        self._waiting.append(samples)
        self.total += samples.shape[1]
        whole = self._grid.at(self.total)
        if whole > self._window:
            yield from self._cut(whole)

    def _cut(self, whole: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        block = np.concatenate(self._waiting, axis=1)
        edges = self._grid.edges(self._window, whole)
        edges -= edges[0]
        for low in range(0, whole - self._window, self._most):
            part = edges[low : low + self._most + 1]
            yield block[:, part[0] : part[-1]], part - part[0]
        self._waiting, self._window = [block[:, edges[-1] :].copy()], whole

    def flush(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        if self._waiting and (rest := np.concatenate(self._waiting, axis=1)).shape[1]:
            yield rest, np.array([0, rest.shape[1]], np.int64)
        self._waiting = []
