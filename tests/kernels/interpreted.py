"""The Triton kernels in Triton's interpreter, as a program: prints one JSON object of findings.

A process of its own, because a kernel is interpreted or compiled from its first import on.
"""

from __future__ import annotations

import json
import os
import sys

os.environ["TRITON_INTERPRET"] = "1"

import torch
from tests.kernels import oracle
from torch import Tensor

from reelmill.kernels import coarse, cpu, reference
from reelmill.kernels.block_sparse import block_sparse_attention
from reelmill.kernels.dispatch import attention
from reelmill.kernels.reference import Blocks
from reelmill.kernels.select import TileLists, largest_torch
from reelmill.kernels.tiles import TileLayout, tile_layout
from reelmill.kernels.triton import coarse as triton_coarse
from reelmill.kernels.triton import fine
from reelmill.kernels.vsa import video_sparse_attention

GRIDS = {
    "odd": ((3, 5, 7), (2, 2, 4), ()),
    "prefix": ((2, 3, 4), (2, 2, 2), (77, 1)),
    "one token": ((1, 1, 1), (1, 1, 1), ()),
    "tiles of one": ((1, 2, 3), (1, 1, 1), ()),
}


def made(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def some(shape, seed: int, dtype=torch.float64) -> Tensor:
    return torch.randn(shape, generator=made(seed), dtype=torch.float64).to(dtype)


def qkv(layout: TileLayout, dtype=torch.float64, batch=1, heads=2, dim=16) -> list[Tensor]:
    return [some((batch, layout.tokens, heads, dim), n, dtype) for n in range(3)]


def run(q, k, v, lists, layout, do, backend="triton") -> list[Tensor]:
    leaves = [x.detach().clone().requires_grad_() for x in (q, k, v)]
    out = block_sparse_attention(*leaves, lists, layout, backend=backend)
    return [out.detach(), *torch.autograd.grad(out, leaves, do)]


def errors(found: list[Tensor], expected: list[Tensor]) -> float:
    return max(
        float((a.double() - b.double()).abs().max()) for a, b in zip(found, expected, strict=True)
    )


def against_the_oracle() -> dict[str, float]:
    """Forward and backward in float64 against dense masked attention in raster order."""
    worst = {}
    for name, (grid, tile, prefix) in GRIDS.items():
        layout = tile_layout(grid, tile=tile, prefix=prefix)
        lists = oracle.random_lists(layout, 1, 2, 3, made(5))
        q, k, v = qkv(layout)
        do = some(q.shape, 7)
        found = run(*(layout.to_tiles(x) for x in (q, k, v)), lists, layout, layout.to_tiles(do))
        leaves = [x.requires_grad_() for x in (q, k, v)]
        out = oracle.sparse(*leaves, lists, layout)
        expected = [out.detach(), *torch.autograd.grad(out, leaves, do)]
        worst[name] = errors([layout.to_raster(x) for x in found], expected)
    return worst


def types() -> dict[str, float]:
    layout = tile_layout((2, 3, 5), tile=(2, 2, 2))
    lists = oracle.random_lists(layout, 1, 2, 2, made(5))
    exact = None
    worst = {}
    for dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16):
        q, k, v = (x.to(torch.bfloat16).to(dtype) for x in qkv(layout))
        found = run(q, k, v, lists, layout, some(q.shape, 7).to(torch.bfloat16).to(dtype))
        exact = exact or found
        worst[str(dtype)] = max(oracle.relative(a, b) for a, b in zip(found, exact, strict=True))
    return worst


def scales() -> dict[str, float]:
    """Relative error in fp32 over what torch's own fp32 attention is allowed to have."""
    layout = tile_layout((2, 2, 4), tile=(2, 2, 2))
    every = torch.arange(layout.tiles).expand(1, 2, layout.tiles, -1).contiguous().int()
    lists = TileLists(every, torch.full((1, 2, layout.tiles), layout.tiles, dtype=torch.int32))
    worst = {}
    for scale in (1e-3, 1, 4, 16, 64):
        q, k, v = qkv(layout, torch.float32)
        q, k = q * scale, k * scale
        do = some(q.shape, 7, torch.float32)
        exact = run(*(x.double() for x in (q, k, v)), lists, layout, do.double(), "reference")
        found = run(q, k, v, lists, layout, do)
        leaves = [x.requires_grad_() for x in (q, k, v)]
        out = attention(*leaves)
        peer = [out.detach(), *torch.autograd.grad(out, leaves, do)]
        worst[str(scale)] = max(
            oracle.relative(a, c) / (2 * oracle.relative(b, c) + 1e-6)
            for a, b, c in zip(found, peer, exact, strict=True)
        )
    return worst


