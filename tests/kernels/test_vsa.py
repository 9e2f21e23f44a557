from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from tests.kernels import oracle

from reelmill.errors import UsageError
from reelmill.kernels.coarse import gated_sum_backward, gated_sum_op, pool_tiles, tile_mean
from reelmill.kernels.select import select_tiles
from reelmill.kernels.tiles import tile_layout
from reelmill.kernels.vsa import video_sparse_attention

CASES = [
    ((4, 4, 4), "auto", (), None),
    ((5, 7, 9), "auto", (), None),
    ((5, 7, 9), (4, 4, 4), (77, 0, 5), None),
    ((7, 3, 13), (2, 2, 4), (65, 1), (0,)),
    ((1, 21, 5), (1, 4, 4), (3, 3), ()),
]


def inputs(layout, dtype=torch.float64, batch=2, heads=2, dim=8, seed=0, n=4):
    g = torch.Generator().manual_seed(seed)
    shape = (batch, layout.tokens, heads, dim)
    return [torch.randn(shape, generator=g, dtype=torch.float64).to(dtype) for _ in range(n)]


def raster(layout, leaves, **options):
    """The operation with raster order in and out."""
    q, k, v, gate = (None if x is None else layout.to_tiles(x) for x in leaves)
    return layout.to_raster(video_sparse_attention(q, k, v, gate, layout, **options))


@pytest.mark.parametrize("gated", [True, False])
@pytest.mark.parametrize(("grid", "tile", "prefix", "always"), CASES)
def test_it_equals_its_definition_with_all_gradients(grid, tile, prefix, always, gated, backend):
    layout = tile_layout(grid, tile=tile, prefix=prefix)
    leaves = [x.requires_grad_() for x in inputs(layout)]
    used = leaves if gated else [*leaves[:3], None]
    numbers = range(len(prefix)) if always is None else always
    fixed = {tile for n in numbers for tile in layout.segment(n)}
    out = raster(layout, used, topk=2, always=always, backend=backend)
    expected = oracle.vsa(*used, layout, 2, fixed)
    torch.testing.assert_close(out, expected, rtol=1e-11, atol=1e-11)
    do = torch.randn(out.shape, generator=torch.Generator().manual_seed(3), dtype=out.dtype)
    wanted = leaves if gated else leaves[:3]
    for a, b in zip(
        torch.autograd.grad(out, wanted, do), torch.autograd.grad(expected, wanted, do), strict=True
    ):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("prefix", [(), (7,)])
def test_gradients_stand_numerical_differences(prefix):
    layout = tile_layout((2, 3, 5), tile=(2, 2, 2), prefix=prefix)
    leaves = [x.requires_grad_() for x in inputs(layout, batch=1, dim=4)]

    def run(*leaves):
        return video_sparse_attention(*leaves, layout, topk=2)

    assert torch.autograd.gradcheck(run, leaves, fast_mode=True)


def test_reading_every_tile_is_dense_attention():
    layout = tile_layout((5, 7, 9), prefix=(10,))
    q, k, v, gate = inputs(layout)
    dense = F.scaled_dot_product_attention(*(x.transpose(1, 2) for x in (q, k, v))).transpose(1, 2)
    closed = torch.zeros_like(gate)
    torch.testing.assert_close(raster(layout, (q, k, v, closed), topk=layout.tiles), dense)
    torch.testing.assert_close(raster(layout, (q, k, v, closed), sparsity=0.0), dense)


