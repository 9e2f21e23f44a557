"""Autoencoders that others published, in diffusers' form, read from a local folder.

A folder holds `config.json` (its `_class_name` says what it is) and safetensors. Only the classes
named here are built, with strictly fitting weights; nothing is downloaded or unpickled.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import safetensors.torch
from torch import Tensor, nn

from reelmill.errors import CheckpointError
from reelmill.model.codecs.saved import read_json
from reelmill.model.pretrained.source import read_weights, weight_files

WEIGHTS = "diffusion_pytorch_model.safetensors"


def open_published(folder: Path, allowed: tuple[str, ...]) -> nn.Module:
    """The frozen model of a folder, float32, in evaluation mode.

    allowed: class names. Raises WeightsError when the folder has no safetensors, CheckpointError
    when it is of another class or its weights do not fit its config.
    """
    import diffusers

    config = read_json(folder / "config.json")
    name = config.get("_class_name")
    if name not in allowed:
        raise CheckpointError(f"{folder} holds {name!r}; {' or '.join(allowed)} is wanted.")
    weights = read_weights(weight_files(folder))
    try:
        model = cast(nn.Module, getattr(diffusers, name).from_config(config))
        model.load_state_dict({k: v.float() for k, v in weights.items()}, strict=True)
    except (RuntimeError, TypeError, ValueError, KeyError, IndexError) as error:
        raise CheckpointError(f"{folder}: weights and config do not fit: {error}") from error
    broken = [k for k, v in model.state_dict().items() if not bool(v.isfinite().all())]
    if broken:
        raise CheckpointError(f"{folder}: {broken[0]} holds numbers that are not finite.")
    return model.requires_grad_(False).eval()


def write_published(folder: Path, model: nn.Module) -> None:
    """What `open_published` reads again."""
    folder.mkdir(parents=True, exist_ok=True)
    data = {k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()}
    safetensors.torch.save_file(data, folder / WEIGHTS, metadata={"format": "pt"})
    head = plain_config(model) | {"_class_name": type(model).__name__}
    (folder / "config.json").write_text(json.dumps(head, indent=1, sort_keys=True))


def plain_config(model: nn.Module) -> dict[str, Any]:
    """The settings that a model was built with, as JSON has them."""
    config: Mapping[str, Any] = cast(Any, model).config
    kept = {k: v for k, v in dict(config).items() if not k.startswith("_")}
    return json.loads(json.dumps(kept))


def digest_parts(*models: nn.Module) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Fields and tensors for `codec_digest`."""
    fields = {f"{i}.{type(m).__name__}": plain_config(m) for i, m in enumerate(models)}
    tensors = {f"{i}.{k}": v for i, m in enumerate(models) for k, v in m.state_dict().items()}
    return fields, tensors