def poison() -> dict[str, bool]:
    """Tiles that nobody reads are NaN, and so is all memory that outputs get."""
    layout = tile_layout((3, 5, 7), tile=(2, 2, 4))
    q, k, v = qkv(layout)
    unused = 1
    span = slice(int(layout.offsets[unused]), int(layout.offsets[unused + 1]))
    k[:, span] = v[:, span] = torch.nan
    index = torch.tensor([0, 2, 5]).expand(1, 2, layout.tiles, 3).contiguous().int()
    count = torch.randint(0, 4, index.shape[:3], generator=made(1), dtype=torch.int32)
    count[0, 0, 0] = 0
    empty, empty_like = torch.empty, torch.empty_like

    def nan(x: Tensor) -> Tensor:
        return x.fill_(torch.nan) if x.is_floating_point() else x.fill_(10**6)

    torch.empty = lambda *a, **o: nan(empty(*a, **o))  # type: ignore[assignment]
    torch.empty_like = lambda *a, **o: nan(empty_like(*a, **o))  # type: ignore[assignment]
    try:
        found = run(q, k, v, TileLists(index, count), layout, torch.ones_like(q))
    finally:
        torch.empty, torch.empty_like = empty, empty_like
    _, _, dk, dv = found
    first = slice(0, int(layout.offsets[1]))
    return {
        "finite": all(bool(x.isfinite().all()) for x in found),
        "no gradient": bool((dk[:, span] == 0).all() and (dv[:, span] == 0).all()),
        "empty list is zero": bool((found[0][:, first, 0] == 0).all()),
    }


