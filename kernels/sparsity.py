"""How sparse attention is, by layer and by step."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from reelmill.errors import UsageError


@dataclass(frozen=True)
class SparsitySchedule:
    """The share of key tiles left out, for each layer and step; None says: attend densely.

    target: the share in the end; 2/3 is the paper's "about 3x less" (SkyReels-V4, 4.5).
    rate, interval: in training it grows by `rate` every `interval` steps, from 0 (FastVideo: 0.03
    every 50); rate 0 starts at the target. dense_layers: layers that stay dense. dense_steps: the
    first sampling steps, whose attention is the least sparse by nature, that stay dense.
    """

    target: float = 2 / 3
    rate: float = 0.03
    interval: int = 50
    dense_layers: tuple[int, ...] = ()
    dense_steps: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.target < 1 or not 0 <= self.rate < 1:
            raise UsageError(
                f"Sparsity: target {self.target} and rate {self.rate} are shares, 0 <= s < 1."
            )
        if self.interval < 1 or self.dense_steps < 0:
            raise UsageError(
                f"Sparsity: interval {self.interval} is at least 1, "
                f"dense_steps {self.dense_steps} at least 0."
            )

    def training(self, step: int, layer: int) -> float | None:
        """At an optimiser step, numbered from 0."""
        if layer in self.dense_layers:
            return None
        if not self.rate:
            return self.target
        # Counted in whole rises: 0.9 // 0.05 is 17 and would end at 0.85.
        rises = ceil(round(self.target / self.rate, 6))
        rise = step // self.interval
        return self.target if rise >= rises else round(rise * self.rate, 9)

    def sampling(self, step: int, layer: int) -> float | None:
        """At a step of the sampler, numbered from 0."""
        if layer in self.dense_layers or step < self.dense_steps:
            return None
        return self.target
