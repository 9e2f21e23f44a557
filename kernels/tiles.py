"""Tiles: small boxes of the latent grid whose tokens lie next to each other.

Video Sparse Attention (arXiv 2505.13389; SkyReels-V4, section 4.5) chooses keys by tile. Here
tiles are packed: a tile at the edge of the grid just has fewer tokens, and nothing is padded. A
model that keeps its tokens in tile order from patch to head reorders them once in and once out; all
else that it does is per token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import product
from math import ceil, prod
from typing import Literal

import torch
from torch import Tensor

from reelmill.errors import UsageError

MAX_TILE = 64
"""Tokens in a tile at most: one side of the tensor-core block (FastVideo's 4 x 4 x 4)."""
MAX_ASPECT = 1.67
"""Of an `auto` tile: longest over shortest side; 5/3 lets 3 x 5 x 4 through."""

Grid = tuple[int, int, int]


@dataclass(frozen=True, eq=False)
class TileLayout:
    """Where the tokens of one sequence lie: prefix segments first, then the video's tiles.

    grid: latent frames, rows, columns. tile: the sides of a tile. prefix: tokens of each segment
    before the video (text, references, audio), each cut into tiles of its own.
    perm: int64 [L]; `x[perm]` is x in tile order. inv: int64 [L], its inverse.
    offsets: int32 [tiles + 1], the first token of each tile, in tile order.
    token_tile: int64 [L], the tile of each token, in tile order.
    """

    grid: Grid
    tile: Grid
    prefix: tuple[int, ...]
    segment_tiles: tuple[int, ...]
    sizes: tuple[int, ...] = field(repr=False)
    perm: Tensor = field(repr=False)
    inv: Tensor = field(repr=False)
    offsets: Tensor = field(repr=False)
    token_tile: Tensor = field(repr=False)
    _video: TileLayout | None = field(default=None, repr=False)
    _pairs: TileLayout | None = field(default=None, repr=False)

    @property
    def tokens(self) -> int:
        return self.prefix_tokens + prod(self.grid)

    @property
    def tiles(self) -> int:
        return len(self.sizes)

    @property
    def prefix_tokens(self) -> int:
        return sum(self.prefix)

    @property
    def prefix_tiles(self) -> int:
        return sum(self.segment_tiles)

    @property
    def max_tile(self) -> int:
        return max(self.sizes)

    @property
    def device(self) -> torch.device:
        return self.offsets.device

    @property
    def video(self) -> TileLayout:
        """The layout of the video's tokens alone."""
        return self._video or self

    @property
    def pairs(self) -> TileLayout:
        """Two neighbouring tiles as one: 128-row queries that share one list of keys.

        Only for layouts of single tiles without a prefix; raises UsageError for others.
        """
        if self._pairs is None:
            raise UsageError("Tiles are paired among the video's alone: use layout.video.pairs.")
        return self._pairs

    def to_tiles(self, x: Tensor, dim: int = 1) -> Tensor:
        """x with the tokens of its axis `dim` in tile order; they come in raster order."""
        return x.index_select(dim, self.perm)

    def to_raster(self, x: Tensor, dim: int = 1) -> Tensor:
        """The inverse of `to_tiles`."""
        return x.index_select(dim, self.inv)

    def segment(self, number: int) -> range:
        """Tiles of prefix segment `number`."""
        if not 0 <= number < len(self.prefix):
            raise UsageError(
                f"There is no prefix segment {number}: the layout has {len(self.prefix)}, "
                "numbered from 0."
            )
        start = sum(self.segment_tiles[:number])
        return range(start, start + self.segment_tiles[number])


def tile_layout(
    grid: Sequence[int],
    *,
    tile: Sequence[int] | Literal["auto"] = "auto",
    prefix: Sequence[int] = (),
    device: torch.device | str = "cpu",
) -> TileLayout:
    """The layout of a latent grid (frames, rows, columns), after segments of `prefix` tokens.

    tile: sides of a tile, at most 64 tokens in all, or `auto`: the shape with the fewest tiles
    (`best_tile`). (4, 4, 4) is what FastVideo's checkpoints were trained with. Layouts are cached.
    Raises UsageError for sizes that are no sizes and for tiles that are too large.
    """
    grid, prefix = tuple(grid), tuple(prefix)
    if len(grid) != 3 or min(grid) < 1:
        raise UsageError(f"A grid is (frames, rows, columns), each 1 or more, not {grid}.")
    shape = best_tile(grid) if tile == "auto" else tuple(tile)
    if len(shape) != 3 or min(shape) < 1 or prod(shape) > MAX_TILE:
        raise UsageError(f"A tile has three sides and at most {MAX_TILE} tokens, not {shape}.")
    if min(prefix, default=0) < 0:
        raise UsageError(f"Prefix segments are counts of tokens, not {prefix}.")
    return _layout(grid, shape, prefix, torch.device(device))


@lru_cache(maxsize=64)
def _layout(grid: Grid, tile: Grid, prefix: tuple[int, ...], device: torch.device) -> TileLayout:
    segments = [_split(tokens) for tokens in prefix]
    count = [ceil(n / side) for n, side in zip(grid, tile, strict=True)]
    lengths = [
        [min(side, n - i * side) for i in range(c)]
        for n, side, c in zip(grid, tile, count, strict=True)
    ]
    sizes = [size for segment in segments for size in segment]
    sizes += [prod(sides) for sides in product(*lengths)]
    # A token's tile in raster order of tiles; a stable sort by it leaves raster order inside.
    at = [torch.arange(n) // side for n, side in zip(grid, tile, strict=True)]
    owner = (at[0][:, None, None] * count[1] + at[1][:, None]) * count[2] + at[2]
    start = sum(prefix)
    perm = torch.cat([torch.arange(start), start + owner.flatten().argsort(stable=True)])
    inv = torch.empty_like(perm)
    inv[perm] = torch.arange(len(perm))
    each = torch.tensor(sizes)
    offsets = torch.cat([torch.zeros(1, dtype=torch.long), each.cumsum(0)])
    single = TileLayout(
        grid,
        tile,
        prefix,
        tuple(len(segment) for segment in segments),
        tuple(sizes),
        perm.to(device),
        inv.to(device),
        offsets.int().to(device),
        torch.repeat_interleave(torch.arange(len(sizes)), each).to(device),
    )
    if start:
        return replace(single, _video=_layout(grid, tile, (), device))
    bounds = torch.cat([offsets[:-1:2], offsets[-1:]])
    pairs = replace(
        single,
        sizes=tuple(bounds.diff().tolist()),
        offsets=bounds.int().to(device),
        token_tile=single.token_tile // 2,
    )
    return replace(single, _pairs=pairs)


def _split(tokens: int) -> list[int]:
    """Tokens in the fewest tiles, as even as can be."""
    parts = ceil(tokens / MAX_TILE)
    return [(tokens * (i + 1)) // parts - (tokens * i) // parts for i in range(parts)]


@lru_cache(maxsize=256)
def best_tile(grid: Grid) -> Grid:
    """The tile with the fewest tiles over the grid, then the most cubic one.

    Fewer tiles is less work at the same density, which goes with their square: at 21 x 30 x 52 it
    is 546 of 3 x 5 x 4 against 624 of 4 x 4 x 4. A side that spans its axis may be short.
    """

    def cost(tile: Grid) -> tuple[int, float, Grid]:
        tiles = prod(ceil(n / side) for n, side in zip(grid, tile, strict=True))
        return tiles, _aspect(tile, grid), tile

    sides = [range(1, min(n, MAX_TILE) + 1) for n in grid]
    shapes = [
        (a, b, c)
        for a in sides[0]
        for b in sides[1]
        for c in sides[2]
        if a * b * c <= MAX_TILE and _aspect((a, b, c), grid) <= MAX_ASPECT
    ]
    return min(shapes, key=cost)


def _aspect(tile: Grid, grid: Grid) -> float:
    free = [side for side, n in zip(tile, grid, strict=True) if side < n]
    return max(tile) / min(free) if free else 1.0
