"""Video Sparse Attention inside a tower: tokens in tile order from entry to head (section 4.5)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from reelmill.kernels.tiles import TileLayout, tile_layout
from reelmill.kernels.vsa import video_sparse_attention
from reelmill.model.modality import Modality

Shares = Sequence[float | None]  # of key tiles left out, for each layer; None: dense


class Sparse(NamedTuple):
    """How the tokens of [text; references; video] lie, and how sparse each layer is.

    layouts: one for the batch, or one for each sample where prompts differ in length.
    """

    layouts: tuple[TileLayout, ...]
    shares: tuple[float, ...]

    def attend(self, q: Tensor, k: Tensor, v: Tensor, gate: Tensor | None, layer: int) -> Tensor:
        """[B, L, heads, head_dim], as q; text first. Text that is padding gets zeros."""
        share = self.shares[layer]
        if len(self.layouts) == 1:
            return video_sparse_attention(q, k, v, gate, self.layouts[0], sparsity=share)
        words = q.shape[1] - min(layout.tokens - layout.prefix[0] for layout in self.layouts)
        samples = []
        for i, layout in enumerate(self.layouts):
            n = layout.prefix[0]
            parts = [
                None if x is None else torch.cat((x[i : i + 1, :n], x[i : i + 1, words:]), 1)
                for x in (q, k, v, gate)
            ]
            assert parts[0] is not None
            assert parts[1] is not None
            assert parts[2] is not None
            out = video_sparse_attention(
                parts[0], parts[1], parts[2], parts[3], layout, sparsity=share
            )
            empty = out.new_zeros(1, words - n, *out.shape[2:])
            samples.append(torch.cat((out[:, :n], empty, out[:, n:]), 1))
        return torch.cat(samples)


@dataclass(frozen=True)
class Tiling:
    """The order of a video's tokens behind its references. layout: without text."""

    layout: TileLayout

    @classmethod
    def of(cls, m: Modality) -> Tiling:
        """Raises ValueError for tokens that are no grid (keyframes among them) or padded."""
        if m.grid is None or m.pad is not None:
            raise ValueError("sparse attention takes whole grids, without keyframes or padding")
        before = m.x.shape[1] - m.grid[0] * m.grid[1] * m.grid[2]
        return cls(tile_layout(m.grid, prefix=(before,), device=m.x.device))

    def tiles(self, m: Modality) -> Modality:
        order = self.layout.perm

        def turn(x: Tensor) -> Tensor:
            return x if x.shape[1] == 1 else x.index_select(1, order)

        kind = None if m.kind is None else turn(m.kind)
        return replace(m, x=turn(m.x), pos=turn(m.pos), t=turn(m.t), kind=kind)

    def raster(self, x: Tensor) -> Tensor:
        """[B, L, C] of the video's tokens, as they came."""
        return self.layout.to_raster(x)

    def sparse(self, words: int, pad: Tensor | None, shares: Shares) -> Sparse:
        """words: tokens of text in front. pad: bool [B, words], at the end of each prompt."""
        lengths = [words] if pad is None else (~pad).sum(1).tolist()
        if pad is not None and bool((pad[:, :-1] & ~pad[:, 1:]).any()):
            raise ValueError("sparse attention takes prompts that are padded at their end")
        grid, refs = self.layout.grid, self.layout.prefix[0]
        layouts = [tile_layout(grid, prefix=(n, refs), device=self.layout.device) for n in lengths]
        alike = len(set(lengths)) == 1 and lengths[0] == words
        return Sparse(
            tuple(layouts[:1] if alike else layouts), tuple(share or 0.0 for share in shares)
        )
