"""Principal components from streamed second moments."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

# Channels quieter than this share of the loudest are not blown up to unit variance.
LEAST_SCALE = 0.05


@dataclass(frozen=True, eq=False)
class Components:
    """mean: [n]; basis: [n, C], orthonormal columns; scale: [C], standard deviations."""

    mean: Tensor
    basis: Tensor
    scale: Tensor

    def encode(self, x: Tensor) -> Tensor:
        """[..., n] -> [..., C], about unit variance."""
        mean, basis, scale = (p.to(x) for p in (self.mean, self.basis, self.scale))
        return (x - mean) @ (basis / scale)

    def decode(self, z: Tensor) -> Tensor:
        mean, basis, scale = (p.to(z) for p in (self.mean, self.basis, self.scale))
        return (z * scale) @ basis.T + mean


class Moments:
    """Count, sum and sum of squares of vectors, in float64."""

    def __init__(self, width: int):
        self.count = 0
        self.sum = torch.zeros(width, dtype=torch.float64)
        self.squares = torch.zeros(width, width, dtype=torch.float64)

    def add(self, x: Tensor) -> None:
        """x: [..., width]."""
        x = x.reshape(-1, len(self.sum)).double()
        self.count += len(x)
        self.sum += x.sum(0)
        self.squares += x.T @ x

    def components(self, channels: int, towards: Tensor | None = None) -> Components:
        """The leading components. towards: [width, channels]; turns the basis inside its own span
        as near to this one as it can be (orthogonal Procrustes)."""
        mean = self.sum / self.count
        covariance = self.squares / self.count - mean[:, None] * mean
        basis = torch.linalg.eigh(covariance).eigenvectors.flip(1)[:, :channels]
        if towards is not None:
            u, _, vt = torch.linalg.svd(basis.T @ towards.double())
            basis = basis @ (u @ vt)
        else:  # eigenvectors have no sign of their own
            largest = basis.gather(0, basis.abs().argmax(0, keepdim=True))
            basis = basis * largest.sign()
        scale = (basis * (covariance @ basis)).sum(0).clamp(min=0).sqrt()
        scale = scale.clamp(min=max(LEAST_SCALE * scale.max().item(), 1e-6))
        return Components(mean.float(), basis.float().contiguous(), scale.float())
