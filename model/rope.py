"""Rotary positions (Su et al., 2021) over up to three axes, interleaved pairs."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

THETA = 10_000.0


class Rope(NamedTuple):
    """cos, sin: float32 [B or 1, L, 1, head_dim / 2]. turn: cos + i sin, complex64."""

    cos: Tensor
    sin: Tensor
    turn: Tensor


def rope(pos: Tensor, dims: Sequence[int], theta: float = THETA) -> Rope:
    """Tables for tokens at pos [B, L, axes]; dims: how many of the head's dimensions turn per axis.

    Axes that `pos` does not have (audio has only time) do not turn their dimensions, so a dot
    product of a video and an audio token depends on their distance in time alone.
    """
    if pos.device.type != "cpu":
        return _tables(pos, tuple(dims), theta)
    pos = pos.float().contiguous()  # a clip's positions recur at every step: look them up
    return _cached(pos.numpy().tobytes(), tuple(pos.shape), tuple(dims), theta)


@lru_cache(maxsize=64)
def _cached(pos: bytes, shape: tuple[int, ...], dims: tuple[int, ...], theta: float) -> Rope:
    where = torch.frombuffer(bytearray(pos), dtype=torch.float32).reshape(shape)
    return _tables(where, dims, theta)


@torch.no_grad()
def _tables(pos: Tensor, dims: tuple[int, ...], theta: float) -> Rope:
    angles = []
    for axis, dim in enumerate(dims):
        exponent = torch.arange(0, dim, 2, dtype=torch.float64, device=pos.device) / max(dim, 1)
        where = pos[..., axis] if axis < pos.shape[-1] else torch.zeros_like(pos[..., 0])
        angles.append(where.double()[..., None] * theta**-exponent)
    angle = torch.cat(angles, -1)[..., None, :]
    cos, sin = angle.cos().float(), angle.sin().float()
    return Rope(cos, sin, torch.complex(cos, sin))


def rotate(x: Tensor, table: Rope) -> Tensor:
    """x [B, L, heads, head_dim] with its pairs (0, 1), (2, 3), ... turned by the table."""
    pairs = x.unflatten(-1, (-1, 2))
    if x.device.type == "cpu" and x.dtype in (torch.float32, torch.float64):
        # Three times as fast there; compilers cannot fuse complex numbers.
        return torch.view_as_real(torch.view_as_complex(pairs) * table.turn).flatten(-2)
    even, odd = pairs.unbind(-1)
    cos, sin = table.cos, table.sin
    turned = torch.stack((even * cos - odd * sin, even * sin + odd * cos), -1)
    return turned.flatten(-2).to(x.dtype)
