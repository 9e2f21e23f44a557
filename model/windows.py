"""Windows over latents that are too large for one pass; their velocities are blended.

Every step of sampling sees the whole, so windows agree: the way of MultiDiffusion (Bar-Tal et al.,
2023) and of Kandinsky's super-resolution, with weights that fall towards a window's inner edges.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from reelmill.errors import PromptError

Box = tuple[slice, slice, slice]


@dataclass(frozen=True)
class Windows:
    """size: frames, rows, columns of the largest latents at once. overlap: with the next one."""

    size: tuple[int, int, int]
    overlap: tuple[int, int, int] = (2, 8, 8)

    def __post_init__(self) -> None:
        for n, o in zip(self.size, self.overlap, strict=True):
            if n < 1 or not 0 <= o <= n // 2:
                raise PromptError(
                    f"windows of {self.size} latents that overlap by {self.overlap}: at least 1, "
                    "and at most half of it, are needed."
                )

    def fits(self, shape: tuple[int, ...]) -> bool:
        return all(n <= most for n, most in zip(shape, self.size, strict=True))

    def boxes(self, shape: tuple[int, ...]) -> list[Box]:
        """Windows that cover latents of this shape (frames, rows, columns)."""
        axes = [
            spans(n, size, overlap)
            for n, size, overlap in zip(shape, self.size, self.overlap, strict=True)
        ]
        return [(t, y, x) for t, y, x in itertools.product(*axes)]

    def blend(self, z: Tensor, velocity: Callable[[Box], Tensor]) -> Tensor:
        """The weighted mean of `velocity(box)`, [.., t, h, w] each, over windows of z."""
        shape = tuple(z.shape[2:])
        total: Tensor | None = None
        weight = torch.zeros(shape, device=z.device)
        for box in self.boxes(shape):
            v = velocity(box)
            w = self._weight(box, shape).to(v.device)
            if total is None:
                total = v.new_zeros(*v.shape[:2], *shape, dtype=torch.float32)
            total[(..., *box)] += v.float() * w
            weight[box] += w
        assert total is not None
        return total / weight

    def _weight(self, box: Box, shape: tuple[int, ...]) -> Tensor:
        """Half a Hann window over each inner overlap, 1 elsewhere; nowhere 0."""
        weight = torch.ones(())
        for axis, (part, whole, overlap) in enumerate(zip(box, shape, self.overlap, strict=True)):
            n = part.stop - part.start
            ramp = torch.sin(torch.pi / 2 * (torch.arange(overlap) + 0.5) / max(1, overlap)) ** 2
            side = torch.ones(n)
            if part.start > 0 and overlap:
                side[:overlap] = ramp
            if part.stop < whole and overlap:
                side[-overlap:] = ramp.flip(0)
            weight = weight * side.reshape([-1 if a == axis else 1 for a in range(3)])
        return weight


def spans(length: int, size: int, overlap: int) -> list[slice]:
    """Spans of `size` that cover [0, length) and overlap by at least `overlap`, evenly placed."""
    if length <= size:
        return [slice(0, length)]
    count = -(-(length - overlap) // (size - overlap))
    starts = [round(i * (length - size) / (count - 1)) for i in range(count)]
    return [slice(start, start + size) for start in starts]
