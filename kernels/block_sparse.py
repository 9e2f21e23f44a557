"""Block-sparse attention with gradients, as one operation that torch.compile does not look into."""

from __future__ import annotations

from typing import Literal, overload

import torch
from torch import Tensor

from reelmill.errors import UsageError
from reelmill.kernels import cpu, native, reference
from reelmill.kernels.dispatch import sparse_backend
from reelmill.kernels.reference import Blocks, working_type
from reelmill.kernels.select import TileLists
from reelmill.kernels.tiles import TileLayout

_PLAIN = {"native": native, "cpu": cpu, "reference": reference}


@overload
def block_sparse_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    lists: TileLists,
    q_layout: TileLayout,
    kv_layout: TileLayout | None = None,
    *,
    scale: float | None = None,
    return_lse: Literal[False] = False,
    backend: str = "auto",
) -> Tensor: ...
@overload
def block_sparse_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    lists: TileLists,
    q_layout: TileLayout,
    kv_layout: TileLayout | None = None,
    *,
    scale: float | None = None,
    return_lse: Literal[True],
    backend: str = "auto",
) -> tuple[Tensor, Tensor]: ...
def block_sparse_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    lists: TileLists,
    q_layout: TileLayout,
    kv_layout: TileLayout | None = None,
    *,
    scale: float | None = None,
    return_lse: bool = False,
    backend: str = "auto",
) -> Tensor | tuple[Tensor, Tensor]:
    """Attention in which the queries of a tile see the keys of its listed tiles alone.

    q: [B, Lq, heads, head_dim]; k, v: [B, Lk, heads, head_dim], tokens in tile order; only the
    last axis must be contiguous, so slices of one packed tensor do. lists: a row per tile of
    `q_layout`, numbers of tiles of `kv_layout` (default: q_layout), each at most once in a row.
    scale: default 1 / sqrt(head_dim). Returns [B, Lq, heads, head_dim]; a tile with an empty list
    gives 0. With return_lse also log sum exp of the scores, [B, heads, Lq], fp32 (float64 for
    float64), which carries no gradient; +inf where the list is empty.
    backend: `auto`, `triton`, `native`, `cpu`, `flex` or `reference`. Forward and backward repeat
    to the bit (except `flex`). Raises UsageError for shapes that do not fit and for a backend that
    cannot run.
    """
    kv_layout = kv_layout or q_layout
    _check(q, k, v, lists, q_layout, kv_layout)
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    blocks = Blocks(
        lists.index,
        lists.count,
        q_layout.offsets,
        kv_layout.offsets,
        q_layout.max_tile,
        kv_layout.max_tile,
        scale,
    )
    name = sparse_backend(q.device, q.dtype, q.shape[-1], q.requires_grad, backend)
    if name == "flex":  # has a gradient of its own
        from reelmill.kernels import flex

        out, lse = flex.attend(q, k, v, blocks)
    else:
        out, lse = block_sparse(q, k, v, *blocks, name)
    return (out, lse) if return_lse else out


def _check(
    q: Tensor, k: Tensor, v: Tensor, lists: TileLists, rows: TileLayout, columns: TileLayout
) -> None:
    batch, tokens, heads, dim = q.shape
    if k.shape != v.shape or k.shape != (batch, columns.tokens, heads, dim):
        raise UsageError(
            f"Keys {tuple(k.shape)} and values {tuple(v.shape)} do not fit queries "
            f"{tuple(q.shape)} and a layout of {columns.tokens} key tokens."
        )
    if tokens != rows.tokens:
        raise UsageError(f"{tokens} queries do not fit a layout of {rows.tokens} tokens.")
    shape = (batch, heads, rows.tiles)
    if lists.count.shape != shape or lists.index.shape[:3] != shape:
        raise UsageError(
            f"Lists of shape {tuple(lists.index.shape)} with counts {tuple(lists.count.shape)} do "
            f"not fit {batch} x {heads} heads x {rows.tiles} query tiles."
        )
    if len({x.dtype for x in (q, k, v)}) > 1 or not q.is_floating_point():
        raise UsageError(
            f"q, k and v are of one floating type, not {q.dtype}, {k.dtype}, {v.dtype}."
        )


@torch.library.custom_op("reelmill::block_sparse", mutates_args=())
def block_sparse(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    index: Tensor,
    count: Tensor,
    q_offsets: Tensor,
    kv_offsets: Tensor,
    q_max: int,
    kv_max: int,
    scale: float,
    backend: str,
) -> tuple[Tensor, Tensor]:
    blocks = Blocks(index, count, q_offsets, kv_offsets, q_max, kv_max, scale)
    if backend == "triton":
        from reelmill.kernels.triton import fine

        return fine.forward(q, k, v, blocks)
    return _PLAIN[backend].forward(q, k, v, blocks)


@block_sparse.register_fake
def _(q, k, v, index, count, q_offsets, kv_offsets, q_max, kv_max, scale, backend):
    batch, tokens, heads, _ = q.shape
    lse = q.new_empty((batch, heads, tokens), dtype=working_type(q.dtype))
    return q.new_empty(q.shape), lse


@torch.library.custom_op("reelmill::block_sparse_backward", mutates_args=())
def block_sparse_backward(
    do: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    o: Tensor,
    lse: Tensor,
    index: Tensor,
    count: Tensor,
    q_offsets: Tensor,
    kv_offsets: Tensor,
    q_max: int,
    kv_max: int,
    scale: float,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor]:
    blocks = Blocks(index, count, q_offsets, kv_offsets, q_max, kv_max, scale)
    if backend == "triton":
        from reelmill.kernels.triton import fine

        return fine.backward(do, q, k, v, o, lse, blocks)
    return _PLAIN[backend].backward(do, q, k, v, o, lse, blocks)


@block_sparse_backward.register_fake
def _(do, q, k, v, o, lse, index, count, q_offsets, kv_offsets, q_max, kv_max, scale, backend):
    return q.new_empty(q.shape), k.new_empty(k.shape), v.new_empty(v.shape)


def _setup(ctx, inputs, output) -> None:
    *tensors, ctx.q_max, ctx.kv_max, ctx.scale, ctx.backend = inputs
    ctx.save_for_backward(*tensors, *output)
    ctx.mark_non_differentiable(output[1])


def _backward(ctx, do: Tensor, _: Tensor | None):
    q, k, v, index, count, q_offsets, kv_offsets, o, lse = ctx.saved_tensors
    lists = (index, count, q_offsets, kv_offsets, ctx.q_max, ctx.kv_max, ctx.scale, ctx.backend)
    grads = block_sparse_backward(do, q, k, v, o, lse, *lists)
    return (*grads, *(None,) * len(lists))


block_sparse.register_autograd(_backward, setup_context=_setup)
