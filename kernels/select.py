"""Which tiles of keys each tile of queries attends to.

Selection is never differentiated. Scores are fp32 whatever the model computes in: in bf16 a quarter
of a row's scores are equal and early tiles win. Ties go to the lower tile, so that a selection is a
function of its scores alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

import torch
from torch import Tensor

from reelmill.errors import UsageError
from reelmill.kernels.tiles import TileLayout

MAX_SCORES = 1 << 25
"""Scores held at once; more are made in parts. 128 MB in fp32."""


@dataclass(frozen=True, eq=False)
class TileLists:
    """For each query tile, the key tiles that it reads.

    index: int32 [B, heads, query tiles, width], ascending; what lies beyond the count is ignored.
    count: int32 [B, heads, query tiles].
    """

    index: Tensor
    count: Tensor


def tiles_kept(sparsity: float, tiles: int) -> int:
    """How many of `tiles` a sparsity in [0, 1) leaves: ceil((1 - s) tiles), at least 1."""
    if not 0 <= sparsity < 1:
        raise UsageError(f"Sparsity is the share left out, 0 <= s < 1, not {sparsity}.")
    return min(max(ceil(round((1 - sparsity) * tiles, 6)), 1), tiles)


def competing(layout: TileLayout, always: Sequence[int] | None = None) -> tuple[int, int]:
    """(tiles always selected, tiles that compete) with segments `always`; None is all segments."""
    numbers = range(len(layout.prefix)) if always is None else sorted(set(always))
    fixed = sum(len(layout.segment(number)) for number in numbers)
    return fixed, layout.tiles - fixed


def select_tiles(
    pooled_q: Tensor,
    pooled_k: Tensor,
    layout: TileLayout,
    *,
    topk: int | None = None,
    sparsity: float | None = None,
    always: Sequence[int] | None = None,
    select: str = "torch",
) -> TileLists:
    """The `topk` best key tiles per query tile, by the product of their means.

    pooled_q: [B, heads, query tiles, head_dim]; pooled_k: [B, heads, layout.tiles, head_dim], both
    from `pool_tiles`. layout: of the keys. topk: of the tiles that compete, clamped to how many
    there are; or sparsity, the share of them left out. always: prefix segments whose tiles every
    query reads beside its topk; None is all of them, the others compete with the video's tiles.
    select: `torch`, or `triton` on a GPU: the same choice in one pass. Raises UsageError.
    """
    fixed, free = competing(layout, always)
    if (topk is None) == (sparsity is None):
        raise UsageError("Selection takes either topk or sparsity.")
    if topk is None:
        assert sparsity is not None
        topk = tiles_kept(sparsity, free)
    if topk < 1:
        raise UsageError(f"topk is 1 or more tiles, not {topk}.")
    if pooled_k.shape[2] != layout.tiles:
        raise UsageError(
            f"There are {pooled_k.shape[2]} pooled keys for a layout of {layout.tiles} tiles."
        )
    width = fixed + min(topk, free)
    forced = torch.zeros(layout.tiles, dtype=torch.bool, device=pooled_k.device)
    for number in range(len(layout.prefix)) if always is None else always:
        tiles = layout.segment(number)
        forced[tiles.start : tiles.stop] = True
    with torch.no_grad():
        index = _best(pooled_q.float(), pooled_k.float(), forced, width, select)
    count = torch.full(index.shape[:3], width, dtype=torch.int32, device=index.device)
    return TileLists(index, count)


def _best(q: Tensor, k: Tensor, forced: Tensor, width: int, select: str) -> Tensor:
    batch, heads, rows, _ = q.shape
    q, k = q.flatten(0, 1), k.flatten(0, 1)
    step = max(MAX_SCORES // (rows * k.shape[1]), 1)
    parts = []
    for start in range(0, batch * heads, step):
        scores = q[start : start + step] @ k[start : start + step].mT
        scores.masked_fill_(forced, torch.inf)
        if select == "triton":
            from reelmill.kernels.triton.coarse import largest

            parts.append(largest(scores, width))
        else:
            parts.append(largest_torch(scores, width))
    return torch.cat(parts).view(batch, heads, rows, width)


def largest_torch(scores: Tensor, count: int) -> Tensor:
    """Positions of the `count` largest of each row, ascending; of equals the first. NaN is least.

    scores: float32 [..., n]. Returns int32 [..., count].
    """
    scores = scores.nan_to_num(-torch.inf, torch.inf, -torch.inf) + 0.0  # -0 becomes 0
    bits = scores.view(torch.int32).long()
    ordered = torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits)
    n = scores.shape[-1]
    key = (ordered << 32) | torch.arange(n - 1, -1, -1, device=scores.device)
    best = key.topk(count, sorted=False).indices
    return best.sort().values.int()
