"""Which other sample goes with one: another moment of its clip, or the same moment, larger.

A reference is taken from another moment than what is made by it (cross-frame pairing, SkyReels-V3):
from the same moment, a model learns to copy it. High-resolution keyframes are taken from the same
window at a larger size.
"""

from __future__ import annotations

from functools import cached_property
from typing import Literal

import numpy as np

from reelmill.datasets.latents import LatentDataset

Pair = Literal["moment", "size"]


class Pairing:
    """Partners by row of a latent data set, found from its index alone."""

    def __init__(self, data: LatentDataset):
        self.data = data

    @cached_property
    def _moments(self) -> dict[tuple[object, ...], list[int]]:
        """Rows of clips by source file, length and size."""
        return self._grouped("asset", "frames", "height", "width")

    @cached_property
    def _sizes(self) -> dict[tuple[object, ...], list[int]]:
        """Rows by window, the smallest picture first."""
        found = self._grouped("clip", "frames", "start_frame")
        heights, widths = self.data.column("height"), self.data.column("width")
        for rows in found.values():
            rows.sort(key=lambda row: heights[row] * widths[row])
        return found

    def _grouped(self, *names: str) -> dict[tuple[object, ...], list[int]]:
        found: dict[tuple[object, ...], list[int]] = {}
        for row, key in enumerate(zip(*map(self.data.column, names), strict=True)):
            found.setdefault(key, []).append(row)
        return found

    def partners(self, how: Pair, row: int) -> list[int]:
        """Rows that may go with a row, in the order of the index."""
        column = self.data.column
        if how == "moment":
            names = ("asset", "frames", "height", "width")
            same = self._moments[tuple(column(name)[row] for name in names)]
            here = (column("clip")[row], column("start_frame")[row])
            return [r for r in same if (column("clip")[r], column("start_frame")[r]) != here]
        same = self._sizes[tuple(column(n)[row] for n in ("clip", "frames", "start_frame"))]
        return same[same.index(row) + 1 :][:1]

    def paired(self, how: Pair) -> np.ndarray:
        """bool [n]: which rows have a partner."""
        return np.array([bool(self.partners(how, row)) for row in range(len(self.data))], np.bool_)

    def order(self, how: Pair, row: int, seed: int, step: int, slot: int) -> list[int]:
        """The partners of a row, the one to be taken first; the others stand in for it."""
        rows = self.partners(how, row)
        if len(rows) < 2:
            return rows
        key = np.array([seed, 0x7061_6972], dtype=np.uint64)
        random = np.random.Generator(np.random.Philox(key=key, counter=[0, 0, slot, step]))
        first = int(random.integers(len(rows)))
        return rows[first:] + rows[:first]
