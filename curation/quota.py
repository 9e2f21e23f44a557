"""How many clips of each group are to stay: four ways to ask, and what can be had."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

WAYS = ("cap", "proportional", "inverse_sqrt", "explicit")


@dataclass(frozen=True)
class Quotas:
    """Clips asked for and kept by group, int64 [groups], in the order of the groups given.

    asked is -1 for a group that nothing is asked of: all of it stays. short: groups, by position,
    that have fewer clips than were asked for.
    """

    sizes: np.ndarray
    asked: np.ndarray

    @property
    def kept(self) -> np.ndarray:
        return np.where(self.asked < 0, self.sizes, np.minimum(self.asked, self.sizes))

    @property
    def short(self) -> np.ndarray:
        return np.flatnonzero(self.asked > self.sizes)


def shared(sizes: np.ndarray, way: str, total: int | None) -> Quotas:
    """Quotas of all groups out of one total.

    proportional: as the groups are, so that their shares stay. inverse_sqrt: each clip weighs one
    over the root of its group's size (Movie Gen's resampling), so a group's share is as that root.
    Without a total it is the largest for which no group is short. Fractions go to the groups that
    lose most by rounding, in order.
    """
    if not len(sizes):
        return Quotas(sizes, sizes)
    weights = np.sqrt(sizes) if way == "inverse_sqrt" else sizes.astype(np.float64)
    weights = weights / weights.sum()
    if total is None:
        total = int(np.floor((sizes / weights).min() + 1e-9))
    exact = total * weights
    asked = np.floor(exact + 1e-9).astype(np.int64)
    rest = total - int(asked.sum())
    by_loss = np.argsort(-(exact - asked), kind="stable")
    asked[by_loss[: max(0, rest)]] += 1
    return Quotas(sizes, asked)


def capped(sizes: np.ndarray, share: float) -> Quotas:
    """One common size, the largest at which no group has more than that share of what is kept.

    Where there is none, the size of the smallest group: all equal is the best there is.
    """
    return Quotas(sizes, np.full(len(sizes), common_size(sizes, share)))


def common_size(sizes: np.ndarray, share: float) -> int:
    if share * len(sizes) < 1:
        return int(sizes.min())
    low, high = int(sizes.min()), int(sizes.max())
    while low < high:
        middle = (low + high + 1) // 2
        kept = np.minimum(sizes, middle)
        if kept.max() <= share * kept.sum() + 1e-9:
            low = middle
        else:
            high = middle - 1
    return low


def explicit(names: Sequence[str], sizes: np.ndarray, wanted: Mapping[str, int]) -> Quotas:
    """The counts asked for by name; groups without a name in it stay whole."""
    return Quotas(sizes, np.array([wanted.get(name, -1) for name in names], np.int64))


def parse(wanted: Sequence[str]) -> dict[str, int]:
    """`name=count` each. Raises ValueError that names the faulty one."""
    found: dict[str, int] = {}
    for item in wanted:
        name, _, count = item.rpartition("=")
        if not name or not count.strip().isdecimal() or name in found:
            raise ValueError(f"{item!r} is no quota; write name=count, each name once")
        found[name.strip()] = int(count)
    return found
