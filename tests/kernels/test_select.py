from __future__ import annotations

from math import inf, nan

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from reelmill.errors import UsageError
from reelmill.kernels.select import largest_torch, select_tiles, tiles_kept
from reelmill.kernels.tiles import tile_layout

SCORE = st.one_of(
    st.sampled_from([0.0, -0.0, 1.0, -1.0, inf, -inf, nan, 1e-45, -1e-45, 3.4e38]),
    st.floats(width=32, allow_nan=False),
)


@given(st.lists(SCORE, min_size=1, max_size=40), st.data())
def test_the_largest_come_first_and_of_equals_the_lower(row, data):
    count = data.draw(st.integers(1, len(row)))
    rank = sorted(range(len(row)), key=lambda i: (inf if row[i] != row[i] else -row[i], i))
    found = largest_torch(torch.tensor([row], dtype=torch.float32), count)
    assert found.tolist() == [sorted(rank[:count])]
    assert found.dtype == torch.int32


def test_equal_scores_select_the_first_tiles():
    layout = tile_layout((8, 8, 8), tile=(4, 4, 4))
    same = torch.ones(2, 3, layout.tiles, 4)
    lists = select_tiles(same, same, layout, topk=3)
    assert (lists.index == torch.tensor([0, 1, 2])).all()
    assert (lists.count == 3).all()


@pytest.mark.parametrize("always", [None, (), (0,), (2,)])
def test_prefix_segments_are_read_beside_the_best_or_compete(always):
    layout = tile_layout((4, 8, 8), tile=(4, 4, 4), prefix=(77, 0, 10))
    made = torch.Generator().manual_seed(1)
    q = torch.randn(2, 2, layout.video.tiles, 8, generator=made)
    k = torch.randn(2, 2, layout.tiles, 8, generator=made)
    segments = {0: [0, 1], 1: [], 2: [2]}
    chosen = segments if always is None else always
    fixed = {tile for number in chosen for tile in segments[number]}
    lists = select_tiles(q, k, layout, topk=2, always=always)
    scores = q @ k.mT
    for at in torch.cartesian_prod(*(torch.arange(n) for n in scores.shape[:3])).tolist():
        row = scores[tuple(at)]
        free = [t for t in range(layout.tiles) if t not in fixed]
        best = sorted(free, key=lambda t: -float(row[t]))[:2]
        assert lists.index[tuple(at)].tolist() == sorted([*fixed, *best])


def test_selection_in_parts_is_the_same(monkeypatch):
    layout = tile_layout((8, 8, 8), tile=(2, 4, 4))
    q, k = torch.randn(2, 2, 3, layout.tiles, 8, generator=torch.Generator().manual_seed(2))
    whole = select_tiles(q, k, layout, sparsity=0.6)
    monkeypatch.setattr("reelmill.kernels.select.MAX_SCORES", 1)
    assert torch.equal(select_tiles(q, k, layout, sparsity=0.6).index, whole.index)


def test_bfloat16_means_are_scored_in_single_precision():
    layout = tile_layout((2, 1, 1), tile=(1, 1, 1))
    q = torch.ones(1, 1, 2, 256, dtype=torch.bfloat16)
    k = torch.ones(1, 1, 2, 256, dtype=torch.bfloat16)
    k[0, 0, 1, 0] += 2**-7  # lost in a bfloat16 sum of 256
    assert select_tiles(q, k, layout, topk=1).index.flatten().tolist() == [1, 1]


@pytest.mark.parametrize(
    ("sparsity", "tiles", "kept"),
    [(0, 10, 10), (0.9, 10, 1), (0.7, 10, 3), (0.8, 5, 1), (2 / 3, 300, 100), (0.999, 7, 1)],
)
def test_sparsity_is_free_of_rounding(sparsity, tiles, kept):
    assert tiles_kept(sparsity, tiles) == kept


def test_what_makes_no_sense_is_refused():
    layout = tile_layout((4, 4, 4), tile=(2, 2, 2))
    pooled = torch.zeros(1, 1, layout.tiles, 4)
    for wrong in ({}, {"topk": 1, "sparsity": 0.5}, {"topk": 0}, {"sparsity": 1.0}):
        with pytest.raises(UsageError):
            select_tiles(pooled, pooled, layout, **wrong)
    with pytest.raises(UsageError, match="prefix segment"):
        select_tiles(pooled, pooled, layout, topk=1, always=(0,))
    with pytest.raises(UsageError, match="pooled keys"):
        select_tiles(pooled, pooled[:, :, 1:], layout, topk=1)
