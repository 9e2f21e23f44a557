"""Block-sparse attention for NVIDIA GPUs: one program per query tile, or per key tile.

Written to what Triton 3.6 to 3.9 share: plain pointers, no autotuning. Every sum is made by one
program in list order, so results repeat to the bit. Tiles are packed, so each load is masked to its
tile: what lies beyond belongs to a neighbour and may be anything.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

import triton
import triton.language as tl
from reelmill.kernels.reference import Blocks, working_type

LOG2E = tl.constexpr(1.4426950408889634)
LN2 = tl.constexpr(0.6931471805599453)
MAX_OFFSET = 1 << 31
"""Elements from a head's first to its last: 64-bit offsets would take a program's registers."""
INTERPRETED = triton.knobs.runtime.interpret


@dataclass(frozen=True)
class Config:
    """Rows of queries and keys per step, and how a program is compiled."""

    block_q: int
    block_kv: int
    warps: int
    stages: int


# By what fits a Hopper multiprocessor, as tests/kernels/test_cubin.py states it for each: no
# spills, and as many programs at once as their registers allow.
FORWARD = {
    (64, 64): Config(64, 64, 4, 2),
    (64, 128): Config(64, 64, 4, 1),
    (128, 64): Config(128, 64, 8, 2),
    (128, 128): Config(128, 64, 8, 2),
}
"""By (rows of a query tile, head_dim), each rounded up."""
QUERIES = {64: Config(64, 64, 4, 2), 128: Config(64, 64, 4, 2)}
"""Gradient of queries, by head_dim rounded up."""
KEYS = {64: Config(64, 64, 4, 1), 128: Config(64, 64, 4, 1)}
"""Gradient of keys and values, by head_dim rounded up."""


@triton.jit
def _product(a, b, ACC: tl.constexpr, EXACT: tl.constexpr, UPCAST: tl.constexpr):
    if UPCAST:  # the interpreter multiplies the bits of bfloat16
        a, b = a.to(tl.float32), b.to(tl.float32)
    if EXACT:
        return tl.dot(a, b, input_precision="ieee", out_dtype=ACC)
    return tl.dot(a, b, out_dtype=ACC)


@triton.jit
def forward_kernel(
    Q, K, V, OUT, LSE, INDEX, COUNT, Q_OFF, KV_OFF,
    sqb, sql, sqh, skb, skl, skh, sob, sol, soh,
    heads, tiles, tokens, width, scale,
    DIM: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_KV: tl.constexpr,
    ACC: tl.constexpr, EXACT: tl.constexpr, UPCAST: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """Grid (query tiles, B * heads): neighbours in a head run together and share keys in L2."""
    tile, bh = tl.program_id(0), tl.program_id(1)
    b, h = (bh // heads).to(tl.int64), (bh % heads).to(tl.int64)
    first = tl.load(Q_OFF + tile)
    rows = tl.load(Q_OFF + tile + 1) - first
    i, d = tl.arange(0, BLOCK_Q), tl.arange(0, DIM)
    j = tl.arange(0, BLOCK_KV)
    inside = i < rows
    Q += b * sqb + h * sqh + first.to(tl.int64) * sql
    q = tl.load(Q + i[:, None] * sql + d[None, :], mask=inside[:, None], other=0.0)
    K += b * skb + h * skh
    V += b * skb + h * skh
    listed = bh.to(tl.int64) * tiles + tile
    count = tl.load(COUNT + listed)
    INDEX += listed * width
    top = tl.full([BLOCK_Q], float("-inf"), ACC)
    weight = tl.zeros([BLOCK_Q], ACC)
    out = tl.zeros([BLOCK_Q, DIM], ACC)
    for n in tl.range(0, count, num_stages=STAGES):
        t = tl.load(INDEX + n)
        start = tl.load(KV_OFF + t)
        size = tl.load(KV_OFF + t + 1) - start
        here = (j < size)[:, None]
        at = (start + j)[:, None] * skl + d[None, :]
        k = tl.load(K + at, mask=here, other=0.0)
        v = tl.load(V + at, mask=here, other=0.0)
        # In base 2; scaled after the product, in full precision.
        s = _product(q, tl.trans(k), ACC, EXACT, UPCAST) * (scale * LOG2E)
        s = tl.where((j < size)[None, :], s, float("-inf"))
        peak = tl.maximum(top, tl.max(s, 1))
        p = tl.exp2(s - peak[:, None])
        fade = tl.exp2(top - peak)
        weight = weight * fade + tl.sum(p, 1)
        out = out * fade[:, None] + _product(p.to(v.dtype), v, ACC, EXACT, UPCAST)
        top = peak
    empty = count == 0
    out = out / tl.where(empty, 1.0, weight)[:, None]
    total = tl.where(empty, float("inf"), (top + tl.log2(tl.where(empty, 1.0, weight))) * LN2)
    OUT += b * sob + h * soh + first.to(tl.int64) * sol
    at_out = i[:, None] * sol + d[None, :]
    tl.store(OUT + at_out, out.to(OUT.dtype.element_ty), mask=inside[:, None])
    tl.store(LSE + bh.to(tl.int64) * tokens + first + i, total, mask=inside)


@triton.jit
def queries_kernel(
    DO, Q, K, V, OUT, LSE, DELTA, DQ, INDEX, COUNT, Q_OFF, KV_OFF,
    sqb, sql, sqh, skb, skl, skh, sob, sol, soh,
    heads, tiles, tokens, width, scale,
    DIM: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_KV: tl.constexpr, PARTS: tl.constexpr,
    ACC: tl.constexpr, EXACT: tl.constexpr, UPCAST: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """dQ, and the row sums of O * dO on the way. DQ is contiguous [B, tokens, heads, DIM].

    Grid (query tiles * PARTS, B * heads): a tile of more than BLOCK_Q rows goes in parts.
    """
    tile, bh = tl.program_id(0) // PARTS, tl.program_id(1)
    skip = (tl.program_id(0) % PARTS) * BLOCK_Q
    b, h = (bh // heads).to(tl.int64), (bh % heads).to(tl.int64)
    first = tl.load(Q_OFF + tile) + skip
    rows = tl.load(Q_OFF + tile + 1) - first
    i, d = tl.arange(0, BLOCK_Q), tl.arange(0, DIM)
    j = tl.arange(0, BLOCK_KV)
    inside = i < rows
    Q += b * sqb + h * sqh + first.to(tl.int64) * sql
    DO += b * sob + h * soh + first.to(tl.int64) * sol
    OUT += b * sob + h * soh + first.to(tl.int64) * sol
    q = tl.load(Q + i[:, None] * sql + d[None, :], mask=inside[:, None], other=0.0)
    g = tl.load(DO + i[:, None] * sol + d[None, :], mask=inside[:, None], other=0.0)
    o = tl.load(OUT + i[:, None] * sol + d[None, :], mask=inside[:, None], other=0.0)
    delta = tl.sum(g.to(ACC) * o.to(ACC), 1)
    row = bh.to(tl.int64) * tokens + first + i
    tl.store(DELTA + row, delta, mask=inside)
    total = tl.load(LSE + row, mask=inside, other=float("inf")) * LOG2E
    K += b * skb + h * skh
    V += b * skb + h * skh
    listed = bh.to(tl.int64) * tiles + tile
    count = tl.load(COUNT + listed)
    INDEX += listed * width
    dq = tl.zeros([BLOCK_Q, DIM], ACC)
    for n in tl.range(0, count, num_stages=STAGES):
        t = tl.load(INDEX + n)
        start = tl.load(KV_OFF + t)
        size = tl.load(KV_OFF + t + 1) - start
        here = (j < size)[:, None]
        at = (start + j)[:, None] * skl + d[None, :]
        k = tl.load(K + at, mask=here, other=0.0)
        v = tl.load(V + at, mask=here, other=0.0)
        s = _product(q, tl.trans(k), ACC, EXACT, UPCAST) * (scale * LOG2E)
        s = tl.where((j < size)[None, :], s, float("-inf"))
        p = tl.exp2(s - total[:, None])
        ds = p * (_product(g, tl.trans(v), ACC, EXACT, UPCAST) - delta[:, None])
        dq += _product(ds.to(k.dtype), k, ACC, EXACT, UPCAST)
    DQ += (b * tokens + first) * heads * DIM + h * DIM
    tl.store(
        DQ + i[:, None] * heads * DIM + d[None, :],
        (dq * scale).to(DQ.dtype.element_ty),
        mask=inside[:, None],
    )


@triton.jit
def keys_kernel(
    DO, Q, K, V, LSE, DELTA, DK, DV, READERS, READ_OFF, Q_OFF, KV_OFF,
    sqb, sql, sqh, skb, skl, skh, sob, sol, soh,
    heads, tiles, tokens, kv_tokens, entries, scale,
    DIM: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_KV: tl.constexpr, PARTS: tl.constexpr,
    ACC: tl.constexpr, EXACT: tl.constexpr, UPCAST: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """dK and dV of one key tile, over the query tiles that read it, ascending; else exact zeros.

    READERS: [B * heads, entries], query tiles sorted by the key tile that they read; READ_OFF:
    [B * heads, tiles + 1], where each key tile's readers begin. DK, DV are contiguous.
    """
    tile, bh = tl.program_id(0), tl.program_id(1)
    b, h = (bh // heads).to(tl.int64), (bh % heads).to(tl.int64)
    first = tl.load(KV_OFF + tile)
    size = tl.load(KV_OFF + tile + 1) - first
    i, d = tl.arange(0, BLOCK_Q), tl.arange(0, DIM)
    j = tl.arange(0, BLOCK_KV)
    here = (j < size)[:, None]
    K += b * skb + h * skh + first.to(tl.int64) * skl
    V += b * skb + h * skh + first.to(tl.int64) * skl
    k = tl.load(K + j[:, None] * skl + d[None, :], mask=here, other=0.0)
    v = tl.load(V + j[:, None] * skl + d[None, :], mask=here, other=0.0)
    Q += b * sqb + h * sqh
    DO += b * sob + h * soh
    LSE += bh.to(tl.int64) * tokens
    DELTA += bh.to(tl.int64) * tokens
    spot = bh.to(tl.int64) * (tiles + 1) + tile
    begin = tl.load(READ_OFF + spot)
    end = tl.load(READ_OFF + spot + 1)
    READERS += bh.to(tl.int64) * entries
    dk = tl.zeros([BLOCK_KV, DIM], ACC)
    dv = tl.zeros([BLOCK_KV, DIM], ACC)
    for n in tl.range(begin * PARTS, end * PARTS, num_stages=STAGES):
        t = tl.load(READERS + n // PARTS)
        start = tl.load(Q_OFF + t) + (n % PARTS) * BLOCK_Q
        inside = i < tl.load(Q_OFF + t + 1) - start
        at = (start + i)[:, None]
        q = tl.load(Q + at * sql + d[None, :], mask=inside[:, None], other=0.0)
        g = tl.load(DO + at * sol + d[None, :], mask=inside[:, None], other=0.0)
        # Rows beyond the tile read +inf, hence weigh nothing.
        total = tl.load(LSE + start + i, mask=inside, other=float("inf")) * LOG2E
        delta = tl.load(DELTA + start + i, mask=inside, other=0.0)
        s = _product(k, tl.trans(q), ACC, EXACT, UPCAST) * (scale * LOG2E)
        p = tl.exp2(s - total[None, :])
        dv += _product(p.to(g.dtype), g, ACC, EXACT, UPCAST)
        ds = p * (_product(v, tl.trans(g), ACC, EXACT, UPCAST) - delta[None, :])
        dk += _product(ds.to(q.dtype), q, ACC, EXACT, UPCAST)
    at = (b * kv_tokens + first) * heads * DIM + h * DIM
    at_kv = at + j[:, None] * heads * DIM + d[None, :]
    tl.store(DK + at_kv, (dk * scale).to(DK.dtype.element_ty), mask=here)
    tl.store(DV + at_kv, dv.to(DV.dtype.element_ty), mask=here)


def constants(dtype: torch.dtype) -> dict[str, object]:
    """How sums and products are made for inputs of this type."""
    wide = dtype == torch.float64
    return {
        "ACC": tl.float64 if wide else tl.float32,
        "EXACT": dtype in (torch.float32, torch.float64),
        "UPCAST": INTERPRETED and dtype == torch.bfloat16,
    }


def _rounded(n: int) -> int:
    return 64 if n <= 64 else 128


def _blocks(config: Config, q_max: int, kv_max: int) -> tuple[int, int]:
    """Block sides; the interpreter may take smaller ones, which cost it less."""
    if not INTERPRETED:
        return config.block_q, config.block_kv
    return (
        min(config.block_q, max(triton.next_power_of_2(q_max), 1)),
        min(config.block_kv, max(triton.next_power_of_2(kv_max), 1)),
    )


def _strides(*tensors: Tensor) -> list[int]:
    return [stride for x in tensors for stride in x.stride()[:3]]


def _addressable(*tensors: Tensor) -> list[Tensor]:
    """The tensors with one set of strides, contiguous rows, and 32-bit offsets inside a head."""
    alike = len({x.stride() for x in tensors}) == 1 and tensors[0].stride(-1) == 1
    made = list(tensors) if alike else [x.contiguous() for x in tensors]
    _, tokens, _, dim = made[0].shape
    if tokens * max(made[0].stride(1), dim) < MAX_OFFSET:
        return made
    return [x.transpose(1, 2).contiguous().transpose(1, 2) for x in made]


def forward(q: Tensor, k: Tensor, v: Tensor, blocks: Blocks) -> tuple[Tensor, Tensor]:
    """As `reference.forward`."""
    (q,), (k, v) = _addressable(q), _addressable(k, v)
    batch, tokens, heads, dim = q.shape
    tiles, width = blocks.chosen.shape[2:]
    (o,) = _addressable(torch.empty(q.shape, dtype=q.dtype, device=q.device))
    lse = torch.empty(batch, heads, tokens, dtype=working_type(q.dtype), device=q.device)
    config = FORWARD[_rounded(blocks.q_max), _rounded(dim)]
    block_q, block_kv = _blocks(config, blocks.q_max, blocks.kv_max)
    forward_kernel[(tiles, batch * heads)](
        q, k, v, o, lse,
        blocks.chosen.contiguous(), blocks.counts.contiguous(), blocks.q_offsets, blocks.kv_offsets,
        *_strides(q, k, o), heads, tiles, tokens, width, blocks.scale,
        DIM=dim, BLOCK_Q=block_q, BLOCK_KV=block_kv, STAGES=config.stages, **constants(q.dtype),
        num_warps=config.warps,
    )  # fmt: skip
    return o.contiguous(), lse


def backward(
    do: Tensor, q: Tensor, k: Tensor, v: Tensor, o: Tensor, lse: Tensor, blocks: Blocks
) -> tuple[Tensor, Tensor, Tensor]:
    """As `reference.backward`."""
    (q,), (k, v), (do, o) = _addressable(q), _addressable(k, v), _addressable(do, o)
    batch, tokens, heads, dim = q.shape
    tiles, width = blocks.chosen.shape[2:]
    dq, dk, dv = (torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in (q, k, v))
    delta = torch.empty_like(lse)
    index, count = blocks.chosen.contiguous(), blocks.counts.contiguous()
    config = QUERIES[_rounded(dim)]
    block_q, block_kv = _blocks(config, blocks.q_max, blocks.kv_max)
    parts = triton.cdiv(blocks.q_max, block_q)
    queries_kernel[(tiles * parts, batch * heads)](
        do, q, k, v, o, lse, delta, dq, index, count, blocks.q_offsets, blocks.kv_offsets,
        *_strides(q, k, o), heads, tiles, tokens, width, blocks.scale,
        DIM=dim, BLOCK_Q=block_q, BLOCK_KV=block_kv, PARTS=parts, STAGES=config.stages,
        **constants(q.dtype), num_warps=config.warps,
    )  # fmt: skip
    kv_tiles = blocks.kv_offsets.shape[0] - 1
    readers, starts = invert(index, count, kv_tiles)
    config = KEYS[_rounded(dim)]
    block_q, block_kv = _blocks(config, blocks.q_max, blocks.kv_max)
    parts = triton.cdiv(blocks.q_max, block_q)
    keys_kernel[(kv_tiles, batch * heads)](
        do, q, k, v, lse, delta, dk, dv, readers, starts, blocks.q_offsets, blocks.kv_offsets,
        *_strides(q, k, o), heads, kv_tiles, tokens, k.shape[1], tiles * width, blocks.scale,
        DIM=dim, BLOCK_Q=block_q, BLOCK_KV=block_kv, PARTS=parts, STAGES=config.stages,
        **constants(q.dtype), num_warps=config.warps,
    )  # fmt: skip
    return dq, dk, dv


def invert(index: Tensor, count: Tensor, kv_tiles: int) -> tuple[Tensor, Tensor]:
    """Who reads each key tile: query tiles by key tile, ascending, and where each begins.

    index, count: as in `TileLists`. Returns int32 [B * heads, query tiles * width] and int32
    [B * heads, kv_tiles + 1]. A stable sort, so the order is a function of the lists alone.
    """
    width = index.shape[-1]
    used = torch.arange(width, device=index.device) < count[..., None]
    owner = index.where(used, kv_tiles).flatten(0, 1).flatten(1)
    owner, order = owner.sort(dim=1, stable=True)
    bounds = torch.arange(kv_tiles + 1, device=index.device, dtype=owner.dtype)
    starts = torch.searchsorted(owner, bounds.expand(len(owner), -1).contiguous(), out_int32=True)
    return (order // width).int(), starts
