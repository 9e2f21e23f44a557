"""Block-sparse attention on the CPU: selected key tiles are gathered, then attended to densely.

Costs one copy of the selected keys and values beside the dense work on them. Forward is torch's own
flash attention, backward five batched products. Buffers are reused and sized for the L2 cache; a
long list goes through in parts. Half types are computed in float32, float64 in itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from reelmill.kernels.reference import Blocks, working_type

_flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
SPAN = 32
"""Key tiles gathered at once for one query tile; 2048 keys of 64 floats are 512 kB."""
CACHE = 1 << 19
"""Bytes of gathered keys and values that one step may take, when several query tiles fit: a quarter
of an L2 cache of 2 MB, which other processes use too."""


def forward(q: Tensor, k: Tensor, v: Tensor, blocks: Blocks) -> tuple[Tensor, Tensor]:
    """As `reference.forward`."""
    batch, tokens, heads, dim = q.shape
    work = working_type(q.dtype)
    o = q.new_empty(batch, tokens, heads, dim)
    lse = q.new_empty(batch, heads, tokens, dtype=work)
    plan = _Plan.of(blocks, dim, work)
    room = _Buffers(plan, dim, work)
    queries, out, total = plan.q.room(dim, work), plan.q.room(dim, work), plan.q.room(1, work)
    pairs = plan.kv.room(2 * dim, work)  # each token's key, then its value: one copy gathers both
    for b in range(batch):
        for h in range(heads):
            plan.q.fill(queries, q[b, :, h]).mul_(blocks.scale)
            plan.kv.fill(pairs[..., :dim], k[b, :, h])
            plan.kv.fill(pairs[..., dim:], v[b, :, h])
            lists = blocks.chosen[b, h], blocks.counts[b, h]
            _head(queries, pairs, *lists, plan, room, out, total)
            o[b, :, h] = plan.q.tokens(out)
            lse[b, h] = plan.q.tokens(total)[:, 0]
    return o, lse


def backward(
    do: Tensor, q: Tensor, k: Tensor, v: Tensor, o: Tensor, lse: Tensor, blocks: Blocks
) -> tuple[Tensor, Tensor, Tensor]:
    """As `reference.backward`. The order of every sum is fixed, so it repeats to the bit."""
    batch, _, heads, dim = q.shape
    work = working_type(q.dtype)
    dq, dk, dv = (torch.empty_like(x, memory_format=torch.contiguous_format) for x in (q, k, v))
    plan = _Plan.of(blocks, dim, work)
    room = _Buffers(plan, dim, work)
    queries, grad, gq = (plan.q.room(dim, work) for _ in range(3))
    keys, values, gk, gv = (plan.kv.room(dim, work) for _ in range(4))
    total, delta = plan.q.room(1, work), plan.q.room(1, work)
    for b in range(batch):
        for h in range(heads):
            plan.q.fill(queries, q[b, :, h]).mul_(blocks.scale)
            plan.kv.fill(keys, k[b, :, h])
            plan.kv.fill(values, v[b, :, h])
            plan.q.fill(grad, do[b, :, h])
            plan.q.fill(total, lse[b, h, :, None])
            rowsum = (do[b, :, h].to(work) * o[b, :, h]).sum(-1, keepdim=True)
            plan.q.fill(delta, rowsum)
            lists = blocks.chosen[b, h], blocks.counts[b, h]
            _head_grad(grad, queries, keys, values, delta, total, *lists, plan, room, (gq, gk, gv))
            dq[b, :, h] = plan.q.tokens(gq.mul_(blocks.scale))
            dk[b, :, h], dv[b, :, h] = plan.kv.tokens(gk), plan.kv.tokens(gv)
    return dq, dk, dv


@dataclass(frozen=True)
class _Pad:
    """Tiles of one sequence, each brought to the size of the largest, and an empty one after."""

    sizes: Tensor
    side: int
    slot: Tensor | None
    """Padded position of each token; None if all tiles are equal and none is needed."""

    @classmethod
    def of(cls, offsets: Tensor, side: int, spare: bool) -> _Pad:
        sizes = offsets.diff().long()
        if bool((sizes == side).all()) and not spare:
            return cls(sizes, side, None)
        shift = torch.arange(len(sizes)) * side - offsets[:-1]
        tokens = int(offsets[-1])
        return cls(sizes, side, torch.arange(tokens) + shift.repeat_interleave(sizes))

    def room(self, dim: int, dtype: torch.dtype) -> Tensor:
        """[tiles, side, dim] for `fill`; with a last tile of zeros if some tiles are short."""
        shape = (len(self.sizes), self.side, dim)
        if self.slot is None:
            return torch.empty(shape, dtype=dtype)
        return torch.zeros((shape[0] + 1, *shape[1:]), dtype=dtype)

    def fill(self, room: Tensor, x: Tensor) -> Tensor:
        """Puts x [tokens, dim] into its slots."""
        flat = room.flatten(0, 1)
        if self.slot is None:
            flat.copy_(x)
        else:
            flat[self.slot] = x.to(room.dtype)
        return room

    def tokens(self, room: Tensor) -> Tensor:
        flat = room.view(-1, room.shape[-1])
        return flat if self.slot is None else flat[self.slot]


@dataclass(frozen=True)
class _Plan:
    q: _Pad
    kv: _Pad
    even: bool
    """Every list fills the whole width."""
    chunk: int
    span: int
    bias: Tensor | None
    """[key tiles + 1, side]: 0 for a token, -inf for a pad; None if there are no pads."""

    @classmethod
    def of(cls, blocks: Blocks, dim: int, work: torch.dtype) -> _Plan:
        width = blocks.chosen.shape[-1]
        even = bool((blocks.counts == width).all())
        q = _Pad.of(blocks.q_offsets, blocks.q_max, False)
        kv = _Pad.of(blocks.kv_offsets, blocks.kv_max, not even)
        bias = None
        if kv.slot is not None:
            bias = torch.full((len(kv.sizes) + 1, kv.side), -torch.inf, dtype=work)
            bias.view(-1)[kv.slot] = 0
        span = max(min(SPAN, width), 1)
        each = 2 * span * kv.side * dim * work.itemsize
        return cls(q, kv, even, max(CACHE // each, torch.get_num_threads()), span, bias)

    def steps(self, index: Tensor, count: Tensor):
        """Chunks of query tiles of like length, each with its lists in parts of at most `span`.

        Yields (query tiles, [(flat key tiles, bias or None), ...]).
        """
        tiles, width = index.shape
        index = index.long()
        order = None
        if not self.even:
            index = index.where(torch.arange(width) < count[:, None], len(self.kv.sizes))
            order = count.argsort(stable=True)
        for first in range(0, tiles, self.chunk):
            end = min(first + self.chunk, tiles)
            rows: Tensor | slice = slice(first, end) if order is None else order[first:end]
            longest = width if order is None else int(count[rows].max())
            lists = index[rows, :longest]
            yield rows, [self._part(part) for part in lists.split(self.span, 1)] if longest else []

    def _part(self, lists: Tensor) -> tuple[Tensor, Tensor | None]:
        flat = lists.reshape(-1)
        if self.bias is None:
            return flat, None
        bias = self.bias[flat].view(len(lists), 1, -1)
        return flat, bias if bool(bias.isinf().any()) else None


class _Buffers:
    """Room for one step, made once: memory that is mapped anew each time costs more than its use.

    A smaller step takes the front of it.
    """

    def __init__(self, plan: _Plan, dim: int, dtype: torch.dtype) -> None:
        keys = plan.chunk * plan.span * plan.kv.side
        self._gathered = torch.empty(2 * keys * dim, dtype=dtype)
        self._scores = torch.empty(2 * keys * plan.q.side, dtype=dtype)

    def gather(self, source: Tensor, tiles: Tensor, rows: int, second: bool = False) -> Tensor:
        """The listed tiles of source [tiles, side, D] as [rows, n, D]; room for two of a size."""
        shape = (len(tiles), *source.shape[1:])
        start = prod(shape) if second else 0
        out = self._gathered[start : start + prod(shape)].view(shape)
        torch.index_select(source, 0, tiles, out=out)
        return out.view(rows, -1, shape[-1])

    def product(self, a: Tensor, b: Tensor, second: bool = False) -> Tensor:
        """a b^T for a [rows, side, D] and b [rows, n, D]; room for two of one size."""
        shape = (*a.shape[:2], b.shape[1])
        start = prod(shape) if second else 0
        return torch.bmm(a, b.mT, out=self._scores[start : start + prod(shape)].view(shape))


def _head(
    q: Tensor,
    pairs: Tensor,
    index: Tensor,
    count: Tensor,
    plan: _Plan,
    room: _Buffers,
    out: Tensor,
    total: Tensor,
) -> None:
    """Attention of one head, into out [tiles, side, D] and total (log sum exp) [tiles, side, 1]."""
    dim = q.shape[-1]
    for rows, parts in plan.steps(index, count):
        queries, o, lse = q[rows].unsqueeze(1), None, None
        for tiles, bias in parts:
            near = room.gather(pairs, tiles, len(queries)).unsqueeze(1)
            mask = None if bias is None else bias.unsqueeze(1)
            step, weight = _flash(
                queries, near[..., :dim], near[..., dim:], attn_mask=mask, scale=1.0
            )
            if bias is not None:  # a part of pads alone weighs nothing
                weight = weight.masked_fill(bias.isinf().all(-1, keepdim=True), -torch.inf)
            if o is None or lse is None:
                o, lse = step, weight
                continue
            both = torch.logaddexp(lse, weight)
            share = torch.where(both == -torch.inf, 0.0, (weight - both).exp())
            o, lse = torch.lerp(o, step, share[..., None]), both
        if o is None or lse is None:
            out[rows], total[rows] = 0, torch.inf
            continue
        out[rows] = o[:, 0]
        total[rows] = lse.masked_fill(lse == -torch.inf, torch.inf)[:, 0, :, None]


def _head_grad(
    grad: Tensor,
    q: Tensor,
    keys: Tensor,
    values: Tensor,
    delta: Tensor,
    total: Tensor,
    index: Tensor,
    count: Tensor,
    plan: _Plan,
    room: _Buffers,
    grads: tuple[Tensor, Tensor, Tensor],
) -> None:
    """Gradients of one head's scaled queries, keys and values, into `grads`."""
    dq, dk, dv = (x.zero_() for x in grads)
    for rows, parts in plan.steps(index, count):
        queries, g, shift, lse = q[rows], grad[rows], delta[rows], total[rows]
        for number, (tiles, bias) in enumerate(parts):
            k = room.gather(keys, tiles, len(queries))
            v = room.gather(values, tiles, len(queries), second=True)
            p = room.product(queries, k)
            if bias is not None:
                p.add_(bias)
            p.sub_(lse).exp_()
            ds = room.product(g, v, second=True).sub_(shift).mul_(p)
            step = torch.bmm(ds, k)
            dq[rows] = step if number == 0 else dq[rows] + step
            # Keys and values have been read; their room takes the gradients.
            torch.bmm(p.mT, g, out=v)
            dv.index_add_(0, tiles, v.view(len(tiles), *values.shape[1:]))
            torch.bmm(ds.mT, queries, out=k)
            dk.index_add_(0, tiles, k.view(len(tiles), *keys.shape[1:]))
