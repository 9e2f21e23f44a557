"""AdamW groups, the learning rate by step, and the moving average of the weights."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from reelmill.training.curriculum import Optim
from reelmill.training.sharding import local


def make_adamw(named: Iterable[tuple[str, nn.Parameter]], config: Optim) -> torch.optim.AdamW:
    """AdamW with weight decay on matrices only; norms, biases and tables are left alone."""
    params = [p for _, p in named if p.requires_grad]
    matrices = [p for p in params if p.ndim >= 2]
    others = [p for p in params if p.ndim < 2]
    groups = [
        {"params": matrices, "weight_decay": config.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=config.lr,
        betas=config.betas,
        foreach=True,
    )


def learning_rate(step: int, steps: int, config: Optim) -> float:
    """The rate of a step (from 0): linear warm-up, then constant or half a cosine down to 10 %."""
    if step < config.warmup_steps:
        return config.lr * (step + 1) / config.warmup_steps
    if config.schedule == "constant":
        return config.lr
    done = (step - config.warmup_steps) / max(1, steps - config.warmup_steps)
    return config.lr * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * min(1.0, done))))


class EMA:
    """Moving average of weights, at least in fp32: `average <- d average + (1 - d) weight`.

    d rises from .1 to `decay` as (1 + n) / (10 + n), so that the start is forgotten quickly.
    """

    def __init__(self, named: Iterable[tuple[str, Tensor]], decay: float):
        self.decay = decay
        self.average = {
            name: w.detach().to(torch.promote_types(w.dtype, torch.float32), copy=True)
            for name, w in named
        }

    @torch.no_grad()
    def update(self, named: Mapping[str, Tensor], step: int) -> None:
        decay = min(self.decay, (1 + step) / (10 + step))
        averages = [local(average) for average in self.average.values()]
        weights = [local(named[name]).to(a) for name, a in zip(self.average, averages, strict=True)]
        torch._foreach_lerp_(averages, weights, 1 - decay)

    @contextmanager
    def in_place(self, named: Mapping[str, Tensor]) -> Iterator[None]:
        """The model has the average for weights, inside; its own again after."""
        self._swap(named)
        try:
            yield
        finally:
            self._swap(named)

    @torch.no_grad()
    def _swap(self, named: Mapping[str, Tensor]) -> None:
        for name, average in self.average.items():
            kept = local(average).clone()
            local(average).copy_(local(named[name]))
            local(named[name]).copy_(kept)


def clip(parameters: Iterable[Tensor], norm: float, limit: float) -> None:
    """Scales a gradient of the given norm down to the limit, as torch's clip_grad_norm_ does."""
    grads = gradients(parameters)
    if grads:
        share = limit / (torch.tensor(norm, dtype=grads[0].dtype) + 1e-6)
        torch._foreach_mul_(grads, share.clamp(max=1.0).to(grads[0].device))


def gradients(parameters: Iterable[Tensor]) -> list[Tensor]:
    """What this rank holds of the gradient."""
    return [local(p.grad) for p in parameters if p.grad is not None]
