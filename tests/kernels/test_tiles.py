from __future__ import annotations

from math import ceil, prod

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.kernels.oracle import owners

from reelmill.errors import UsageError
from reelmill.kernels.coarse import gated_sum, pool_tiles
from reelmill.kernels.tiles import best_tile, tile_layout

SIDE = st.integers(1, 13)
GRIDS = st.tuples(SIDE, SIDE, SIDE)
SHAPES = st.one_of(
    st.just("auto"),
    st.just((4, 4, 4)),
    st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(1, 4)),
)
PREFIXES = st.lists(st.sampled_from([0, 1, 63, 64, 65, 77, 200]), max_size=3)


@given(GRIDS, SHAPES, PREFIXES)
def test_tile_order_keeps_each_tile_together_and_raster_order_inside(grid, tile, prefix):
    layout = tile_layout(grid, tile=tile, prefix=prefix)
    assert layout.tokens == sum(prefix) + prod(grid)
    tokens = torch.arange(layout.tokens)
    ordered = layout.to_tiles(tokens, 0)
    assert torch.equal(layout.to_raster(ordered, 0), tokens)
    expected = owners(layout)
    assert torch.equal(expected[ordered], layout.token_tile)
    bounds = layout.offsets.tolist()
    assert bounds[0] == 0
    assert bounds[-1] == layout.tokens
    assert len(bounds) == layout.tiles + 1
    for number in range(layout.tiles):
        inside = ordered[bounds[number] : bounds[number + 1]]
        assert 1 <= len(inside) == layout.sizes[number] <= 64
        assert torch.equal(inside, (expected == number).nonzero()[:, 0])


@given(GRIDS, PREFIXES)
def test_prefix_tiles_hold_one_segment_each(grid, prefix):
    layout = tile_layout(grid, prefix=prefix)
    segment = torch.repeat_interleave(torch.arange(len(prefix)), torch.tensor(prefix).long())
    for number in range(len(prefix)):
        tiles = layout.segment(number)
        assert len(tiles) == ceil(prefix[number] / 64)
        for tile in tiles:
            span = segment[layout.offsets[tile] : layout.offsets[tile + 1]]
            assert (span == number).all()


@pytest.mark.parametrize(
    ("grid", "tiles"), [((21, 30, 52), 546), ((21, 45, 80), 1260), ((33, 45, 80), 1980)]
)
def test_auto_makes_fewer_tiles_than_cubes(grid, tiles):
    assert tile_layout(grid).tiles == tiles
    assert tiles < tile_layout(grid, tile=(4, 4, 4)).tiles


@given(st.tuples(st.integers(1, 40), st.integers(1, 40), st.integers(1, 40)))
def test_auto_is_never_worse_than_cubes_and_never_lopsided(grid):
    tile = best_tile(grid)
    assert prod(tile) <= 64
    count = prod(ceil(n / side) for n, side in zip(grid, tile, strict=True))
    assert count <= prod(ceil(n / 4) for n in grid)
    free = [side for side, n in zip(tile, grid, strict=True) if side < n]
    assert not free or max(tile) / min(free) <= 1.67


def test_an_image_gets_flat_tiles():
    assert tile_layout((1, 32, 32)).tile == (1, 8, 8)


@given(GRIDS, SHAPES, st.integers(0, 2**31))
def test_pooling_and_the_gated_sum_are_means_and_broadcasts_of_tiles(grid, tile, seed):
    layout = tile_layout(grid, tile=tile, prefix=(5,))
    made = torch.Generator().manual_seed(seed)
    x, gate = torch.randn(2, 2, layout.tokens, 2, 3, generator=made, dtype=torch.float64)
    tile_of = owners(layout)
    pooled = pool_tiles(layout.to_tiles(x), layout)
    for number in range(layout.tiles):
        mean = x[:, tile_of == number].mean(1)
        torch.testing.assert_close(pooled[:, :, number], mean)
    out = gated_sum(layout.to_tiles(x), layout.to_tiles(gate), pooled, layout)
    expected = x + gate * pooled.transpose(1, 2)[:, tile_of]
    torch.testing.assert_close(layout.to_raster(out), expected)


@pytest.mark.parametrize("grid", [(4, 4, 8), (3, 5, 7)])
def test_pooling_and_the_gated_sum_have_right_gradients(grid):
    layout = tile_layout(grid, tile=(2, 2, 2))
    made = torch.Generator().manual_seed(0)

    def some(*shape):
        return torch.randn(*shape, generator=made, dtype=torch.float64, requires_grad=True)

    x, gate = some(1, layout.tokens, 2, 2), some(1, layout.tokens, 2, 2)
    coarse = some(1, 2, layout.tiles, 2)
    assert torch.autograd.gradcheck(lambda x: pool_tiles(x, layout), (x,), fast_mode=True)
    assert torch.autograd.gradcheck(
        lambda *a: gated_sum(*a, layout), (x, gate, coarse), fast_mode=True
    )


def test_half_types_are_pooled_in_single_precision():
    layout = tile_layout((4, 4, 4))
    x = torch.full((1, 64, 1, 1), 1.0, dtype=torch.bfloat16)
    x[0, 0] = 1 + 2**-7
    assert pool_tiles(x, layout).item() == 1 + 2**-13


def test_pairs_join_neighbouring_tiles():
    layout = tile_layout((3, 5, 7), tile=(2, 2, 2))
    bounds = layout.pairs.offsets.tolist()
    assert bounds == [*layout.offsets.tolist()[:-1:2], layout.tokens]
    assert layout.pairs.max_tile <= 2 * layout.max_tile
    assert torch.equal(layout.pairs.token_tile, layout.token_tile // 2)


def test_layouts_of_one_kind_are_one_object():
    assert tile_layout((4, 5, 6)) is tile_layout([4, 5, 6])


@pytest.mark.parametrize(
    ("grid", "options"),
    [
        ((0, 4, 4), {}),
        ((4, 4), {}),
        ((4, 4, 4), {"tile": (4, 4, 5)}),
        ((4, 4, 4), {"tile": (4, 0, 4)}),
        ((4, 4, 4), {"prefix": (-1,)}),
    ],
)
def test_sizes_that_are_none_are_refused(grid, options):
    with pytest.raises(UsageError):
        tile_layout(grid, **options)