def test_a_shared_list_of_two_tiles_is_chosen_by_their_common_mean():
    layout = tile_layout((3, 5, 7), tile=(2, 2, 2))
    q, k, v, gate = inputs(layout)
    found = raster(layout, (q, k, v, None), topk=3, q_group=2)
    qt, kt = layout.to_tiles(q), layout.to_tiles(k)
    lists = select_tiles(pool_tiles(qt, layout.pairs), pool_tiles(kt, layout), layout, topk=3)
    tile = oracle.owners(layout)
    can_see = oracle.seen(lists, tile // 2, tile, layout.tiles)
    torch.testing.assert_close(found, oracle.masked(q, k, v, can_see))
    both = raster(layout, (q, k, v, gate), topk=3, q_group=2)
    coarse = raster(layout, (q, k, v, gate), topk=3) - raster(layout, (q, k, v, None), topk=3)
    torch.testing.assert_close(both, found + coarse)


def test_two_runs_are_equal_to_the_bit():
    layout = tile_layout((5, 7, 9), prefix=(9,))
    leaves = [x.requires_grad_() for x in inputs(layout, torch.float32)]

    def run():
        out = raster(layout, leaves, sparsity=0.5)
        return [out, *torch.autograd.grad(out.square().sum(), leaves)]

    for a, b in zip(run(), run(), strict=True):
        assert torch.equal(a, b)


def test_a_batch_is_its_parts():
    layout = tile_layout((3, 5, 7), prefix=(4,))
    leaves = inputs(layout)
    whole = raster(layout, leaves, topk=1)
    for n in range(2):
        part = raster(layout, [x[n : n + 1] for x in leaves], topk=1)
        torch.testing.assert_close(part[0], whole[n])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_types_keep_their_type_and_their_accuracy(dtype):
    layout = tile_layout((4, 8, 8), tile=(4, 4, 4), prefix=(20,))
    leaves = [x.requires_grad_() for x in inputs(layout, dtype, dim=16)]
    exact = [x.detach().double().requires_grad_() for x in leaves]
    out = raster(layout, leaves, topk=2)
    expected = oracle.vsa(*exact, layout, 2, set(layout.segment(0)))
    assert out.dtype == dtype
    limit = {torch.float16: 2e-3, torch.bfloat16: 1e-2}[dtype]
    assert oracle.relative(out, expected) < limit
    grads = torch.autograd.grad(out, leaves, torch.ones_like(out))
    wanted = torch.autograd.grad(expected, exact, torch.ones_like(expected))
    for a, b in zip(grads, wanted, strict=True):
        assert a.dtype == dtype
        assert oracle.relative(a, b) < 2 * limit


RULES = ("test_schema", "test_autograd_registration", "test_faketensor")


@pytest.mark.parametrize(
    "rules", [RULES, pytest.param(("test_aot_dispatch_dynamic",), marks=pytest.mark.slow)]
)
def test_the_coarse_operations_keep_torchs_rules(rules):
    layout = tile_layout((3, 4, 5), tile=(2, 2, 2))
    fine, gate = (x.requires_grad_() for x in inputs(layout, torch.float32, n=2))
    coarse = torch.randn(2, 2, layout.tiles, 8, requires_grad=True)
    place = (layout.offsets, layout.max_tile)
    torch.library.opcheck(tile_mean, (fine, *place), test_utils=rules)
    torch.library.opcheck(gated_sum_op, (fine, gate, coarse, *place), test_utils=rules)
    plain = (torch.ones_like(fine), gate.detach(), coarse.detach(), *place)
    torch.library.opcheck(gated_sum_backward, plain, test_utils=rules)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")
def test_compiled_whole_it_is_the_same():
    layout = tile_layout((3, 5, 7), tile=(2, 2, 4), prefix=(6,))
    leaves = [x.requires_grad_() for x in inputs(layout, torch.float32)]

    def run(q, k, v, gate):
        return video_sparse_attention(q * 1.5, k, v, gate.tanh(), layout, topk=3).square()

    compiled = torch.compile(run, fullgraph=True)
    out, expected = compiled(*leaves), run(*leaves)
    torch.testing.assert_close(out, expected)
    for a, b in zip(
        torch.autograd.grad(out.sum(), leaves),
        torch.autograd.grad(expected.sum(), leaves),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_it_traces_as_one_graph():
    """As `compiled`, without the compiler behind it."""
    layout = tile_layout((3, 5, 7), tile=(2, 2, 4))
    leaves = [x.requires_grad_() for x in inputs(layout, torch.float32)]

    def run(q, k, v, gate):
        return video_sparse_attention(q, k, v, gate, layout, topk=3)

    out = torch.compile(run, fullgraph=True, backend="aot_eager")(*leaves)
    expected = run(*leaves)
    torch.testing.assert_close(out, expected)
    for a, b in zip(
        torch.autograd.grad(out.sum(), leaves),
        torch.autograd.grad(expected.sum(), leaves),
        strict=True,
    ):
        torch.testing.assert_close(a, b)


def test_what_does_not_fit_is_refused():
    layout = tile_layout((3, 5, 7), prefix=(6,))
    q, k, v, gate = inputs(layout)
    for options in ({}, {"topk": 1, "sparsity": 0.5}, {"topk": 1, "q_group": 3}):
        with pytest.raises(UsageError):
            video_sparse_attention(q, k, v, gate, layout, **options)
    with pytest.raises(UsageError, match="tokens do not fit"):
        video_sparse_attention(q[:, 1:], k, v, gate, layout, topk=1)
    with pytest.raises(UsageError, match="gate"):
        video_sparse_attention(q, k, v, gate[:, 1:], layout, topk=1)
