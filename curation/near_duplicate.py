"""Clips that show what another clip shows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np

from reelmill.curation.close_codes import close_pairs
from reelmill.curation.stage import (
    Bound,
    FactTable,
    Rejection,
    TableStage,
    knob,
)
from reelmill.curation.video.phash import hashes_of
from reelmill.datasets.sample import Kind

HEX_DIGITS = 16  # of one hash
QUERIES = 5  # frames of a clip that candidates are looked up with, evenly spaced
EXACT_COMPARISONS = 2e10  # up to here every pair of hashes is compared: 8 s on one core
MOST_COMPARISONS = 1e13  # up to here all pairs are found: two million pictures, 200,000 clips
_BATCH = 512
_PART = 16
_CHUNK = 1 << 21


@dataclass(frozen=True, kw_only=True)
class NearDuplicate(TableStage):
    """Keeps the best of every set of near duplicates and names it to the others.

    Two clips are near duplicates when, over the frames of the shorter, the median of the smallest
    Hamming distance to any frame of the longer is at most `max_distance` bits of 64: so a clip is
    found inside a longer one, and two that share half of the shorter's frames are found too. Both
    the picture and its mirror image are tried. 12 bits: originals and their edits (re-encoded,
    halved, with bars, cropped by a tenth, trimmed, mirrored) were at most 12 apart, different
    sources at least 20 (8 clips and 48 edits) and, among 80 real clips, at least 14.

    Longer is better, then larger, then more bytes, then the lower id. Going down that order a clip
    is rejected when it matches one already kept, so a loser always matches the clip it names.

    embedding: `phash`, which needs no weights. same_asset: also compare clips of one file, such as
    the parts of a long take, which look alike but show different moments.
    """

    kinds: ClassVar = frozenset({Kind.VIDEO, Kind.IMAGE})
    needs: ClassVar = ("phash", "phash_mirrored", "source_pixels", "source_bytes")
    paper: ClassVar = "section 3.4, deduplication of segmented clips; of images"
    embedding: str = "phash"
    max_distance: Bound = knob(12)
    same_asset: bool = False

    def __post_init__(self) -> None:
        if self.embedding != "phash":
            raise ValueError("the one embedding so far is 'phash'")

    def compare(self, table: FactTable) -> Mapping[str, np.ndarray]:
        """All pairs of near duplicates: rows a < b, the bits that differ, whether mirrored."""
        a, b, bits, flipped = self._pairs(table)
        return {"a": a, "b": b, "bits": bits, "flipped": flipped}

    def select(self, table: FactTable) -> Mapping[int, Rejection]:
        if self.max_distance.value is None or len(table) < 2:
            return {}
        found, rows = table.findings, table.rows
        if found is None or rows is None:
            found, rows = self.compare(table), np.arange(len(table))
        here = np.isin(found["a"], rows) & np.isin(found["b"], rows)
        places = (np.searchsorted(rows, found[name][here]).tolist() for name in ("a", "b"))
        said = (found[name][here].tolist() for name in ("bits", "flipped"))
        matches: dict[int, dict[int, tuple[float, bool]]] = {}
        for a, b, bits, flipped in zip(*places, *said, strict=True):
            matches.setdefault(a, {})[b] = matches.setdefault(b, {})[a] = (bits, flipped)
        return self._losers(table, matches)

    def _pairs(self, table: FactTable) -> tuple[np.ndarray, ...]:
        if self.max_distance.value is None or len(table) < 2:
            return tuple(np.zeros(0, dtype) for dtype in (np.int64, np.int64, np.float64, bool))
        most = int(self.max_distance.value)
        plain, mirrored = _hashes(table["phash"]), _hashes(table["phash_mirrored"])
        a, b = _candidates(plain, mirrored, most)
        if not self.same_asset:
            assets = np.unique([clip.asset for clip in table.clips], return_inverse=True)[1]
            apart = assets[a] != assets[b]
            a, b = a[apart], b[apart]
        as_is, flipped = distances(plain, plain, a, b), distances(mirrored, plain, a, b)
        bits = np.minimum(as_is, flipped)
        near = bits <= most
        return a[near], b[near], bits[near], (flipped < as_is)[near]

    def _losers(
        self, table: FactTable, matches: Mapping[int, Mapping[int, tuple[float, bool]]]
    ) -> dict[int, Rejection]:
        clips = table.clips
        order = sorted(
            matches,
            key=lambda i: (
                -clips[i].seconds,
                -table["source_pixels"][i],
                -table["source_bytes"][i],
                clips[i].id,
            ),
        )
        rank = {row: place for place, row in enumerate(order)}
        kept: set[int] = set()
        rejected: dict[int, Rejection] = {}
        for row in order:
            winners = [other for other in matches[row] if other in kept]
            if not winners:
                kept.add(row)
                continue
            best = min(winners, key=rank.__getitem__)
            bits, flipped = matches[row][best]
            rejected[row] = Rejection(
                "near_duplicate",
                bits,
                f"distance > {self.max_distance.value:g}",
                f"of {clips[best].id}{', mirrored' if flipped else ''}: {bits:g} of 64 bits differ",
            )
        return rejected


def distance(a: np.ndarray, b: np.ndarray) -> float:
    """`distances` of one pair of clips: uint64 hashes [frames] each."""
    first = np.zeros(1, np.int64)
    return float(distances([a], [b], first, first)[0])


def distances(
    first: Sequence[np.ndarray], second: Sequence[np.ndarray], a: np.ndarray, b: np.ndarray
) -> np.ndarray:
    """Median over the shorter of the smallest Hamming distance to any frame of the longer.

    first, second: uint64 hashes [frames] of clips. a, b: the pairs first[a[i]], second[b[i]]
    [pairs]; either order gives the same. Returns bits [pairs], float64.
    """
    bits = np.empty(len(a))
    lengths = [np.array([len(hashes) for hashes in side], np.int64) for side in (first, second)]
    shapes = np.stack([lengths[0][a], lengths[1][b]], axis=1)
    for frames in np.unique(shapes, axis=0):
        alike = np.flatnonzero((shapes == frames).all(axis=1))
        for rows in np.array_split(alike, -(-len(alike) * int(frames.prod()) // _CHUNK)):
            left, right = (
                np.stack([side[i] for i in picked[rows]])
                for side, picked in ((first, a), (second, b))
            )
            apart = np.bitwise_count(left[:, :, None] ^ right[:, None, :])
            over = [np.median(apart.min(axis=axis), axis=1) for axis in (2, 1)]
            short, long_ = over if frames[0] <= frames[1] else reversed(over)
            bits[rows] = np.minimum(short, long_) if frames[0] == frames[1] else short
    return bits


def _hashes(texts: Iterable[Any]) -> list[np.ndarray]:
    """uint64 [frames] of each `phash` fact; none where there is no text."""
    known = [text if isinstance(text, str) else "" for text in texts]
    whole = hashes_of("".join(known))
    ends = np.cumsum([len(text) // HEX_DIGITS for text in known]).tolist()
    return [whole[a:b] for a, b in pairwise([0, *ends])]


def _candidates(
    plain: Sequence[np.ndarray], mirrored: Sequence[np.ndarray], most: int
) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of rows a < b with a frame of one within `most` bits of a frame of the other, rising.

    A few frames of each clip are looked up among all frames: beyond EXACT_COMPARISONS by
    close_pairs, which finds the same, and beyond MOST_COMPARISONS by _multi_index, which finds
    every frame within 7 bits, and of those at 12 four in ten: clips of several frames all the same.
    """
    owners = np.arange(len(plain))
    whole, of_whole = np.concatenate(plain), np.repeat(owners, [len(h) for h in plain])
    order = np.lexsort((whole, of_whole))
    index, of_index = whole[order], of_whole[order]
    fresh = np.ones(len(index), dtype=bool)
    fresh[1:] = (index[1:] != index[:-1]) | (of_index[1:] != of_index[:-1])
    index, of_index = index[fresh], of_index[fresh]
    chosen = [_spread(len(h)) for h in plain]
    of_query = np.repeat(owners, [len(c) for c in chosen])
    none = np.zeros(0, np.int64)
    if not len(index):
        return none, none
    comparisons = 2 * len(of_query) * len(index)
    search = close_pairs if comparisons <= MOST_COMPARISONS else _multi_index
    search = _every_pair if comparisons <= EXACT_COMPARISONS else search
    count = len(plain)
    pairs = [none]
    for side in (plain, mirrored):
        queries = np.concatenate([h[c] for h, c in zip(side, chosen, strict=True)])
        same = np.array_equal(queries, index)
        asking = index if same else queries
        for query, found in search(asking, index, most):
            a, b = of_query[query], of_index[found]
            low, high = np.minimum(a, b), np.maximum(a, b)
            pairs.append(np.unique((low * count + high)[low < high]))
    return np.divmod(np.unique(np.concatenate(pairs)), count)


