"""Block-sparse attention in plain torch, one query tile at a time: what the others must equal.

Any floating type, float64 included; half types are computed in float32. Slow, and meant to be.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor


class Blocks(NamedTuple):
    """Which query tile reads which key tiles, and where the tiles lie.

    index: int32 [B, heads, query tiles, width] and count: int32 [B, heads, query tiles] as in
    `TileLists`. q_offsets, kv_offsets: int32 [tiles + 1], first token of each tile. q_max, kv_max:
    tokens of the largest tile. scale: of the scores.
    """

    index: Tensor
    count: Tensor
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
    o, lse = _attend(*(x.to(working_type(x.dtype)) for x in (q, k, v)), blocks)
    return o.to(q.dtype), lse


def backward(
    do: Tensor, q: Tensor, k: Tensor, v: Tensor, o: Tensor, lse: Tensor, blocks: Blocks
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of q, k and v, by autograd through `forward` once more."""
    with torch.enable_grad():
        inputs = [x.detach().to(working_type(x.dtype)).requires_grad_() for x in (q, k, v)]
        out, _ = _attend(*inputs, blocks)
        grads = torch.autograd.grad(out, inputs, do.to(out.dtype), materialize_grads=True)
    dq, dk, dv = (grad.to(x.dtype) for grad, x in zip(grads, (q, k, v), strict=True))
    return dq, dk, dv


def _attend(q: Tensor, k: Tensor, v: Tensor, blocks: Blocks) -> tuple[Tensor, Tensor]:
    batch, _, heads, _ = q.shape
    outs, sums = [], []
    for b in range(batch):
        for h in range(heads):
            parts = [
                _row(q[b, rows, h], k[b, :, h], v[b, :, h], keys, blocks.scale)
                for rows, keys in _lists(blocks, b, h)
            ]
            outs.append(torch.cat([o for o, _ in parts]))
            sums.append(torch.cat([lse for _, lse in parts]))
    o = torch.stack(outs).unflatten(0, (batch, heads)).transpose(1, 2)
    return o.contiguous(), torch.stack(sums).unflatten(0, (batch, heads))


def _lists(blocks: Blocks, b: int, h: int) -> Iterator[tuple[slice, Tensor]]:
    """Rows of each query tile, with the positions of the keys that it reads."""
    starts = blocks.kv_offsets.tolist()
    for tile, (first, end) in enumerate(pairwise(blocks.q_offsets.tolist())):
        chosen = blocks.index[b, h, tile, : int(blocks.count[b, h, tile])].tolist()
        keys = [torch.arange(starts[t], starts[t + 1]) for t in chosen]
        yield slice(first, end), torch.cat(keys or [torch.arange(0)]).to(blocks.index.device)


def _row(q: Tensor, k: Tensor, v: Tensor, keys: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    if not len(keys):
        return torch.zeros_like(q), q.new_full((len(q),), torch.inf)
    scores = (q @ k[keys].T) * scale
    return scores.softmax(-1) @ v[keys], scores.logsumexp(-1)
