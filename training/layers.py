"""How the layers of a model are computed: compiled, and their activations kept or made again.

A layer's `forward` is replaced in place, so that parameters keep their names, and the hooks of FSDP
and of context parallelism run outside of what is compiled or computed again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint

from reelmill.model.mmdit import MMDiT

_VARIANTS = 8  # of a compiled layer: tasks that drop a tower, with and without masks


def prepare_layers(model: MMDiT, *, recompute: bool, compiled: bool) -> None:
    """recompute: keep a layer's inputs alone, and run it again on the way back."""
    for layer in model.layers:
        forward: Callable[..., Any] = layer.forward
        if recompute:
            forward = _recomputed(forward)
        if compiled:
            forward = torch.compile(forward)
        layer.forward = forward  # type: ignore[method-assign]
    if compiled:
        config = torch._dynamo.config
        config.recompile_limit = max(config.recompile_limit, _VARIANTS * len(model.layers))


def _recomputed(forward: Callable[..., Any]) -> Callable[..., Any]:
    def run(*args: Any) -> Any:
        if not torch.is_grad_enabled():
            return forward(*args)
        # Nothing in a layer is random: no state to put back.
        return checkpoint(forward, *args, use_reentrant=False, preserve_rng_state=False)

    return run
