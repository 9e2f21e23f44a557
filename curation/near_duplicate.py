"""Clips that show what another clip shows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np

from reelmill.curation.close_codes import close_pairs
from reelmill.curation.keep_best import losers
from reelmill.curation.stage import (
    Bound,
    FactTable,
    Rejection,
    TableStage,
    knob,
)
from reelmill.curation.video.phash import HEX, TIME_DIGITS, hashes_of
from reelmill.datasets.sample import Kind

HASHES = ("phash", "phash_mirrored", "phash_inner")
WAYS = ("", ", mirrored", ", cropped", ", cropped")  # how one shows what the other shows
QUERIES = 5  # frames of a clip that candidates are looked up with, evenly spaced
EXACT_COMPARISONS = 2e10  # up to here every pair of hashes is compared: 8 s on one core
MOST_COMPARISONS = 1e13  # up to here all pairs are found: two million pictures, 200,000 clips
_BATCH = 512
_PART = 16
_CHUNK = 1 << 21
_FINDINGS = {"a": np.int64, "b": np.int64, "bits": np.float64, "how": np.int8} | dict.fromkeys(
    ("first_a", "last_a", "first_b", "last_b"), np.int32
)


@dataclass(frozen=True, kw_only=True)
class NearDuplicate(TableStage):
    """Keeps the best of every set of near duplicates and names it to the others.

    Two clips are near duplicates when, over the frames of the shorter, the median of the smallest
    Hamming distance to any frame of the longer is at most `max_distance` bits of 64: so a clip is
    found inside a longer one, and two that share half of the shorter's frames are found too. Tried
    are the picture as it is, its mirror image, and its inner nine tenths, which a crop leaves. 10
    bits: over 8 real clips and 96 edits (re-encoded, halved, with bars, cropped by a tenth,
    trimmed, mirrored, joined, sped up, coloured, with a logo) all copies but one were within that,
    and different sources at least 16 apart; among 87 real files, at least 12.

    Longer is better, then larger, then more bytes, then the lower id. Going down that order a clip
    is rejected when it matches one already kept, so a loser always matches the clip it names. The
    verdict says which seconds of the one show what which seconds of the other show.

    embedding: `phash`, which needs no weights (SemanticDuplicate compares by other ones).
    same_asset: also compare clips of one file, such as the parts of a long take, which look alike
    but show different moments.
    """

    kinds: ClassVar = frozenset({Kind.VIDEO, Kind.IMAGE})
    needs: ClassVar = (*HASHES, "phash_ms", "source_pixels", "source_bytes")
    paper: ClassVar = "section 3.4, deduplication of segmented clips; of images"
    embedding: str = "phash"
    max_distance: Bound = knob(10)
    same_asset: bool = False

    def __post_init__(self) -> None:
        if self.embedding != "phash":
            raise ValueError("the one embedding so far is 'phash'")

    def compare(self, table: FactTable) -> Mapping[str, np.ndarray]:
        """All pairs of near duplicates, of rows a < b.

        bits: that differ. how: a place in WAYS. first_a, last_a, first_b, last_b: of their hashes,
        the first and the last that the other has too.
        """
        if self.max_distance.value is None or len(table) < 2:
            return matched([[]] * len(HASHES), np.zeros(0, np.int64), np.zeros(0, np.int64), 0)
        most = int(self.max_distance.value)
        hashes = [hash_lists(table[name]) for name in HASHES]
        a, b = candidates(hashes[0], hashes[1:], most)
        if not self.same_asset:
            assets = np.unique([clip.asset for clip in table.clips], return_inverse=True)[1]
            apart = assets[a] != assets[b]
            a, b = a[apart], b[apart]
        return matched(hashes, a, b, most)

    def select(self, table: FactTable) -> Mapping[int, Rejection]:
        if self.max_distance.value is None or len(table) < 2:
            return {}
        found, rows = table.findings, table.rows
        if found is None or rows is None:
            found, rows = self.compare(table), np.arange(len(table))
        here = np.flatnonzero(np.isin(found["a"], rows) & np.isin(found["b"], rows))
        places = (np.searchsorted(rows, found[name][here]).tolist() for name in ("a", "b"))
        matches: dict[int, dict[int, int]] = {}
        for pair, a, b in zip(here.tolist(), *places, strict=True):
            matches.setdefault(a, {})[b] = matches.setdefault(b, {})[a] = pair
        return self._losers(table, matches, found)

    def _losers(
        self,
        table: FactTable,
        matches: Mapping[int, Mapping[int, int]],
        found: Mapping[str, np.ndarray],
    ) -> dict[int, Rejection]:
        """matches: of a row, the rows that it matches, with the place of that pair in `found`."""
        rejected: dict[int, Rejection] = {}
        for row, best in losers(table, matches):
            pair = matches[row][best]
            bits = float(found["bits"][pair])
            way = WAYS[found["how"][pair]]
            mine, theirs = ("a", "b") if row < best else ("b", "a")
            at = [
                span_text(table["phash_ms"][r], found, pair, s)
                for r, s in ((row, mine), (best, theirs))
            ]
            shows = f"; its {at[0]} shows what {at[1]} there shows" if all(at) else ""
            rejected[row] = Rejection(
                "near_duplicate",
                bits,
                f"distance > {self.max_distance.value:g}",
                f"of {table.clips[best].id}{way}: {bits:g} of 64 bits differ{shows}",
            )
        return rejected


def matched(
    hashes: Sequence[Sequence[np.ndarray]], a: np.ndarray, b: np.ndarray, most: int
) -> dict[str, np.ndarray]:
    """Of pairs a < b of clips those that are near duplicates, as `NearDuplicate.compare` has them.

    hashes: of each clip, uint64 [frames], as HASHES names them.
    """
    plain, mirrored, inner = hashes
    ways = ((plain, plain), (mirrored, plain), (inner, plain), (plain, inner))
    bits = np.stack([distances(one, other, a, b) for one, other in ways])
    how = bits.argmin(axis=0)
    bits = bits.min(axis=0)
    near = bits <= most
    a, b, bits, how = a[near], b[near], bits[near], how[near]
    spans = np.zeros((len(a), 4), np.int32)
    for way, (one, other) in enumerate(ways):
        rows = np.flatnonzero(how == way)
        spans[rows] = shared(one, other, a[rows], b[rows], most)
    values = (a, b, bits, how, *spans.T)
    return {
        name: np.ascontiguousarray(value, dtype)
        for (name, dtype), value in zip(_FINDINGS.items(), values, strict=True)
    }


def span_text(times: object, found: Mapping[str, np.ndarray], pair: int, side: str) -> str:
    """The seconds between two hashes of a clip, of whose times there is a `phash_ms` fact."""
    if not isinstance(times, str) or len(times) <= TIME_DIGITS:
        return ""  # an image
    first, last = (
        int(times[place * TIME_DIGITS : (place + 1) * TIME_DIGITS], 16) / 1000
        for place in (int(found[f"{end}_{side}"][pair]) for end in ("first", "last"))
    )
    return f"{first:.2f}-{last:.2f} s"


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
    for rows, apart in _compared(first, second, a, b):
        over = [np.median(apart.min(axis=axis), axis=1) for axis in (2, 1)]
        frames = apart.shape[1:]
        short, long_ = over if frames[0] <= frames[1] else reversed(over)
        bits[rows] = np.minimum(short, long_) if frames[0] == frames[1] else short
    return bits


def _compared(
    first: Sequence[np.ndarray], second: Sequence[np.ndarray], a: np.ndarray, b: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pairs of equal shape at a time: their places, and the bits [pairs, m, n] of all hashes."""
    lengths = [np.array([len(hashes) for hashes in side], np.int64) for side in (first, second)]
    shapes = np.stack([lengths[0][a], lengths[1][b]], axis=1)
    for frames in np.unique(shapes, axis=0):
        alike = np.flatnonzero((shapes == frames).all(axis=1))
        for rows in np.array_split(alike, -(-len(alike) * int(frames.prod()) // _CHUNK)):
            left, right = (
                np.stack([side[i] for i in picked[rows]])
                for side, picked in ((first, a), (second, b))
            )
            yield rows, np.bitwise_count(left[:, :, None] ^ right[:, None, :])


def shared(
    first: Sequence[np.ndarray],
    second: Sequence[np.ndarray],
    a: np.ndarray,
    b: np.ndarray,
    most: int,
) -> np.ndarray:
    """int32 [pairs, 4]: first and last hash of a, and of b, within `most` bits of the other's."""
    found = np.zeros((len(a), 4), np.int32)
    for rows, apart in _compared(first, second, a, b):
        for side, axis in ((0, 2), (2, 1)):
            near = apart.min(axis=axis) <= most
            found[rows, side] = near.argmax(axis=1)
            found[rows, side + 1] = near.shape[1] - 1 - near[:, ::-1].argmax(axis=1)
    return found


def hash_lists(texts: Iterable[Any]) -> list[np.ndarray]:
    """uint64 [frames] of each `phash` fact; none where there is no text."""
    known = [text if isinstance(text, str) else "" for text in texts]
    whole = hashes_of("".join(known))
    ends = np.cumsum([len(text) // HEX for text in known]).tolist()
    return [whole[a:b] for a, b in pairwise([0, *ends])]


def candidates(
    plain: Sequence[np.ndarray], others: Iterable[Sequence[np.ndarray]], most: int
) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of rows a < b with a frame of one within `most` bits of a frame of the other, rising.

    others: more hashes of the same clips, which are looked up among the plain ones too.

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
    others = list(others)
    comparisons = (1 + len(others)) * len(of_query) * len(index)
    search = close_pairs if comparisons <= MOST_COMPARISONS else _multi_index
    search = _every_pair if comparisons <= EXACT_COMPARISONS else search
    count = len(plain)
    pairs = [none]
    for side in (plain, *others):
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
