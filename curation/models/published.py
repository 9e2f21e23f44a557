"""Loading published weights into a network of ours: by exact keys, never by running a pickle."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import TypeVar

from torch import nn

from reelmill.errors import WeightsError

Network = TypeVar("Network", bound=nn.Module)


def load_published(network: Network, path: Path, inside: str = "") -> Network:
    """The network with the weights of a PyTorch file, for inference.

    inside: the entry of the file that holds them, empty where the file is the state itself. Raises
    WeightsError for a file that holds anything but tensors and plain values, and for keys or
    shapes that are not exactly the network's.
    """
    import torch

    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        if inside:
            state = state[inside]
        network.load_state_dict(state, strict=True)
    except (
        RuntimeError, OSError, EOFError, ValueError, LookupError, TypeError, AttributeError,
        pickle.UnpicklingError,
    ) as error:  # fmt: skip
        first = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
        raise WeightsError(
            f"{path} does not hold the published weights of {type(network).__name__}: "
            f"{first[:200]} Get the file again from its source (`reelmill weights list`)."
        ) from error
    return network.eval().requires_grad_(False)
