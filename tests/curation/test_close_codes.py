"""close_pairs: exactly the pairs that a comparison of all with all finds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reelmill.curation import close_codes
from reelmill.curation.close_codes import PARTS, close_pairs, reach


def brute(queries: np.ndarray, index: np.ndarray, most: int) -> set[tuple[int, int]]:
    apart = np.bitwise_count(queries[:, None] ^ index[None])
    return {(int(a), int(b)) for a, b in zip(*np.nonzero(apart <= most), strict=True)}


def found(queries: np.ndarray, index: np.ndarray, most: int) -> set[tuple[int, int]]:
    return {
        pair
        for a, b in close_pairs(queries, index, most, threads=2)
        for pair in zip(a.tolist(), b.tolist(), strict=True)
    }


def near(codes: np.ndarray, most: int, seed: int) -> np.ndarray:
    """Each code with 0 to `most` + 2 of its bits turned."""
    rng = np.random.default_rng(seed)
    turned = [rng.choice(64, rng.integers(0, most + 3), replace=False) for _ in codes]
    return codes ^ np.array([sum(1 << int(b) for b in bits) for bits in turned], np.uint64)


@settings(max_examples=12)
@given(st.integers(0, 10_000), st.integers(0, 70), st.integers(0, 6), st.booleans())
def test_against_all_pairs(seed, count, most, crowded):
    rng = np.random.default_rng(seed)
    index = rng.integers(0, 2**64, count, dtype=np.uint64)
    if crowded:  # large buckets, at both ends of the keys
        index &= np.uint64(0xFFFF_0000_0000_0003)
        index[: count // 4] = 0
        index[count // 4 : count // 2] = 2**64 - 1
    queries = near(np.tile(index, 2), most, seed)
    assert found(queries, index, most) == brute(queries, index, most)


def test_twelve_bits_among_many():
    index = np.random.default_rng(1).integers(0, 2**64, 3000, dtype=np.uint64)
    queries = near(index[:1500], 12, 2)
    due = brute(queries, index, 12)
    assert len(due) > 1200
    assert found(queries, index, 12) == due


def test_within_one_set_each_pair_comes_one_way_at_least():
    codes = np.random.default_rng(3).integers(0, 2**64, 400, dtype=np.uint64)
    codes[200:] = near(codes[:200], 8, 4)
    some = found(codes, codes, 8)
    assert {(min(p), max(p)) for p in some} == {(min(p), max(p)) for p in brute(codes, codes, 8)}


@pytest.mark.parametrize("most", range(20))
def test_two_codes_so_near_are_near_in_a_part(most):
    """The pigeonholes: errors beyond every part's reach are more than `most` together."""
    assert sum(reach(most, part) + 1 for part in range(PARTS)) == most + 1


def test_too_many_codes_are_refused(monkeypatch):
    monkeypatch.setattr(close_codes, "CODES", 10)
    with pytest.raises(ValueError, match="at most 10"):
        next(close_pairs(np.zeros(11, np.uint64), np.zeros(1, np.uint64), 3))
