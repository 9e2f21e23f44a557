"""Block-sparse attention by torch's FlexAttention, for GPUs that our kernels were not tuned for.

Tiles are padded to equal sides of 64 or 128 on the way in, and the pads are masked.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import AuxRequest, BlockMask, flex_attention

from reelmill.kernels.reference import Blocks, working_type


def attend(q: Tensor, k: Tensor, v: Tensor, blocks: Blocks) -> tuple[Tensor, Tensor]:
    """As `reference.forward`, and differentiable; not on the CPU: torch has no backward there."""
    side_q, side_kv = _side(blocks.q_max), _side(blocks.kv_max)
    slots_q, slots_kv = _slots(blocks.q_offsets, side_q), _slots(blocks.kv_offsets, side_kv)
    sizes = blocks.kv_offsets.diff()
    mask = _mask(blocks, sizes, side_q, side_kv)
    padded = [
        _pad(x, slots, side * (len(offsets) - 1))
        for x, slots, side, offsets in (
            (q, slots_q, side_q, blocks.q_offsets),
            (k, slots_kv, side_kv, blocks.kv_offsets),
            (v, slots_kv, side_kv, blocks.kv_offsets),
        )
    ]
    options: dict[str, Any] = {}
    if q.is_cuda:
        options = {f"fwd_{axis}": 64 for axis in ("BLOCK_M", "BLOCK_N")}
        options |= {f"bwd_{axis}": 64 for axis in ("BLOCK_M1", "BLOCK_N1", "BLOCK_M2", "BLOCK_N2")}
    o, aux = _flex(q.is_cuda)(
        *padded,
        block_mask=mask,
        scale=blocks.scale,
        return_aux=AuxRequest(lse=True),
        kernel_options=options or None,
    )
    used = (blocks.counts > 0).repeat_interleave(blocks.q_offsets.diff(), dim=2)
    o = o.index_select(2, slots_q).masked_fill(~used[..., None], 0)
    assert aux.lse is not None
    lse = aux.lse.index_select(2, slots_q).masked_fill(~used, torch.inf)
    return o.transpose(1, 2), lse.to(working_type(q.dtype))


@cache
def _flex(compiled: bool):
    """On the CPU as plain torch operations, which need no compiler."""
    return torch.compile(flex_attention, dynamic=False) if compiled else flex_attention


def _side(longest: int) -> int:
    return 64 if longest <= 64 else 128


def _slots(offsets: Tensor, side: int) -> Tensor:
    """Padded position of each token."""
    tiles = torch.arange(len(offsets) - 1, device=offsets.device)
    shift = tiles * side - offsets[:-1]
    sizes = offsets.diff().long()
    tokens = torch.arange(int(offsets[-1]), device=offsets.device)
    return tokens + shift.repeat_interleave(sizes)


def _pad(x: Tensor, slots: Tensor, length: int) -> Tensor:
    """[B, L, heads, D] as [B, heads, length, D], zeros between."""
    batch, _, heads, dim = x.shape
    room = x.new_zeros(batch, length, heads, dim)
    return room.index_copy(1, slots, x).transpose(1, 2)


def _mask(blocks: Blocks, sizes: Tensor, side_q: int, side_kv: int) -> BlockMask:
    batch, heads, tiles, width = blocks.chosen.shape
    kv_tiles = len(sizes)
    used = torch.arange(width, device=sizes.device) < blocks.counts[..., None]
    chosen = torch.zeros(batch, heads, tiles, kv_tiles + 1, dtype=torch.bool, device=sizes.device)
    chosen.scatter_(3, blocks.chosen.where(used, kv_tiles).long(), True)
    chosen = chosen[..., :kv_tiles]

    def seen(b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
        tile = j // side_kv
        return chosen[b, h, i // side_q, tile] & (j % side_kv < sizes[tile])

    # Tiles without pads need no mask inside the kernel.
    full = chosen & (sizes == side_kv)
    part = chosen & (sizes < side_kv)
    return BlockMask.from_kv_blocks(
        *_lists(part), *_lists(full), BLOCK_SIZE=(side_q, side_kv), mask_mod=seen
    )


def _lists(chosen: Tensor) -> tuple[Tensor, Tensor]:
    order = chosen.int().argsort(dim=-1, descending=True, stable=True)
    return chosen.sum(-1, dtype=torch.int32), order.int()
