"""Video Sparse Attention (arXiv 2505.13389): a coarse pass over tiles chooses for a fine one.

Coarse: queries, keys and values are averaged per tile; attention among the means is cheap, and its
scores choose the best key tiles of each query tile. Fine: every token attends to all tokens of the
chosen tiles. Output: fine + gate * coarse, the gate being a learned projection that starts at 0.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from reelmill.errors import UsageError
from reelmill.kernels.block_sparse import block_sparse_attention
from reelmill.kernels.coarse import gated_sum, pool_tiles
from reelmill.kernels.dispatch import attention, sparse_backend
from reelmill.kernels.select import competing, select_tiles, tiles_kept
from reelmill.kernels.tiles import TileLayout


def video_sparse_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    gate: Tensor | None,
    layout: TileLayout,
    *,
    topk: int | None = None,
    sparsity: float | None = None,
    always: Sequence[int] | None = None,
    q_group: int = 1,
    scale: float | None = None,
    backend: str = "auto",
) -> Tensor:
    """Sparse attention of a video with what precedes it; returns [B, L, heads, head_dim].

    q, k, v: [B, L, heads, head_dim], after RoPE and norms, tokens in tile order: the layout's
    prefix (text, references, audio), then the video's tiles. gate: like q, or None for the fine
    half alone. A prefix token attends to everything and has no coarse half: its gate is not read.
    topk: key tiles of each query tile; or sparsity, the share left out. Prefix segments in `always`
    (None: all) are read beside them, the others compete. q_group=2 lets two neighbouring tiles
    share one list: less traffic, coarser choice. If nothing is left out the fine half is dense
    attention. All of q, k, v and gate get gradients; the choice itself is not differentiated.
    Raises UsageError for what does not fit.
    """
    if (topk is None) == (sparsity is None):
        raise UsageError("Video sparse attention takes either topk or sparsity.")
    if q_group not in (1, 2):
        raise UsageError(f"q_group is 1 or 2 tiles, not {q_group}.")
    if q.shape[1] != layout.tokens:
        raise UsageError(f"{q.shape[1]} tokens do not fit a layout of {layout.tokens}.")
    if gate is not None and gate.shape != q.shape:
        raise UsageError(f"A gate of shape {tuple(gate.shape)} does not fit {tuple(q.shape)}.")
    _, free = competing(layout, always)
    if topk is None:
        assert sparsity is not None
        topk = tiles_kept(sparsity, free)
    head, video = layout.prefix_tokens, layout.video
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    rows = q[:, head:]
    pooled_q = pool_tiles(rows, video) if gate is not None or topk < free else None
    pooled_k = pool_tiles(k, layout) if pooled_q is not None else None
    if topk >= free:
        out = attention(q, k, v, scale=scale)
        first, fine = out[:, :head], out[:, head:]
    else:
        assert pooled_q is not None
        assert pooled_k is not None
        first = attention(q[:, :head], k, v, scale=scale) if head else q[:, :0]
        groups = video if q_group == 1 else video.pairs
        choosing = pooled_q if q_group == 1 else pool_tiles(rows.detach(), groups)
        name = sparse_backend(q.device, q.dtype, q.shape[-1], q.requires_grad, backend)
        lists = select_tiles(
            choosing.detach(),
            pooled_k.detach(),
            layout,
            topk=topk,
            always=always,
            select="triton" if name == "triton" else "torch",
        )
        fine = block_sparse_attention(
            rows, k, v, lists, groups, layout, scale=scale, backend=backend
        )
    if gate is not None:
        assert pooled_q is not None
        assert pooled_k is not None
        coarse = F.scaled_dot_product_attention(
            pooled_q, pooled_k, pool_tiles(v, layout), scale=scale
        )
        fine = gated_sum(fine, gate[:, head:], coarse, video)
    return torch.cat([first, fine], 1) if head else fine
