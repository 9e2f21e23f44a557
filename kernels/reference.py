"""Block-sparse attention in plain torch, one query tile at a time: what the others must equal.

Any floating type, float64 included; half types are computed in float32. Slow, and meant to be.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise, product
from typing import NamedTuple

import torch
from torch import Tensor


class Blocks(NamedTuple):
    """Which query tile reads which key tiles, and where the tiles lie.

    chosen: int32 [B, heads, query tiles, width] and counts: int32 [B, heads, query tiles] are index
    and count of `TileLists`. q_offsets, kv_offsets: int32 [tiles + 1], first token of each tile.
    q_max, kv_max: tokens of the largest tile. scale: of the scores.
    """

    chosen: Tensor
    counts: Tensor
    q_offsets: Tensor
    kv_offsets: Tensor
    q_max: int
    kv_max: int
    scale: float


def working_type(dtype: torch.dtype) -> torch.dtype:
    """What sums of this type are kept in: itself, or float32 for half types."""
    return dtype if dtype in (torch.float32, torch.float64) else torch.float32


def forward(q: Tensor, k: Tensor, v: Tensor, blocks: Blocks) -> tuple[Tensor, Tensor]:
    """Output [B, Lq, heads, head_dim] and the log of the sum of exponentials, [B, heads, Lq].

    q: [B, Lq, heads, head_dim]; k, v: [B, Lk, heads, head_dim], tokens in tile order. A query tile
    with an empty list gives 0 and +inf.
    """
    work = working_type(q.dtype)
    o, lse = _attend(q.to(work), k.to(work), v.to(work), blocks)
    return o.to(q.dtype), lse


def backward(
    do: Tensor, q: Tensor, k: Tensor, v: Tensor, o: Tensor, lse: Tensor, blocks: Blocks
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of q, k and v. o and lse are what `forward` gave; here they are made once more."""
    work = working_type(q.dtype)
    do, q, k, v = (x.to(work) for x in (do, q, k, v))
    dq, dk, dv = (torch.zeros_like(x, memory_format=torch.contiguous_format) for x in (q, k, v))
    for b, h in product(range(q.shape[0]), range(q.shape[2])):
        for rows, keys in _lists(blocks, b, h):
            queries, grad = q[b, rows, h], do[b, rows, h]
            near, values = k[b, keys, h], v[b, keys, h]
            p = ((queries @ near.T) * blocks.scale).softmax(-1)
            dp = grad @ values.T
            ds = p * (dp - (p * dp).sum(-1, keepdim=True)) * blocks.scale
            dq[b, rows, h] = ds @ near
            dk[b, keys, h] += ds.T @ queries
            dv[b, keys, h] += p.T @ grad
    return dq.to(o.dtype), dk.to(o.dtype), dv.to(o.dtype)


def _attend(q: Tensor, k: Tensor, v: Tensor, blocks: Blocks) -> tuple[Tensor, Tensor]:
    batch, tokens, heads, _ = q.shape
    o = torch.empty_like(q, memory_format=torch.contiguous_format)
    lse = q.new_empty(batch, heads, tokens)
    for b, h in product(range(batch), range(heads)):
        for rows, keys in _lists(blocks, b, h):
            scores = (q[b, rows, h] @ k[b, keys, h].T) * blocks.scale
            empty = not len(keys)
            o[b, rows, h] = 0 if empty else scores.softmax(-1) @ v[b, keys, h]
            lse[b, h, rows] = torch.inf if empty else scores.logsumexp(-1)
    return o, lse


def _lists(blocks: Blocks, b: int, h: int) -> Iterator[tuple[slice, Tensor]]:
    """Rows of each query tile, with the positions of the keys that it reads."""
    starts = blocks.kv_offsets.tolist()
    for tile, (first, end) in enumerate(pairwise(blocks.q_offsets.tolist())):
        chosen = blocks.chosen[b, h, tile, : int(blocks.counts[b, h, tile])].tolist()
        keys = [torch.arange(starts[t], starts[t + 1]) for t in chosen]
        yield slice(first, end), torch.cat(keys or [torch.arange(0)]).to(blocks.chosen.device)
