"""Attention over whole sequences: the one place that chooses how it is computed."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """softmax(q k^T / sqrt(head_dim)) v.

    q: [B, Lq, heads, head_dim]; k, v: [B, Lk, heads, head_dim]. mask: as `key_mask` gives it; None
    is the fast way. Returns [B, Lq, heads * head_dim].
    """
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    if mask is not None and mask.is_floating_point():
        mask = mask.to(q.dtype)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2)


def key_mask(*pads: tuple[Tensor | None, int, int]) -> Tensor | None:
    """Which keys may be seen, for keys in several parts, each (pad or None, batch, length).

    Returns bool [B, 1, 1, sum of lengths], True is seen, or None when no part has padding.
    """
    if all(pad is None for pad, _, _ in pads):
        return None
    device = next(pad.device for pad, _, _ in pads if pad is not None)
    seen = [
        ~pad if pad is not None else torch.ones(batch, length, dtype=torch.bool, device=device)
        for pad, batch, length in pads
    ]
    return torch.cat(seen, 1)[:, None, None, :]
