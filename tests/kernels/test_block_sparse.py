from __future__ import annotations

import pytest
import torch
from tests.kernels import oracle
from torch import Tensor

from reelmill.errors import UsageError
from reelmill.kernels import cpu
from reelmill.kernels.block_sparse import (
    block_sparse,
    block_sparse_attention,
    block_sparse_backward,
)
from reelmill.kernels.dispatch import attention
from reelmill.kernels.select import TileLists
from reelmill.kernels.tiles import TileLayout, tile_layout

GRIDS = [
    ((4, 4, 4), (4, 4, 4)),
    ((5, 7, 9), "auto"),
    ((5, 7, 9), (4, 4, 4)),
    ((1, 1, 1), "auto"),
    ((3, 4, 5), (2, 2, 2)),
    ((1, 13, 21), "auto"),
    ((2, 3, 5), (1, 1, 1)),
]


def made(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def inputs(layout: TileLayout, dtype=torch.float64, batch=2, heads=2, dim=8, scale=1.0, seed=0):
    g = made(seed)
    shape = (batch, layout.tokens, heads, dim)
    return [(torch.randn(shape, generator=g, dtype=torch.float64) * scale).to(dtype) for _ in "qkv"]


def both(q: Tensor, k: Tensor, v: Tensor, lists, layout, backend="cpu", do=None):
    """Output and gradients, all in raster order."""
    leaves = [x.clone().requires_grad_() for x in (q, k, v)]
    out = block_sparse_attention(
        *(layout.to_tiles(x) for x in leaves), lists, layout, backend=backend
    )
    out = layout.to_raster(out)
    do = torch.randn(out.shape, generator=made(9)).to(out.dtype) if do is None else do
    return [out.detach(), *torch.autograd.grad(out, leaves, do)]


def truth(q: Tensor, k: Tensor, v: Tensor, lists, layout, do=None):
    leaves = [x.detach().double().requires_grad_() for x in (q, k, v)]
    out = oracle.sparse(*leaves, lists, layout)
    do = torch.randn(out.shape, generator=made(9)) if do is None else do
    return [out.detach(), *torch.autograd.grad(out, leaves, do.double())]


@pytest.mark.parametrize(("grid", "tile"), GRIDS)
@pytest.mark.parametrize("even", [True, False])
def test_output_and_gradients_equal_dense_masked_attention(backend, grid, tile, even, monkeypatch):
    monkeypatch.setattr(cpu, "SPAN", 2)  # so that long lists go in parts
    layout = tile_layout(grid, tile=tile)
    lists = oracle.random_lists(layout, 2, 2, 5, made(1), even)
    q, k, v = inputs(layout)
    found, expected = both(q, k, v, lists, layout, backend), truth(q, k, v, lists, layout)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("prefix", [(0, 1), (63,), (64, 65), (77, 1)])
def test_prefix_tiles_are_tiles_too(backend, prefix):
    layout = tile_layout((3, 5, 7), prefix=prefix)
    lists = oracle.random_lists(layout, 1, 2, 3, made(2))
    q, k, v = inputs(layout, batch=1)
    for a, b in zip(
        both(q, k, v, lists, layout, backend), truth(q, k, v, lists, layout), strict=True
    ):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_queries_and_keys_may_lie_differently(backend):
    rows, columns = tile_layout((3, 4, 6), tile=(2, 2, 3)), tile_layout((4, 5, 5), tile=(4, 4, 4))
    q, k, v = inputs(rows)[0], *inputs(columns, seed=5)[:2]
    index = torch.rand(2, 2, rows.tiles, columns.tiles, generator=made(3)).argsort(-1)[..., :2]
    lists = TileLists(index.int(), torch.full(index.shape[:3], 2, dtype=torch.int32))
    out = block_sparse_attention(
        rows.to_tiles(q), columns.to_tiles(k), columns.to_tiles(v), lists, rows, columns,
        backend=backend,
    )  # fmt: skip
    can_see = oracle.seen(lists, oracle.owners(rows), oracle.owners(columns), columns.tiles)
    torch.testing.assert_close(rows.to_raster(out), oracle.masked(q, k, v, can_see))


def test_gradients_stand_numerical_differences(backend):
    layout = tile_layout((2, 3, 5), tile=(2, 2, 2))
    lists = oracle.random_lists(layout, 1, 2, 3, made(4))
    q, k, v = (x.requires_grad_() for x in inputs(layout, batch=1, dim=4))

    def run(q, k, v):
        return block_sparse_attention(q, k, v, lists, layout, backend=backend)

    assert torch.autograd.gradcheck(run, (q, k, v), fast_mode=True)


def test_tiles_that_nobody_chose_are_not_looked_at(backend):
    layout = tile_layout((3, 5, 7), tile=(2, 2, 4))
    q, k, v = (layout.to_tiles(x) for x in inputs(layout))
    unused = {1, 4, layout.tiles - 1}
    free = [t for t in range(layout.tiles) if t not in unused]
    index = torch.tensor(free[:3]).expand(2, 2, layout.tiles, 3).contiguous().int()
    count = torch.randint(0, 4, index.shape[:3], generator=made(6), dtype=torch.int32)
    for tile in unused:
        for x in (k, v):
            x[:, layout.offsets[tile] : layout.offsets[tile + 1]] = torch.nan
    leaves = [x.requires_grad_() for x in (q, k, v)]
    out = block_sparse_attention(*leaves, TileLists(index, count), layout, backend=backend)
    dq, dk, dv = torch.autograd.grad(out, leaves, torch.ones_like(out))
    assert all(x.isfinite().all() for x in (out, dq, dk, dv))
    for tile in unused:
        span = slice(layout.offsets[tile], layout.offsets[tile + 1])
        assert (dk[:, span] == 0).all()
        assert (dv[:, span] == 0).all()


def test_empty_lists_give_zero_and_no_nan(backend):
    layout = tile_layout((2, 4, 4), tile=(2, 2, 2))
    q, k, v = (x.requires_grad_() for x in inputs(layout))
    shape = (2, 2, layout.tiles)
    lists = TileLists(torch.zeros(*shape, 1).int(), torch.zeros(shape, dtype=torch.int32))
    out, lse = block_sparse_attention(q, k, v, lists, layout, return_lse=True, backend=backend)
    assert (out == 0).all()
    assert (lse == torch.inf).all()
    assert not lse.requires_grad
    for grad in torch.autograd.grad(out, (q, k, v), torch.ones_like(out)):
        assert (grad == 0).all()


def test_log_sum_exp_is_that_of_the_scores_seen(backend):
    layout = tile_layout((2, 4, 5), tile=(2, 2, 2))
    q, k, v = inputs(layout)
    lists = oracle.random_lists(layout, 2, 2, 3, made(7), even=True)
    _, lse = block_sparse_attention(
        *(layout.to_tiles(x) for x in (q, k, v)), lists, layout, return_lse=True, backend=backend
    )
    tile = oracle.owners(layout)
    scores = torch.einsum("bihd,bjhd->bhij", q, k) * 8**-0.5
    can_see = oracle.seen(lists, tile, tile, layout.tiles)
    expected = scores.masked_fill(~can_see, -torch.inf).logsumexp(-1)
    torch.testing.assert_close(layout.to_raster(lse, 2), expected)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 4.0, 16.0, 64.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_error_at_any_scale_is_that_of_dense_attention(dtype, scale, computing):
    """Against torch's own attention over the same keys, both measured in float64."""
    layout = tile_layout((4, 4, 8), tile=(4, 4, 4))
    q, k, v = inputs(layout, dtype, dim=32, scale=scale)
    v = (v / scale).to(dtype)
    every = torch.arange(layout.tiles).expand(2, 2, layout.tiles, -1).contiguous().int()
    lists = TileLists(every, torch.full((2, 2, layout.tiles), layout.tiles, dtype=torch.int32))
    do = torch.randn(q.shape, generator=made(9)).to(dtype)
    leaves = [x.clone().requires_grad_() for x in (q, k, v)]
    dense = attention(*leaves)
    peer = [dense.detach(), *torch.autograd.grad(dense, leaves, do)]
    found = both(q, k, v, lists, layout, computing, do=do)
    expected = truth(q, k, v, lists, layout, do=do)
    floor = {torch.float32: 1e-6, torch.float16: 5e-4, torch.bfloat16: 4e-3}[dtype]
    for ours, theirs, exact in zip(found, peer, expected, strict=True):
        limit = 1.5 * oracle.relative(theirs, exact) + floor
        assert oracle.relative(ours, exact) <= limit


def test_one_huge_score_and_a_shift_of_all_keys_do_no_harm(computing):
    layout = tile_layout((3, 5, 7), tile=(2, 2, 4))
    lists = oracle.random_lists(layout, 2, 2, 4, made(8))
    q, k, v = inputs(layout, torch.float32)
    plain = both(q, k, v, lists, layout, computing)[0]
    shifted = both(q, k + 3.0, v, lists, layout, computing)[0]
    torch.testing.assert_close(shifted, plain, rtol=1e-4, atol=1e-5)
    k[:, 17] *= 1e4
    found, expected = both(q, k, v, lists, layout, computing), truth(q, k, v, lists, layout)
    for a, b in zip(found, expected, strict=True):
        assert a.isfinite().all()
        assert oracle.relative(a, b) < 1e-3


def test_the_order_of_a_list_of_heads_and_of_the_batch_does_not_matter(computing):
    layout = tile_layout((3, 5, 7), tile=(2, 2, 4))
    lists = oracle.random_lists(layout, 2, 2, 4, made(10), even=True)
    q, k, v = inputs(layout)
    whole = both(q, k, v, lists, layout, computing)
    turned = TileLists(lists.index.flip(-1).contiguous(), lists.count)
    for a, b in zip(both(q, k, v, turned, layout, computing), whole, strict=True):
        torch.testing.assert_close(a, b)
    do = torch.randn(q.shape, generator=made(9)).to(q.dtype)
    for n in range(2):
        one = TileLists(lists.index[n : n + 1], lists.count[n : n + 1])
        part = both(*(x[n : n + 1] for x in (q, k, v)), one, layout, computing, do=do[n : n + 1])
        for a, b in zip(part, whole, strict=True):
            assert torch.equal(a[0], b[n])
    heads = TileLists(lists.index.flip(1).contiguous(), lists.count.flip(1).contiguous())
    swapped = both(*(x.flip(2) for x in (q, k, v)), heads, layout, computing, do=do.flip(2))
    for a, b in zip(swapped, whole, strict=True):
        assert torch.equal(a.flip(2), b)


def test_it_repeats_to_the_bit(computing):
    layout = tile_layout((5, 7, 9))
    lists = oracle.random_lists(layout, 2, 2, 4, made(11))
    q, k, v = inputs(layout, torch.float32)
    first, second = (both(q, k, v, lists, layout, computing) for _ in range(2))
    for a, b in zip(first, second, strict=True):
        assert torch.equal(a, b)


def test_slices_of_a_packed_tensor_need_no_copy_and_give_the_same(computing):
    layout = tile_layout((3, 5, 7))
    lists = oracle.random_lists(layout, 2, 2, 2, made(12))
    q, k, v = inputs(layout)
    packed = torch.stack([q, k, v], 2)
    sliced = packed.unbind(2)
    assert not sliced[0].is_contiguous()
    out = block_sparse_attention(*sliced, lists, layout, backend=computing)
    expected = block_sparse_attention(q, k, v, lists, layout, backend=computing)
    assert torch.equal(out, expected)


def op_arguments(layout: TileLayout):
    lists = oracle.random_lists(layout, 1, 2, 2, made(13))
    q, k, v = inputs(layout, torch.float32, batch=1)
    geometry = (layout.offsets, layout.offsets, layout.max_tile, layout.max_tile, 0.3, "cpu")
    return (q, k, v), (lists.index, lists.count, *geometry)


RULES = ("test_schema", "test_autograd_registration", "test_faketensor")


@pytest.mark.parametrize(
    "rules", [RULES, pytest.param(("test_aot_dispatch_dynamic",), marks=pytest.mark.slow)]
)
def test_the_operations_keep_torchs_rules(rules):
    layout = tile_layout((3, 4, 5), tile=(2, 2, 2))
    tensors, rest = op_arguments(layout)
    leaves = [x.requires_grad_() for x in tensors]
    torch.library.opcheck(block_sparse, (*leaves, *rest), test_utils=rules)
    o, lse = block_sparse(*(x.detach() for x in tensors), *rest)
    arguments = (torch.ones_like(o), *(x.detach() for x in tensors), o, lse, *rest)
    torch.library.opcheck(block_sparse_backward, arguments, test_utils=rules)


def test_checkpointing_gives_the_same_gradients():
    from torch.utils.checkpoint import checkpoint

    layout = tile_layout((3, 4, 5), tile=(2, 2, 2))
    lists = oracle.random_lists(layout, 1, 2, 3, made(14))
    q, k, v = (x.requires_grad_() for x in inputs(layout, batch=1))

    def run(q, k, v):
        return block_sparse_attention(q * 2, k, v, lists, layout)

    plain = torch.autograd.grad(run(q, k, v).sum(), (q, k, v))
    again = torch.autograd.grad(checkpoint(run, q, k, v, use_reentrant=False).sum(), (q, k, v))
    for a, b in zip(plain, again, strict=True):
        assert torch.equal(a, b)


@pytest.mark.filterwarnings("ignore:.*flex_attention called without torch.compile")
@pytest.mark.parametrize("even", [True, False])
def test_flex_attention_gives_the_same_output(even):
    layout = tile_layout((5, 7, 9))
    lists = oracle.random_lists(layout, 2, 2, 3, made(15), even)
    q, k, v = inputs(layout, torch.float32, dim=16)
    tiled = [layout.to_tiles(x) for x in (q, k, v)]
    out, lse = block_sparse_attention(*tiled, lists, layout, return_lse=True, backend="flex")
    expected = block_sparse_attention(*tiled, lists, layout, return_lse=True, backend="reference")
    torch.testing.assert_close(out, expected[0])
    torch.testing.assert_close(lse, expected[1])


def test_what_does_not_fit_is_refused():
    layout = tile_layout((3, 4, 5), tile=(2, 2, 2))
    lists = oracle.random_lists(layout, 2, 2, 3, made(16))
    q, k, v = inputs(layout)
    for arguments in (
        (q[:, 1:], k, v, lists, layout),
        (q, k[:, 1:], v, lists, layout),
        (q, k.float(), v, lists, layout),
        (q[:1], k[:1], v[:1], lists, layout),
        (q, k, v, TileLists(lists.index[:, :, 1:], lists.count[:, :, 1:]), layout),
    ):
        with pytest.raises(UsageError):
            block_sparse_attention(*arguments)
    with pytest.raises(UsageError, match="no sparse attention backend"):
        block_sparse_attention(q, k, v, lists, layout, backend="fast")
    with pytest.raises(UsageError, match="needs a CUDA device"):
        block_sparse_attention(q, k, v, lists, layout, backend="triton")
