"""The coarse half on NVIDIA GPUs: tile means, selection and the gated sum, each in one pass."""

from __future__ import annotations

import torch
from torch import Tensor

import triton
import triton.language as tl
from reelmill.kernels.reference import working_type


@triton.jit
def mean_kernel(
    X, OUT, OFF, sxb, sxl, sxh, heads, tiles,
    DIM: tl.constexpr, WIDE: tl.constexpr, BLOCK: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """Grid (tiles, B * heads). WIDE and BLOCK: powers of two from DIM and the longest tile on."""
    tile, bh = tl.program_id(0), tl.program_id(1)
    b, h = (bh // heads).to(tl.int64), (bh % heads).to(tl.int64)
    first = tl.load(OFF + tile)
    size = tl.load(OFF + tile + 1) - first
    i, d = tl.arange(0, BLOCK), tl.arange(0, WIDE)
    at = b * sxb + h * sxh + (first + i)[:, None].to(tl.int64) * sxl + d[None, :]
    x = tl.load(X + at, mask=(i < size)[:, None] & (d < DIM)[None, :], other=0.0).to(ACC)
    spot = (bh.to(tl.int64) * tiles + tile) * DIM + d
    tl.store(OUT + spot, tl.sum(x, 0) / size.to(ACC), mask=d < DIM)


@triton.jit
def gated_kernel(
    FINE, GATE, COARSE, OUT, OFF,
    sfb, sfl, sfh, sgb, sgl, sgh, heads, tiles, tokens,
    DIM: tl.constexpr, WIDE: tl.constexpr, BLOCK: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """OUT = FINE + GATE * COARSE of the token's tile; OUT is contiguous."""
    tile, bh = tl.program_id(0), tl.program_id(1)
    b, h = (bh // heads).to(tl.int64), (bh % heads).to(tl.int64)
    first = tl.load(OFF + tile)
    size = tl.load(OFF + tile + 1) - first
    i, d = tl.arange(0, BLOCK), tl.arange(0, WIDE)
    mask = (i < size)[:, None] & (d < DIM)[None, :]
    token = (first + i)[:, None].to(tl.int64)
    coarse = tl.load(COARSE + (bh.to(tl.int64) * tiles + tile) * DIM + d, mask=d < DIM, other=0.0)
    fine = tl.load(FINE + b * sfb + h * sfh + token * sfl + d[None, :], mask=mask, other=0.0)
    gate = tl.load(GATE + b * sgb + h * sgh + token * sgl + d[None, :], mask=mask, other=0.0)
    out = fine.to(ACC) + gate.to(ACC) * coarse.to(ACC)[None, :]
    at = (b * tokens + token) * heads * DIM + h * DIM + d[None, :]
    tl.store(OUT + at, out.to(OUT.dtype.element_ty), mask=mask)


@triton.jit
def gated_backward_kernel(
    GRAD, GATE, COARSE, DGATE, DCOARSE, OFF,
    sgb, sgl, sgh, stb, stl, sth, heads, tiles, tokens,
    DIM: tl.constexpr, WIDE: tl.constexpr, BLOCK: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """DGATE = GRAD * COARSE of the token's tile; DCOARSE = sums of GRAD * GATE over the tile."""
    tile, bh = tl.program_id(0), tl.program_id(1)
    b, h = (bh // heads).to(tl.int64), (bh % heads).to(tl.int64)
    first = tl.load(OFF + tile)
    size = tl.load(OFF + tile + 1) - first
    i, d = tl.arange(0, BLOCK), tl.arange(0, WIDE)
    mask = (i < size)[:, None] & (d < DIM)[None, :]
    token = (first + i)[:, None].to(tl.int64)
    spot = (bh.to(tl.int64) * tiles + tile) * DIM + d
    coarse = tl.load(COARSE + spot, mask=d < DIM, other=0.0).to(ACC)
    grad = tl.load(GRAD + b * sgb + h * sgh + token * sgl + d[None, :], mask=mask, other=0.0)
    gate = tl.load(GATE + b * stb + h * sth + token * stl + d[None, :], mask=mask, other=0.0)
    at = (b * tokens + token) * heads * DIM + h * DIM + d[None, :]
    dgate = grad.to(ACC) * coarse[None, :]
    tl.store(DGATE + at, dgate.to(DGATE.dtype.element_ty), mask=mask)
    total = tl.sum(grad.to(ACC) * gate.to(ACC), 0)
    tl.store(DCOARSE + spot, total.to(DCOARSE.dtype.element_ty), mask=d < DIM)


@triton.jit
def largest_kernel(SCORES, OUT, n, count, BLOCK: tl.constexpr):
    """Positions of a row's `count` largest, ascending; of equals the first. NaN is least.

    Grid (rows,). Bits of a float, suitably flipped, sort as integers do; the count-th largest is
    found by bisecting their 32 bits in registers.
    """
    row = tl.program_id(0).to(tl.int64)
    j = tl.arange(0, BLOCK)
    x = tl.load(SCORES + row * n + j, mask=j < n, other=float("-inf"))
    x = tl.where(x == x, x, float("-inf")) + 0.0
    bits = x.to(tl.int32, bitcast=True)
    key = tl.where(bits < 0, bits ^ 0x7FFFFFFF, bits).to(tl.int64)
    # Pads lie below every float, -inf included.
    key = tl.where(j < n, key, -2147483648)
    low = tl.full([], -2147483648, tl.int64)  # at least `count` keys are >= low
    high = tl.full([], 2147483648, tl.int64)  # fewer are >= high
    for _ in range(32):
        middle = (low + high) >> 1
        enough = tl.sum((key >= middle).to(tl.int32), 0) >= count
        low = tl.where(enough, middle, low)
        high = tl.where(enough, high, middle)
    above = (key > low).to(tl.int32)
    level = (key == low).to(tl.int32)
    spare = count - tl.sum(above, 0)
    chosen = above + level * (tl.cumsum(level, 0) <= spare).to(tl.int32)
    spot = tl.cumsum(chosen, 0) - 1
    tl.store(OUT + row * count + spot, j, mask=chosen > 0)


def _sides(dim: int, longest: int) -> dict[str, int]:
    return {
        "DIM": dim,
        "WIDE": triton.next_power_of_2(dim),
        "BLOCK": triton.next_power_of_2(longest),
    }


def _rows(x: Tensor) -> Tensor:
    return x if x.stride(-1) == 1 else x.contiguous()


def _sums(dtype: torch.dtype) -> dict[str, object]:
    return {"ACC": tl.float64 if dtype == torch.float64 else tl.float32}


def tile_mean(x: Tensor, offsets: Tensor, longest: int) -> Tensor:
    """As `reelmill.kernels.coarse.tile_mean`."""
    x = _rows(x)
    batch, _, heads, dim = x.shape
    tiles = len(offsets) - 1
    out = torch.empty(batch, heads, tiles, dim, dtype=working_type(x.dtype), device=x.device)
    mean_kernel[(tiles, batch * heads)](
        x, out, offsets, *x.stride()[:3], heads, tiles, **_sides(dim, longest), **_sums(x.dtype)
    )
    return out


def gated_sum(fine: Tensor, gate: Tensor, coarse: Tensor, offsets: Tensor, longest: int) -> Tensor:
    """As `reelmill.kernels.coarse.gated_sum_op`."""
    fine, gate, coarse = _rows(fine), _rows(gate), coarse.contiguous()
    batch, tokens, heads, dim = fine.shape
    tiles = len(offsets) - 1
    out = torch.empty(fine.shape, dtype=fine.dtype, device=fine.device)
    gated_kernel[(tiles, batch * heads)](
        fine, gate, coarse, out, offsets, *fine.stride()[:3], *gate.stride()[:3],
        heads, tiles, tokens, **_sides(dim, longest), **_sums(fine.dtype),
    )  # fmt: skip
    return out


def gated_sum_backward(
    grad: Tensor, gate: Tensor, coarse: Tensor, offsets: Tensor, longest: int
) -> tuple[Tensor, Tensor]:
    """As `reelmill.kernels.coarse.gated_sum_backward`."""
    grad, gate, coarse = _rows(grad), _rows(gate), coarse.contiguous()
    batch, tokens, heads, dim = grad.shape
    tiles = len(offsets) - 1
    dgate = torch.empty(gate.shape, dtype=gate.dtype, device=gate.device)
    dcoarse = torch.empty_like(coarse)
    gated_backward_kernel[(tiles, batch * heads)](
        grad, gate, coarse, dgate, dcoarse, offsets, *grad.stride()[:3], *gate.stride()[:3],
        heads, tiles, tokens, **_sides(dim, longest), **_sums(grad.dtype),
    )  # fmt: skip
    return dgate, dcoarse


def largest(scores: Tensor, count: int) -> Tensor:
    """As `reelmill.kernels.select.largest_torch`, in one pass over the scores."""
    scores = scores.contiguous()
    n = scores.shape[-1]
    rows = scores.numel() // n
    out = torch.empty(*scores.shape[:-1], count, dtype=torch.int32, device=scores.device)
    block = triton.next_power_of_2(n)
    largest_kernel[(rows,)](scores, out, n, count, BLOCK=block, num_warps=4 if block < 4096 else 8)
    return out
