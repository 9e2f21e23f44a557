"""A model on disk: `model.safetensors` and `model.json`. Never pickle."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from reelmill.errors import CheckpointError
from reelmill.model.codecs.saved import read_json
from reelmill.model.config import MMDiTConfig
from reelmill.model.mmdit import MMDiT

SCHEMA = 1
DTYPES = {"F32", "F16", "BF16"}


def write_model(
    folder: Path,
    config: MMDiTConfig,
    weights: Mapping[str, Tensor],
    details: Mapping[str, Any],
) -> None:
    """weights: by parameter name, as `MMDiT.state_dict()`. details: JSON values kept beside."""
    folder.mkdir(parents=True, exist_ok=True)
    data = {name: value.detach().cpu().contiguous() for name, value in weights.items()}
    safetensors.torch.save_file(data, folder / "model.safetensors")
    head = {
        "schema": SCHEMA,
        "config": config.to_json(),
        "config_hash": config.hash,
        "details": dict(details),
    }
    (folder / "model.json").write_text(json.dumps(head, indent=1, sort_keys=True))


def read_model(folder: Path, *, expect: MMDiTConfig | None = None) -> tuple[MMDiT, dict[str, Any]]:
    """The model, in evaluation mode on the CPU, and the details written with it.

    expect: the config that the caller works with. Raises CheckpointError when the files are
    missing or damaged, or belong to another config; the message names both values.
    """
    head = read_json(folder / "model.json")
    if head.get("schema") != SCHEMA:
        raise CheckpointError(
            f"model {folder} has schema {head.get('schema')!r}; this Reelmill reads {SCHEMA}."
        )
    config = MMDiTConfig.from_json(head.get("config"))
    if head.get("config_hash") != config.hash:
        raise CheckpointError(
            f"model {folder}: its config has hash {config.hash}, but {head.get('config_hash')!r} "
            "was written with it. The file was altered."
        )
    if expect is not None and expect != config:
        raise CheckpointError(
            f"model {folder} is of another config: {'; '.join(differences(config, expect))}."
        )
    with torch.device("meta"):
        model = MMDiT(config)
    path = folder / "model.safetensors"
    try:
        _check_shapes(path, model)
        weights = safetensors.torch.load_file(path)
    except (OSError, safetensors.SafetensorError) as error:
        raise CheckpointError(f"model {path} cannot be read: {error}.") from error
    broken = [name for name, value in weights.items() if not bool(value.isfinite().all())]
    if broken:
        raise CheckpointError(f"model {path}: {broken[0]} holds numbers that are not finite.")
    model.load_state_dict(weights, strict=True, assign=True)
    details = head.get("details")
    return model.eval(), details if isinstance(details, dict) else {}


def differences(saved: MMDiTConfig, asked: MMDiTConfig) -> list[str]:
    """Fields that differ, as `video.dim: saved 64, asked 128`."""
    a, b = _flat(saved.to_json()), _flat(asked.to_json())
    return [
        f"{name}: saved {a.get(name)!r}, asked {b.get(name)!r}"
        for name in sorted(a.keys() | b.keys())
        if a.get(name) != b.get(name)
    ]


def _flat(data: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    out: dict[str, Any] = {}
    for name, value in data.items():
        out |= (
            _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
        )
    return out


def _check_shapes(path: Path, model: MMDiT) -> None:
    """Compares names, shapes and dtypes from the file's header, before any tensor is read."""
    wanted = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    with safetensors.safe_open(path, "pt") as file:
        slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
        found = {name: tuple(s.get_shape()) for name, s in slices.items()}
        dtypes = {s.get_dtype() for s in slices.values()}
    for name in sorted(wanted.keys() | found.keys()):
        if wanted.get(name) != found.get(name):
            raise CheckpointError(
                f"model {path}: {name} is {found.get(name, 'missing')} in the file and "
                f"{wanted.get(name, 'no part')} of this config's model."
            )
    if not dtypes <= DTYPES:
        raise CheckpointError(
            f"model {path} holds {sorted(dtypes - DTYPES)}, not {sorted(DTYPES)}."
        )
