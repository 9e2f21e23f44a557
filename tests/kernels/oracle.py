"""Sparse attention written another way: dense, masked, float64, tokens in raster order.

It knows tiles by coordinates alone, so that a wrong permutation shows too.
"""

from __future__ import annotations

from math import ceil

import torch
from torch import Tensor

from reelmill.kernels.select import TileLists
from reelmill.kernels.tiles import TileLayout


def owners(layout: TileLayout) -> Tensor:
    """Tile of each token in raster order, from the coordinates of the token."""
    tiles, count = [], 0
    for tokens in layout.prefix:
        parts = ceil(tokens / 64)
        for part in range(parts):
            tiles += [count] * ((tokens * (part + 1)) // parts - (tokens * part) // parts)
            count += 1
    frames, height, width = layout.grid
    a, b, c = layout.tile
    for t in range(frames):
        for y in range(height):
            for x in range(width):
                tile = (t // a * ceil(height / b) + y // b) * ceil(width / c) + x // c
                tiles.append(count + tile)
    return torch.tensor(tiles)


def masked(q: Tensor, k: Tensor, v: Tensor, seen: Tensor, scale: float | None = None) -> Tensor:
    """q: [B, Lq, heads, D]; k, v alike; seen: bool [B, heads, Lq, Lk]. A row of no keys gives 0."""
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    scores = torch.einsum("bihd,bjhd->bhij", q, k) * scale
    scores = scores.masked_fill(~seen, -1e300)
    weights = (scores - scores.amax(-1, keepdim=True)).exp() * seen
    weights = weights / weights.sum(-1, keepdim=True).clamp(min=1e-300)
    return torch.einsum("bhij,bjhd->bihd", weights, v)


def seen(lists: TileLists, rows: Tensor, columns: Tensor, tiles: int) -> Tensor:
    """Which keys each query may see, [B, heads, Lq, Lk]; rows, columns: tile of each token."""
    batch, heads, _, _ = lists.index.shape
    chosen = torch.zeros(batch, heads, lists.index.shape[2], tiles, dtype=torch.bool)
    for at in torch.cartesian_prod(*(torch.arange(n) for n in lists.count.shape)).tolist():
        for tile in lists.index[tuple(at)][: int(lists.count[tuple(at)])].tolist():
            chosen[(*at, tile)] = True
    return chosen[:, :, rows][:, :, :, columns]


def sparse(q: Tensor, k: Tensor, v: Tensor, lists: TileLists, layout: TileLayout) -> Tensor:
    """Raster order in and out."""
    tile = owners(layout)
    return masked(q, k, v, seen(lists, tile, tile, layout.tiles))


def vsa(
    q: Tensor, k: Tensor, v: Tensor, gate: Tensor | None, layout: TileLayout, topk: int, always: set
) -> Tensor:
    """Video Sparse Attention, raster order in and out; the prefix tiles of `always` are read."""
    tile, head = owners(layout), layout.prefix_tokens
    onehot = torch.nn.functional.one_hot(tile, layout.tiles).to(q.dtype)
    mean = onehot / onehot.sum(0)
    kc, vc = (torch.einsum("blhd,lt->bthd", x, mean) for x in (k, v))
    qc = torch.einsum("blhd,lt->bthd", q, mean)
    scores = torch.einsum("bihd,bjhd->bhij", qc, kc).detach()
    batch, heads = scores.shape[:2]
    chosen = torch.zeros(scores.shape, dtype=torch.bool)
    free = [t for t in range(layout.tiles) if t not in always]
    for b in range(batch):
        for h in range(heads):
            for row in range(layout.tiles):
                order = sorted(free, key=lambda t: (-float(scores[b, h, row, t]), t))
                chosen[b, h, row, [*always, *order[:topk]]] = True
    can_see = chosen[:, :, tile][:, :, :, tile]
    can_see[:, :, :head] = True
    out = masked(q, k, v, can_see)
    if gate is not None:
        every = torch.ones(batch, heads, layout.tiles, layout.tiles, dtype=torch.bool)
        coarse = masked(qc, kc, vc, every, q.shape[-1] ** -0.5)[:, tile]
        out = torch.cat([out[:, :head], (out + gate * coarse)[:, head:]], 1)
    return out


def random_lists(
    layout: TileLayout,
    batch: int,
    heads: int,
    width: int,
    made: torch.Generator,
    even: bool = False,
) -> TileLists:
    """Lists of random tiles, ascending; of random lengths from 0 on, unless even."""
    shape = (batch, heads, layout.tiles)
    width = min(width, layout.tiles)
    index = torch.rand(*shape, layout.tiles, generator=made).argsort(-1)[..., :width]
    count = torch.full(shape, width, dtype=torch.int32)
    if not even:
        count = torch.randint(0, width + 1, shape, generator=made, dtype=torch.int32)
    used = torch.arange(width) < count[..., None]
    index = index.where(used, layout.tiles).sort().values.where(used, 10**6)  # never to be read
    return TileLists(index.int(), count)


def relative(a: Tensor, b: Tensor) -> float:
    a, b = a.detach(), b.detach()
    return float((a.double() - b.double()).norm() / b.double().norm().clamp(min=1e-300))
