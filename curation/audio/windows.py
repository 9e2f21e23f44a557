"""A grid of short windows over a stream of sound, at any sample rate."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from functools import cached_property

import numpy as np

from reelmill.datasets.media.decode import AudioBlock
from reelmill.datasets.media.sound import block_ms


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
    of k whole windows, all those between two multiples of `block_ms`, edges counted from the first
    of these samples. Blocks as decoded end at these multiples, so that nothing is copied. `flush`
    gives the rest: whole windows, then one that is shorter. Not to be written to.
    """

    def __init__(self, grid: Grid):
        self._grid = grid
        self._most = block_ms(grid.rate) // grid.milliseconds
        self._waiting: list[np.ndarray] = []
        self._window = 0
        self.total = 0

    def push(self, samples: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        self._waiting.append(samples)
        self.total += samples.shape[1]
        whole = self._grid.at(self.total)
        if whole >= self._window + self._most:
            yield from self._cut(whole // self._most * self._most)

    def _cut(self, until: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        block = self._row()
        edges = self._grid.edges(self._window, until)
        edges -= edges[0]
        for low in range(0, until - self._window, self._most):
            part = edges[low : low + self._most + 1]
            yield block[:, part[0] : part[-1]], part - part[0]
        rest = block[:, edges[-1] :]
        self._waiting, self._window = [rest.copy()] if rest.shape[1] else [], until

    def _row(self) -> np.ndarray:
        waiting = [part for part in self._waiting if part.shape[1]]
        return waiting[0] if len(waiting) == 1 else np.concatenate(waiting or self._waiting, axis=1)

    def flush(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        if (whole := self._grid.at(self.total)) > self._window:
            yield from self._cut(whole)
        if self._waiting and (rest := self._row()).shape[1]:
            yield rest, np.array([0, rest.shape[1]], np.int64)
        self._waiting = []


class Windows:
    """Some windows of a stream, and what several measurements ask of them, found once.

    samples: float32 [channels, n], not to be written to; edges: int64 [windows + 1], counted from
    its first; whole: False for the one window at a stream's end that is shorter.
    """

    def __init__(self, samples: np.ndarray, edges: np.ndarray, *, whole: bool = True):
        self.samples, self.edges, self.whole = samples, edges, whole
        self.lengths = np.diff(edges)

    @cached_property
    def highest(self) -> np.ndarray:
        """float32 [channels, windows]."""
        return np.maximum.reduceat(self.samples, self.edges[:-1], axis=-1)

    @cached_property
    def lowest(self) -> np.ndarray:
        """float32 [channels, windows]."""
        return np.minimum.reduceat(self.samples, self.edges[:-1], axis=-1)

    @cached_property
    def peak(self) -> np.ndarray:
        """float32 [windows]: largest absolute values of any channel."""
        return np.maximum(self.highest, -self.lowest).max(axis=0)

    @cached_property
    def energy(self) -> np.ndarray:
        """float64 [channels, windows]: sums of squares."""
        return window_energy(self.samples, self.edges)


class SharedWindows:
    """The windows of a stream, cut once for all measurements that hear it."""

    def __init__(self, grid: Grid):
        self._cutter = WindowCutter(grid)
        self._grid = grid
        self._block: AudioBlock | None = None
        self._cut: list[Windows] = []
        self._rest: list[Windows] | None = None

    @classmethod
    def of(cls, block: AudioBlock, grid: Grid) -> SharedWindows:
        """Those of the stream that a block is of."""
        own: SharedWindows = block.shared.setdefault(f"windows {grid.milliseconds}", cls(grid))
        return own

    @property
    def total(self) -> int:
        """Samples that were heard."""
        return self._cutter.total

    def push(self, block: AudioBlock) -> list[Windows]:
        """The whole windows that a block completes; the same for all who ask of it."""
        if self._block is not block:
            self._block = block
            self._cut = [Windows(*part) for part in self._cutter.push(block.samples)]
        return self._cut

    def flush(self) -> list[Windows]:
        """The rest: whole windows, then one that is shorter."""
        if self._rest is None:
            self._block, self._cut = None, []
            whole = self._grid.at(self.total)
            short = self.total > int(self._grid.edges(whole, whole)[0])
            parts = list(self._cutter.flush())
            count = len(parts) - short
            self._rest = [Windows(*part, whole=i < count) for i, part in enumerate(parts)]
        return self._rest


class WindowListener(ABC):
    """An analyser that measures window by window; `measure` is its own."""

    def __init__(self, grid: Grid | None):
        self._grid = grid
        self._windows: SharedWindows | None = None

    @property
    def total(self) -> int:
        """Samples that were heard, per channel."""
        return self._windows.total if self._windows else 0

    def block(self, block: AudioBlock) -> None:
        if self._windows is None:
            assert self._grid is not None
            self._windows = SharedWindows.of(block, self._grid)
        for windows in self._windows.push(block):
            self.measure(windows)

    def flush(self) -> None:
        """Measures what is left at the end."""
        for windows in self._windows.flush() if self._windows else []:
            self.measure(windows)

    @abstractmethod
    def measure(self, windows: Windows) -> None:
        """Takes up the windows that a block completed."""


def window_energy(samples: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """float64 [channels, windows]: sums of squares, of [channels, n] and int64 [windows + 1]."""
    return window_products(samples, samples, edges)


def window_products(a: np.ndarray, b: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """float64 [..., windows]: sums of products, to the precision of float32 sums over a window."""
    if (length := even_length(edges)) and a.flags.c_contiguous and b.flags.c_contiguous:
        rows = (*a.shape[:-1], -1, length)
        return np.vecdot(a.reshape(rows), b.reshape(rows)).astype(np.float64)
    return np.add.reduceat(a.astype(np.float64) * b, edges[:-1], axis=-1)


def window_sums(samples: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """float64 [..., windows]: sums, in pairs where windows are even."""
    if length := even_length(edges):
        rows = samples.reshape(*samples.shape[:-1], -1, length)
        return rows.sum(axis=-1).astype(np.float64)
    return np.add.reduceat(samples, edges[:-1], axis=-1, dtype=np.float64)


def even_length(edges: np.ndarray) -> int:
    """Samples of each window, where all have as many; else 0."""
    lengths = np.diff(edges)
    return int(lengths[0]) if len(lengths) and not np.ptp(lengths) else 0


class WindowHeads:
    """The first samples of windows, weighted: what a short spectrum is taken of."""

    def __init__(self, weights: np.ndarray):
        self.weights = weights
        self._heads = np.empty((0, len(weights)), np.float32)

    def __call__(self, samples: np.ndarray, edges: np.ndarray) -> np.ndarray:
        """float32 [windows, len(weights)] of float32 [n]; the next call uses its memory again."""
        if len(self._heads) < len(edges) - 1:
            self._heads = np.empty((len(edges) - 1, len(self.weights)), np.float32)
        heads = self._heads[: len(edges) - 1]
        for head, start in zip(heads, edges[:-1].tolist(), strict=True):
            np.multiply(samples[start : start + len(head)], self.weights, out=head)
        return heads