def _every_pair(
    queries: np.ndarray, index: np.ndarray, most: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Positions (of the query, in the index) of all pairs of uint64 within `most` bits."""
    import faiss  # slow to import, and most runs need no search

    search = faiss.IndexBinaryFlat(64)
    search.add(_codes(index))
    for start in range(0, len(queries), _BATCH):
        limits, _, found = search.range_search(_codes(queries[start : start + _BATCH]), most + 1)
        yield start + np.repeat(np.arange(len(limits) - 1), np.diff(limits.astype(np.int64))), found


def _multi_index(
    queries: np.ndarray, index: np.ndarray, most: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """As _every_pair, of those that agree in one of four 16-bit parts but for one bit.

    Multi-index hashing (Norouzi et al. 2012). A pair may come more than once.
    """
    for shift in range(0, 64, _PART):
        keys = _part(index, shift)
        order = np.argsort(keys, kind="stable")
        ends = np.searchsorted(keys[order], np.arange(2**_PART + 1))
        hashes = index[order]
        wanted = _part(queries, shift)
        ranked = np.argsort(wanted, kind="stable")
        for mask in (0, *(1 << bit for bit in range(_PART))):
            key = wanted[ranked] ^ mask
            low, size = ends[key], ends[key + 1] - ends[key]
            for rows in _runs(size):
                sizes = size[rows]
                before = np.repeat(np.cumsum(sizes) - sizes - low[rows], sizes)
                place = np.arange(sizes.sum()) - before
                query = np.repeat(ranked[rows], sizes)
                near = np.bitwise_count(queries[query] ^ hashes[place]) <= most
                yield query[near], order[place[near]]


def _part(hashes: np.ndarray, shift: int) -> np.ndarray:
    return ((hashes >> np.uint64(shift)) & np.uint64(2**_PART - 1)).astype(np.int64)


def _runs(sizes: np.ndarray) -> Iterator[slice]:
    """Slices that sum to _CHUNK at most, or hold one element."""
    totals = np.cumsum(sizes)
    first = 0
    while first < len(sizes):
        done = totals[first - 1] if first else 0
        last = int(np.searchsorted(totals, done + _CHUNK, side="right"))
        last = max(last, first + 1)
        yield slice(first, last)
        first = last


@cache
def _spread(count: int) -> np.ndarray:
    """Up to QUERIES evenly spaced indices."""
    return np.unique(np.linspace(0, count - 1, min(count, QUERIES)).round().astype(np.int64))


def _codes(hashes: np.ndarray) -> np.ndarray:
    """uint8 [n, 8], as FAISS takes them."""
    return np.ascontiguousarray(hashes).view(np.uint8).reshape(-1, 8)
