"""Flow matching in the paper's direction of time (section 3.1): t = 0 is noise, t = 1 is data.

    z_t = t z0 + (1 - t) eps        v = dz/dt = z0 - eps

Others run sigma = 1 - t and predict u = eps - z0 (Wan, LTX-2, diffusers): v = -u. Times broadcast
from the left: t [B] or [B, ...] against z [B, ...].
"""

from __future__ import annotations

import torch
from torch import Tensor


def _like(t: Tensor | float, z: Tensor) -> Tensor:
    t = torch.as_tensor(t, dtype=z.dtype, device=z.device)
    return t.reshape(t.shape + (1,) * (z.ndim - t.ndim)) if t.ndim else t


def interpolate(z0: Tensor, eps: Tensor, t: Tensor | float) -> Tensor:
    """z_t; exactly eps at t = 0 and z0 at t = 1."""
    t = _like(t, z0)
    return t * z0 + (1 - t) * eps


def target(z0: Tensor, eps: Tensor) -> Tensor:
    """The velocity that the model learns."""
    return z0 - eps


def velocity(z: Tensor, x0: Tensor, t: Tensor | float) -> Tensor:
    """The velocity at z_t that leads to predicted data. Near the end, where it would grow without
    bound, 1 - t counts as .05 (Li and He, "Back to Basics", 2025)."""
    return (x0 - z) / (1 - _like(t, z)).clamp_min(0.05)


def x0(z: Tensor, v: Tensor, t: Tensor | float) -> Tensor:
    """The data that a velocity at z_t points to."""
    return z + (1 - _like(t, z)) * v


def eps(z: Tensor, v: Tensor, t: Tensor | float) -> Tensor:
    """The noise that a velocity at z_t comes from."""
    return z - _like(t, z) * v


def from_sigma_velocity(u: Tensor) -> Tensor:
    """Velocity of a model that predicts eps - z0 at sigma = 1 - t."""
    return -u


def shift(t: Tensor, s: float) -> Tensor:
    """Moves times towards noise for s > 1: sigma' = s sigma / (1 + (s - 1) sigma) (Esser et al.,
    2024), which is t' = t / (s - (s - 1) t)."""
    return t / (s - (s - 1) * t)
