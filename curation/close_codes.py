"""All pairs of 64-bit codes that differ in a few bits, exactly, without comparing every pair.

Multi-index hashing (Norouzi, Punjani and Fleet 2012): codes are cut into five parts of 12 or 13
bits. Two codes that differ in at most r bits are near in one part: in one of the first r % 5 + 1 by
at most r // 5 bits, or in another by at most one bit less. So for every part, the codes of one
bucket are compared with those of all buckets that turning so few of its bits leads to. Parts of 16
bits would leave fewer comparisons, but of buckets so small that FAISS has little to do at a time.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import combinations

import numpy as np

WIDTHS = (13, 13, 13, 13, 12)  # bits of the parts, from the lowest
PARTS = len(WIDTHS)
CODES = 1 << 24  # a bucket and its neighbours stay within some MB
SHARE = 256  # keys that one thread takes at a time

Found = tuple[np.ndarray, np.ndarray]


def close_pairs(
    queries: np.ndarray, index: np.ndarray, most: int, *, threads: int | None = None
) -> Iterator[Found]:
    """Positions (of the query, in the index) of all pairs that differ in at most `most` bits.

    queries, index: uint64 [n], of at most CODES. A pair may come up to five times. Where both are
    one and the same array, a pair comes one way round or the other, at half the cost.
    """
    import faiss  # slow to import, and most runs need no search

    if max(len(queries), len(index)) > CODES:
        raise ValueError(f"at most {CODES} codes are searched at a time")
    count = threads or len(os.sched_getaffinity(0))
    # FAISS would use every core for each of these small searches, and wait longer than it works.
    with ThreadPoolExecutor(count, initializer=faiss.omp_set_num_threads, initargs=(1,)) as pool:
        for part in range(PARTS):
            held = _Buckets.of(index, part)
            asked = held if queries is index else _Buckets.of(queries, part)
            masks = np.array(list(_masks(reach(most, part), WIDTHS[part])), np.int64)
            keys = np.flatnonzero(np.diff(asked.ends))
            join = partial(_join, asked, held, masks, most, queries is index)
            yield from pool.map(join, [keys[i : i + SHARE] for i in range(0, len(keys), SHARE)])


def reach(most: int, part: int) -> int:
    """Bits of a part that may differ; -1 for a part that need not be looked at."""
    return most // PARTS if part <= most % PARTS else most // PARTS - 1


def _masks(bits: int, width: int) -> Iterator[int]:
    for count in range(bits + 1):
        for chosen in combinations(range(width), count):
            yield sum(1 << bit for bit in chosen)


@dataclass(frozen=True)
class _Buckets:
    """Codes in the order of one part's value.

    codes: uint64 [n]. places: int64 [n], where they were. ends: int64 [keys + 1]; those of a key
    are codes[ends[key] : ends[key + 1]].
    """

    codes: np.ndarray
    places: np.ndarray
    ends: np.ndarray

    @classmethod
    def of(cls, codes: np.ndarray, part: int) -> _Buckets:
        width = WIDTHS[part]
        keys = (codes >> np.uint64(sum(WIDTHS[:part]))) & np.uint64((1 << width) - 1)
        sizes = np.bincount(keys.astype(np.int64), minlength=1 << width)
        order = np.argsort(keys, kind="stable")
        return cls(codes[order], order, np.concatenate([[0], np.cumsum(sizes)]))


def _join(
    asked: _Buckets, held: _Buckets, masks: np.ndarray, most: int, one_way: bool, keys: np.ndarray
) -> Found:
    """Pairs of the asked buckets with their neighbours; one_way: of two buckets only once."""
    import faiss

    queries, places = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for key in keys.tolist():
        others = masks ^ key
        if one_way:
            others = others[others >= key]
        first, sizes = held.ends[others], held.ends[others + 1] - held.ends[others]
        if not sizes.any():
            continue
        spans = zip(first.tolist(), (first + sizes).tolist(), strict=True)
        codes = np.concatenate([held.codes[a:b] for a, b in spans])
        search = faiss.IndexBinaryFlat(64)
        search.add(codes.view(np.uint8).reshape(-1, 8))
        mine = slice(int(asked.ends[key]), int(asked.ends[key + 1]))
        limits, _, hits = search.range_search(
            asked.codes[mine].view(np.uint8).reshape(-1, 8), most + 1
        )
        if not len(hits):
            continue
        query = np.repeat(asked.places[mine], np.diff(limits.astype(np.int64)))
        ends = np.cumsum(sizes)
        bucket = np.searchsorted(ends, hits, side="right")
        queries.append(query)
        places.append(held.places[first[bucket] + hits - (ends - sizes)[bucket]])
    return np.concatenate(queries), np.concatenate(places)
