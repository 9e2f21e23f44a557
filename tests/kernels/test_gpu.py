"""The backends of a GPU, on one: `pytest -m gpu tests/kernels`."""

from __future__ import annotations

import pytest
import torch
from tests.kernels import oracle
from torch import Tensor

from reelmill.kernels.block_sparse import block_sparse_attention
from reelmill.kernels.dispatch import attention
from reelmill.kernels.select import TileLists
from reelmill.kernels.tiles import TileLayout, tile_layout
from reelmill.kernels.vsa import video_sparse_attention

pytestmark = pytest.mark.gpu
DEVICE = "cuda"
LIMIT = {torch.float32: 1e-5, torch.float16: 2e-3}
GRIDS = [
    ((4, 4, 4), "auto", ()),
    ((5, 7, 9), "auto", ()),
    ((5, 7, 9), (4, 4, 4), (77, 1)),
    ((7, 3, 13), (2, 2, 4), (64, 65)),
    ((1, 13, 21), "auto", (63,)),
]


def made(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def rows(layout: TileLayout, dtype: torch.dtype, n: int, dim=64, scale=1.0) -> list[Tensor]:
    """On the CPU, raster order, values of the type."""
    shape = (1, layout.tokens, 2, dim)
    return [(torch.randn(shape, generator=made(n)) * scale).to(dtype) for n in range(n)]


def there(layout: TileLayout) -> TileLayout:
    return tile_layout(layout.grid, tile=layout.tile, prefix=layout.prefix, device=DEVICE)


def leaf(layout: TileLayout, x: Tensor) -> Tensor:
    return layout.to_tiles(x.to(DEVICE)).requires_grad_()


def ours(layout: TileLayout, lists: TileLists, leaves: list[Tensor], do: Tensor) -> list[Tensor]:
    """Output and gradients on the CPU, raster order."""
    at = there(layout)
    given = [leaf(at, x) for x in leaves]
    where = TileLists(lists.index.to(DEVICE), lists.count.to(DEVICE))
    out = block_sparse_attention(*given, where, at)
    found = [out, *torch.autograd.grad(out, given, leaf(at, do).detach())]
    return [at.to_raster(x.detach()).cpu() for x in found]


def truth(layout: TileLayout, lists: TileLists, leaves: list[Tensor], do: Tensor) -> list[Tensor]:
    exact = [x.double().requires_grad_() for x in leaves]
    out = oracle.sparse(*exact, lists, layout)
    return [out.detach(), *torch.autograd.grad(out, exact, do.double())]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(("grid", "tile", "prefix"), GRIDS)
@pytest.mark.parametrize("dim", [64, 128])
def test_output_and_gradients_equal_dense_masked_attention(grid, tile, prefix, dim, dtype):
    layout = tile_layout(grid, tile=tile, prefix=prefix)
    lists = oracle.random_lists(layout, 1, 2, 5, made(1))
    *leaves, do = rows(layout, dtype, 4, dim)
    found, expected = ours(layout, lists, leaves, do), truth(layout, lists, leaves, do)
    for a, b in zip(found, expected, strict=True):
        assert oracle.relative(a, b) < LIMIT.get(dtype, 1e-2)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 4.0, 16.0, 64.0])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_error_at_any_scale_is_that_of_dense_attention(dtype, scale):
    layout = tile_layout((4, 4, 8), tile=(4, 4, 4))
    q, k, v, do = rows(layout, dtype, 4, scale=scale)
    v, do = v / scale, do / scale
    every = torch.arange(layout.tiles).expand(1, 2, layout.tiles, -1).contiguous().int()
    lists = TileLists(every, torch.full((1, 2, layout.tiles), layout.tiles, dtype=torch.int32))
    given = [x.to(DEVICE).requires_grad_() for x in (q, k, v)]
    dense = attention(*given)
    peer = [dense.detach(), *torch.autograd.grad(dense, given, do.to(DEVICE))]
    found, expected = ours(layout, lists, [q, k, v], do), truth(layout, lists, [q, k, v], do)
    floor = {torch.float16: 5e-4, torch.bfloat16: 4e-3}[dtype]
    for a, theirs, b in zip(found, peer, expected, strict=True):
        # At 64 a gradient is the difference of rounded numbers that are nearly equal.
        times = 3 if scale == 64 else 1.5
        assert oracle.relative(a, b) <= times * oracle.relative(theirs.cpu(), b) + floor


def test_two_runs_are_equal_to_the_bit_and_nothing_unread_leaks():
    layout = tile_layout((5, 7, 9), tile=(4, 4, 4))
    lists = oracle.random_lists(layout, 1, 2, 4, made(11))
    unread = set(range(layout.tiles)) - set(lists.index.flatten().tolist())
    lists = TileLists(lists.index.where(lists.index != 0, 1), lists.count)  # nobody reads tile 0
    *leaves, do = rows(layout, torch.bfloat16, 4)
    owner = oracle.owners(layout)
    for x in leaves[1:]:
        x[:, owner == 0] = torch.nan
        for tile in unread:
            x[:, owner == tile] = torch.nan
    first, second = (ours(layout, lists, leaves, do) for _ in range(2))
    for a, b in zip(first, second, strict=True):
        assert a.isfinite().all()
        assert torch.equal(a, b)


@pytest.mark.parametrize("prefix", [(), (20, 3)])
def test_the_whole_operation_equals_its_definition(prefix):
    layout = tile_layout((5, 7, 9), prefix=prefix)
    leaves = rows(layout, torch.float32, 4)
    at = there(layout)
    given = [leaf(at, x) for x in leaves]
    out = video_sparse_attention(*given, at, topk=2)
    exact = [x.double().requires_grad_() for x in leaves]
    fixed = {tile for n in range(len(prefix)) for tile in layout.segment(n)}
    expected = oracle.vsa(*exact, layout, 2, fixed)
    assert oracle.relative(at.to_raster(out).cpu(), expected) < 1e-5
    do = torch.randn(out.shape, generator=made(9))
    grads = torch.autograd.grad(out, given, leaf(at, do).detach())
    wanted = torch.autograd.grad(expected, exact, do.double())
    for a, b in zip(grads, wanted, strict=True):
        assert oracle.relative(at.to_raster(a).cpu(), b) < 1e-5
