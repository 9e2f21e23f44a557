"""A small case of block-sparse attention, computed here and in float64."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from reelmill.kernels.block_sparse import block_sparse_attention
from reelmill.kernels.dispatch import Case, choose_sparse
from reelmill.kernels.select import TileLists
from reelmill.kernels.tiles import tile_layout

LIMIT = {torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 5e-2, torch.float64: 1e-10}
"""Relative L2 error that a sound backend stays well below."""


@dataclass(frozen=True)
class Trial:
    """Relative L2 errors of the output and of the worst gradient; whether two runs were equal."""

    output: float
    gradients: float
    repeats: bool
    good: bool


def trial(case: Case, backend: str = "auto") -> Trial:
    """Runs a grid with tiles of many sizes, lists of many lengths, forward and backward."""
    made = torch.Generator().manual_seed(0)
    layout = tile_layout((5, 9, 10), tile=(4, 4, 4), device=case.device)
    shape, tiles = (1, layout.tokens, 2, case.head_dim), layout.tiles
    values = [torch.randn(shape, generator=made).to(case.device, case.dtype) for _ in range(4)]
    order = torch.rand(1, 2, tiles, tiles, generator=made).argsort(-1)
    count = torch.randint(1, tiles, (1, 2, tiles), generator=made, dtype=torch.int32)
    lists = TileLists(order.int().to(case.device), count.to(case.device))

    def run(name: str, dtype: torch.dtype) -> list[Tensor]:
        q, k, v, do = (x.to(dtype) for x in values)
        q, k, v = (x.detach().clone().requires_grad_() for x in (q, k, v))
        out = block_sparse_attention(q, k, v, lists, layout, backend=name)
        return [out.detach(), *torch.autograd.grad(out, (q, k, v), do)]

    name = choose_sparse(case, backend).name
    first, second, truth = (
        run(name, case.dtype),
        run(name, case.dtype),
        run("reference", torch.float64),
    )
    errors = [float((a.double() - b).norm() / b.norm()) for a, b in zip(first, truth, strict=True)]
    limit = LIMIT.get(case.dtype, 1e-4)
    repeats = all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    # NaN is good for nothing, hence the form of the comparison.
    good = all(error <= limit for error in errors) and (repeats or name == "flex")
    return Trial(errors[0], max(errors[1:]), repeats, good)
