"""All pairs of 64-bit codes that differ in a few bits, exactly, without comparing every pair.

Multi-index hashing (Norouzi, Punjani and Fleet 2012): codes are cut into four parts of 16 bits. Two
codes that differ in at most r bits are near in one part: in the first by at most r // 4 bits, or in
another by at most (r + 1) // 4 - 1. So for every part, and every way of turning so few of its bits,
the codes of one bucket are compared with those of the bucket that this leads to.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import combinations

import numpy as np

PART = 16  # bits
PARTS = 4
KEYS = 1 << PART
PAGE = 8  # codes that are compared together: a line of the cache
BLOCK = 1024  # pairs of pages at a time: what is made of them stays in the second cache
CODES = 1 << 24  # of 64 bits: positions fit into 32 bits

EMPTY = np.uint64(0)  # stands in seats of pages without a code, and its contrary where one asks

Found = tuple[np.ndarray, np.ndarray]


def close_pairs(
    queries: np.ndarray, index: np.ndarray, most: int, *, threads: int | None = None
) -> Iterator[Found]:
    """Positions (of the query, in the index) of all pairs that differ in at most `most` bits.

    queries, index: uint64 [n], of at most CODES. A pair may come up to four times. Where both are
    one and the same array, a pair comes one way round or the other, at half the cost.
    """
    if max(len(queries), len(index)) > CODES:
        raise ValueError(f"at most {CODES} codes are searched at a time")
    count = threads or len(os.sched_getaffinity(0))
    with ThreadPoolExecutor(count) as pool:
        for part in range(PARTS):
            held = _Pages.of(index, part)
            asked = held if queries is index else _Pages.of(queries, part)
            asked = replace(asked, codes=np.where(asked.places < 0, ~EMPTY, asked.codes))
            masks = list(_masks(reach(most, part)))
            join = partial(_join, asked, held, most, queries is index)
            yield from pool.map(join, [masks[i::count] for i in range(count)])


def reach(most: int, part: int) -> int:
    """Bits of a part that may differ; -1 for a part that need not be looked at."""
    return most // PARTS if part <= most % PARTS else most // PARTS - 1


def _masks(bits: int) -> Iterator[int]:
    for count in range(bits + 1):
        for chosen in combinations(range(PART), count):
            yield sum(1 << bit for bit in chosen)


@dataclass(frozen=True)
class _Pages:
    """Codes by the value of one part. A bucket has whole pages; -1 stands where one is not full.

    codes: uint64 [pages, PAGE]. places: int32 [pages, PAGE]. first, count: int64 [KEYS], of pages.
    """

    codes: np.ndarray
    places: np.ndarray
    first: np.ndarray
    count: np.ndarray

    @classmethod
    def of(cls, codes: np.ndarray, part: int) -> _Pages:
        keys = ((codes >> np.uint64(PART * part)) & np.uint64(KEYS - 1)).astype(np.int64)
        sizes = np.bincount(keys, minlength=KEYS)
        count = -(-sizes // PAGE)
        first = np.cumsum(count) - count
        order = np.argsort(keys, kind="stable")
        before = np.cumsum(sizes) - sizes
        seat = first[keys[order]] * PAGE + np.arange(len(codes)) - before[keys[order]]
        room = int(count.sum()) * PAGE
        held, places = np.full(room, EMPTY, np.uint64), np.full(room, -1, np.int32)
        held[seat], places[seat] = codes[order], order
        return cls(held.reshape(-1, PAGE), places.reshape(-1, PAGE), first, count)


def _join(asked: _Pages, held: _Pages, most: int, one_way: bool, masks: list[int]) -> Found:
    """Pairs between buckets that differ by one of the masks; one_way: of two buckets only once."""
    queries, places = [np.zeros(0, np.int32)], [np.zeros(0, np.int32)]
    keys = np.flatnonzero(asked.count)
    bits = np.empty(PAGE * PAGE * BLOCK, np.uint64)
    apart = np.empty(PAGE * PAGE * BLOCK, np.uint8)
    near = np.empty(PAGE * PAGE * BLOCK, np.bool_)
    for mask in masks:
        mine = keys[keys < keys ^ mask] if one_way and mask else keys
        there = held.count[mine ^ mask]
        number = asked.count[mine] * there
        left = np.repeat(np.arange(len(mine), dtype=np.int32), number)
        nth = np.arange(len(left)) - np.repeat(np.cumsum(number) - number, number)
        row, column = np.divmod(nth, there[left])
        a = asked.first[mine][left] + row
        b = held.first[mine ^ mask][left] + column
        for start in range(0, len(a), BLOCK):
            one, two = a[start : start + BLOCK], b[start : start + BLOCK]
            shape, size = (PAGE, PAGE, len(one)), PAGE * PAGE * len(one)
            rows = np.ascontiguousarray(asked.codes[one].T)
            columns = np.ascontiguousarray(held.codes[two].T)
            np.bitwise_xor(rows[:, None], columns[None], out=bits[:size].reshape(shape))
            np.bitwise_count(bits[:size], out=apart[:size])
            np.less_equal(apart[:size], most, out=near[:size])
            hits = np.flatnonzero(near[:size])
            if len(hits):
                i, j, pair = np.unravel_index(hits, shape)
                query, place = asked.places[one[pair], i], held.places[two[pair], j]
                real = (query >= 0) & (place >= 0)
                queries.append(query[real])
                places.append(place[real])
    return np.concatenate(queries).astype(np.int64), np.concatenate(places).astype(np.int64)
