"""The coarse half of Video Sparse Attention: means of tiles, and the gated sum of both halves."""

from __future__ import annotations

import torch
from torch import Tensor

from reelmill.kernels.dispatch import Case, choose_sparse
from reelmill.kernels.reference import working_type
from reelmill.kernels.tiles import TileLayout


def pool_tiles(x: Tensor, layout: TileLayout) -> Tensor:
    """Mean of each tile's tokens, in fp32 (float64 for float64): [B, heads, tiles, head_dim].

    x: [B, L, heads, head_dim], any strides, tokens in tile order. Differentiable.
    """
    return tile_mean(x, layout.offsets, layout.max_tile)


def gated_sum(fine: Tensor, gate: Tensor, coarse: Tensor, layout: TileLayout) -> Tensor:
    """fine + gate * coarse, each token taking the coarse value of its tile.

    fine, gate: [B, L, heads, head_dim] in tile order; coarse: [B, heads, tiles, head_dim].
    Returns fine's type; differentiable in all three.
    """
    return gated_sum_op(fine, gate, coarse, layout.offsets, layout.max_tile)


@torch.library.custom_op("reelmill::tile_mean", mutates_args=())
def tile_mean(x: Tensor, offsets: Tensor, longest: int) -> Tensor:
    if choose_sparse(Case.of(x)).name == "triton":
        from reelmill.kernels.triton.coarse import tile_mean as kernel

        return kernel(x, offsets, longest)
    return _per_tile(x, offsets, longest).div_(_sizes(offsets, working_type(x.dtype)))


@tile_mean.register_fake
def _(x: Tensor, offsets: Tensor, longest: int) -> Tensor:
    batch, _, heads, dim = x.shape
    shape = (batch, heads, offsets.shape[0] - 1, dim)
    return x.new_empty(shape, dtype=working_type(x.dtype))


def _mean_setup(ctx, inputs, output) -> None:
    x, offsets, _ = inputs
    ctx.save_for_backward(offsets)
    ctx.tokens, ctx.dtype = x.shape[1], x.dtype


def _mean_backward(ctx, grad: Tensor):
    (offsets,) = ctx.saved_tensors
    spread = _spread(grad / _sizes(offsets, grad.dtype), offsets, ctx.tokens)
    return spread.to(ctx.dtype), None, None


tile_mean.register_autograd(_mean_backward, setup_context=_mean_setup)


@torch.library.custom_op("reelmill::gated_sum", mutates_args=())
def gated_sum_op(
    fine: Tensor, gate: Tensor, coarse: Tensor, offsets: Tensor, longest: int
) -> Tensor:
    if choose_sparse(Case.of(fine)).name == "triton":
        from reelmill.kernels.triton.coarse import gated_sum as kernel

        return kernel(fine, gate, coarse, offsets, longest)
    tiles = coarse.shape[2]
    if fine.shape[1] == tiles * longest and fine.dtype == coarse.dtype:
        a, b = (x.unflatten(1, (tiles, longest)) for x in (fine, gate))
        total = torch.addcmul(a, b, coarse.transpose(1, 2)[:, :, None])
        return total.flatten(1, 2).contiguous()
    out = _spread(coarse, offsets, fine.shape[1]).mul_(gate).add_(fine)
    return out.to(fine.dtype, memory_format=torch.contiguous_format)


@gated_sum_op.register_fake
def _(fine: Tensor, gate: Tensor, coarse: Tensor, offsets: Tensor, longest: int) -> Tensor:
    return fine.new_empty(fine.shape)


@torch.library.custom_op("reelmill::gated_sum_backward", mutates_args=())
def gated_sum_backward(
    grad: Tensor, gate: Tensor, coarse: Tensor, offsets: Tensor, longest: int
) -> tuple[Tensor, Tensor]:
    if choose_sparse(Case.of(grad)).name == "triton":
        from reelmill.kernels.triton.coarse import gated_sum_backward as kernel

        return kernel(grad, gate, coarse, offsets, longest)
    dgate = _spread(coarse, offsets, grad.shape[1]).mul_(grad).to(gate.dtype)
    dcoarse = _per_tile(grad.to(coarse.dtype) * gate, offsets, longest)
    return dgate.contiguous(), dcoarse.to(coarse.dtype)


@gated_sum_backward.register_fake
def _(
    grad: Tensor, gate: Tensor, coarse: Tensor, offsets: Tensor, longest: int
) -> tuple[Tensor, Tensor]:
    return gate.new_empty(gate.shape), coarse.new_empty(coarse.shape)


def _gated_setup(ctx, inputs, output) -> None:
    _, gate, coarse, offsets, ctx.longest = inputs
    ctx.save_for_backward(gate, coarse, offsets)


def _gated_backward(ctx, grad: Tensor):
    dgate, dcoarse = gated_sum_backward(grad, *ctx.saved_tensors, ctx.longest)
    return grad, dgate, dcoarse, None, None


gated_sum_op.register_autograd(_gated_backward, setup_context=_gated_setup)


def _sizes(offsets: Tensor, dtype: torch.dtype) -> Tensor:
    return offsets.diff().to(dtype)[:, None]


def _spread(x: Tensor, offsets: Tensor, tokens: int) -> Tensor:
    """[B, heads, tiles, D] as a new tensor [B, tokens, heads, D]: each token its tile's value."""
    each = torch.arange(tokens, device=x.device, dtype=offsets.dtype)
    tile = torch.searchsorted(offsets[1:], each, right=True)
    return x.transpose(1, 2).index_select(1, tile)


def _per_tile(x: Tensor, offsets: Tensor, longest: int) -> Tensor:
    """Sums of tiles, [B, heads, tiles, D], always in the same order; tiles of a size together."""
    batch, tokens, heads, dim = x.shape
    tiles = len(offsets) - 1
    work = working_type(x.dtype)
    if tokens == tiles * longest:
        total = x.unflatten(1, (tiles, longest)).sum(2, dtype=work)
        return total.transpose(1, 2).contiguous()
    out = x.new_empty(batch, heads, tiles, dim, dtype=work)
    sizes = offsets.diff()
    for size in sizes.unique().tolist():
        which = (sizes == size).nonzero()[:, 0]
        rows = offsets[which][:, None] + torch.arange(size, device=x.device)
        part = x.index_select(1, rows.flatten()).unflatten(1, (-1, size))
        out[:, :, which] = part.sum(2, dtype=work).transpose(1, 2)
    return out