def repeats() -> bool:
    layout = tile_layout((2, 3, 5), tile=(2, 2, 2))
    lists = oracle.random_lists(layout, 1, 2, 3, made(5))
    q, k, v = qkv(layout, torch.float32)
    do = some(q.shape, 7, torch.float32)
    pairs = zip(run(q, k, v, lists, layout, do), run(q, k, v, lists, layout, do), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def gradcheck() -> bool:
    layout = tile_layout((1, 2, 5), tile=(1, 2, 2))
    leaves = [some((1, layout.tokens, 1, 4), n).requires_grad_() for n in range(4)]

    def whole(*leaves: Tensor) -> Tensor:
        return video_sparse_attention(*leaves, layout, topk=2, backend="triton")

    return torch.autograd.gradcheck(whole, leaves, fast_mode=True)


def shared_lists() -> float:
    """128 rows of queries: two tiles that share one list, with a full block of keys."""
    layout = tile_layout((4, 4, 12), tile=(4, 4, 4))
    rows = layout.pairs
    index = torch.tensor([[0, 2], [1, 2]]).expand(1, 1, 2, 2).contiguous().int()
    count = torch.full((1, 1, 2), 2, dtype=torch.int32)
    blocks = Blocks(index, count, rows.offsets, layout.offsets, rows.max_tile, 64, 0.25)
    q, k, v = (some((1, layout.tokens, 1, 16), n) for n in range(3))
    do = some(q.shape, 7)
    o, lse = fine.forward(q, k, v, blocks)
    grads = fine.backward(do, q, k, v, o, lse, blocks)
    expected = reference.forward(q, k, v, blocks)
    wanted = reference.backward(do, q, k, v, *expected, blocks)
    return errors([o, lse, *grads], [*expected, *wanted])


def strides() -> dict[str, float]:
    """Slices of one packed tensor, strides of all kinds, and more elements than 32 bits count."""
    layout = tile_layout((2, 3, 5), tile=(2, 2, 2))
    lists = oracle.random_lists(layout, 1, 2, 2, made(5))
    q, k, v = qkv(layout)
    do = some(q.shape, 7)
    plain = run(q, k, v, lists, layout, do)
    blocks = Blocks(
        *(lists.index, lists.count, layout.offsets, layout.offsets),
        *(layout.max_tile, layout.max_tile, 0.25),
    )
    kinds = {
        "packed": torch.stack([q, k, v], 2).unbind(2),
        "heads first": [x.transpose(1, 2).contiguous().transpose(1, 2) for x in (q, k, v)],
        "last axis apart": [x.mT.contiguous().mT for x in (q, k, v)],
        "unlike": [q, k.transpose(1, 2).contiguous().transpose(1, 2), v],
        "too long": [q, k, v],
    }
    worst = {}
    for name, (a, b, c) in kinds.items():
        limit, fine.MAX_OFFSET = fine.MAX_OFFSET, 1 if name == "too long" else fine.MAX_OFFSET
        o, lse = fine.forward(a, b, c, blocks)
        worst[name] = errors([o, *fine.backward(do, a, b, c, o, lse, blocks)], plain)
        fine.MAX_OFFSET = limit
    return worst


def coarse_kernels() -> dict[str, float]:
    layout = tile_layout((3, 3, 5), tile=(2, 2, 2))
    x, gate, grad = (some((2, layout.tokens, 2, 6), n) for n in range(3))
    pooled = coarse.pool_tiles(x, layout)
    place = (layout.offsets, layout.max_tile)
    mean = triton_coarse.tile_mean(x, *place)
    total = triton_coarse.gated_sum(x, gate, pooled, *place)
    grads = triton_coarse.gated_sum_backward(grad, gate, pooled, *place)
    return {
        "mean": errors([mean], [pooled]),
        "sum": errors([total], [coarse.gated_sum(x, gate, pooled, layout)]),
        "gradients": errors(
            list(grads), list(coarse.gated_sum_backward(grad, gate, pooled, *place))
        ),
    }


def selection() -> bool:
    scores = some((9, 37), 3, torch.float32).round()  # many equals
    scores[0] = 0
    scores[1, 3], scores[2, 5], scores[3] = torch.nan, torch.inf, -torch.inf
    scores[4] = torch.tensor([0.0, -0.0]).repeat(19)[:37]
    return all(
        torch.equal(triton_coarse.largest(scores, n), largest_torch(scores, n))
        for n in (1, 5, 36, 37)
    )


def inversion() -> bool:
    layout = tile_layout((3, 5, 7), tile=(2, 2, 2))
    lists = oracle.random_lists(layout, 2, 2, 4, made(3))
    readers, starts = fine.invert(lists.index, lists.count, layout.tiles)
    for bh in range(4):
        b, h = divmod(bh, 2)
        for tile in range(layout.tiles):
            rows = [
                row
                for row in range(layout.tiles)
                if tile in lists.index[b, h, row, : int(lists.count[b, h, row])].tolist()
            ]
            if readers[bh, starts[bh, tile] : starts[bh, tile + 1]].tolist() != rows:
                return False
    return True


def equals_cpu() -> float:
    layout = tile_layout((4, 4, 6), tile=(4, 4, 4))
    lists = oracle.random_lists(layout, 1, 1, 2, made(5), even=True)
    q, k, v = qkv(layout, torch.float32, heads=1, dim=64)
    blocks = Blocks(
        *(lists.index, lists.count, layout.offsets, layout.offsets),
        *(layout.max_tile, layout.max_tile, 0.125),
    )
    return errors(list(fine.forward(q, k, v, blocks)), list(cpu.forward(q, k, v, blocks)))


CHECKS = (
    against_the_oracle, types, scales, poison, repeats, gradcheck, shared_lists, strides,
    coarse_kernels, selection, inversion, equals_cpu,
)  # fmt: skip

if __name__ == "__main__":
    torch.set_num_threads(1)
    wanted = sys.argv[1:]
    print(json.dumps({c.__name__: c() for c in CHECKS if not wanted or c.__name__ in wanted}))
