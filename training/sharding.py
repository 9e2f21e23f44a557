"""Weights spread over ranks (FSDP2), and the same tensors whole again.

Every layer is a unit: its weights are gathered before it runs and let go after. Gradients are
averaged over ranks. What is kept between steps (weights, AdamW's moments, the moving average) is a
rank's part alone; checkpoints hold whole tensors and so fit any number of ranks.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from reelmill.errors import CheckpointError
from reelmill.model.mmdit import MMDiT
from reelmill.training.ranks import Ranks


def shard(model: MMDiT, ranks: Ranks) -> None:
    """Leaves each rank its part of every parameter. All ranks must hold the same ones before."""
    if ranks.world == 1:
        return
    mesh = init_device_mesh(next(model.parameters()).device.type, (ranks.world,))
    for layer in model.layers:
        fully_shard(layer, mesh=mesh)
    # True: else weights stay as they were while the held-out loss was measured on others.
    fully_shard(model, mesh=mesh, reshard_after_forward=True)


def local(tensor: Tensor) -> Tensor:
    """What this rank holds of a tensor, sharing its memory."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def whole(tensors: Mapping[str, Tensor], keep: bool = True) -> dict[str, Tensor]:
    """All of every tensor, on ranks that `keep` them. All ranks must call it, in the same order."""
    found = {}
    for name, tensor in tensors.items():
        full = tensor.detach()
        full = full.full_tensor() if isinstance(full, DTensor) else full
        if keep:
            found[name] = full
    return found


def spread(value: Tensor, like: Tensor) -> Tensor:
    """A copy of a whole tensor, held as `like` is."""
    value = value.to(like.device, copy=True)
    if not isinstance(like, DTensor):
        return value
    return distribute_tensor(value, like.device_mesh, like.placements, src_data_rank=None)


@torch.no_grad()
def load(named: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> None:
    """Copies whole tensors in. Raises CheckpointError where names or shapes are another model's."""
    differing = sorted(set(named) ^ set(weights))
    differing += [n for n, p in named.items() if n in weights and p.shape != weights[n].shape]
    if differing:
        raise CheckpointError(
            f"these weights are of another model: {len(differing)} names or shapes differ, the "
            f"first of them {differing[0]}."
        )
    for name, parameter in named.items():
        local(parameter).copy_(local(spread(weights[name], parameter)))
