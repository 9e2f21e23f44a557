"""Codecs on disk: `codec.json` (kind, version, fields) and `codec.safetensors`. Never pickle."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor

from reelmill.errors import CheckpointError

MAX_JSON = 1 << 20
MAX_TENSORS = 1 << 31


def codec_digest(
    kind: str, version: int, fields: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> str:
    """sha256 of a codec."""
    head = json.dumps([kind, version, dict(fields)], sort_keys=True)
    digest = hashlib.sha256(head.encode())
    for name in sorted(tensors):
        value = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {value.dtype} {tuple(value.shape)} ".encode())
        digest.update(value.numpy().tobytes())
    return digest.hexdigest()


def write_codec(
    folder: Path, kind: str, version: int, fields: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    data = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    safetensors.torch.save_file(data, folder / "codec.safetensors")
    write_head(folder, kind, version, fields)


def write_head(folder: Path, kind: str, version: int, fields: Mapping[str, Any]) -> None:
    """codec.json alone."""
    head = {"kind": kind, "version": version, "fields": dict(fields)}
    (folder / "codec.json").write_text(json.dumps(head, indent=1, sort_keys=True))


def codec_kind(folder: Path) -> str:
    """The kind of a saved codec. Raises CheckpointError when there is none."""
    return read_json(folder / "codec.json").get("kind", "")


def read_codec(
    folder: Path, kind: str, version: int, shapes: Mapping[str, int]
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Fields and tensors of a saved codec. shapes: names of its tensors and their dimensions.

    Raises CheckpointError for a folder that is not a codec of this kind and version.
    """
    head = read_json(folder / "codec.json")
    for name, wanted in (("kind", kind), ("version", version)):
        if head.get(name) != wanted:
            raise CheckpointError(
                f"codec {folder}: its {name} is {head.get(name)!r}, {wanted!r} is wanted."
            )
    path = folder / "codec.safetensors"
    try:
        if path.stat().st_size > MAX_TENSORS:
            raise CheckpointError(f"codec {path} is larger than {MAX_TENSORS} bytes.")
        tensors = safetensors.torch.load_file(path)
    except (OSError, safetensors.SafetensorError) as error:
        raise CheckpointError(f"codec {path} cannot be read: {error}.") from error
    found = {name: value.ndim for name, value in tensors.items()}
    if found != dict(shapes) or not all(v.is_floating_point() for v in tensors.values()):
        raise CheckpointError(f"codec {path} holds {found}, {dict(shapes)} is wanted.")
    if not all(bool(value.isfinite().all()) for value in tensors.values()):
        raise CheckpointError(f"codec {path} holds numbers that are not finite.")
    fields = head.get("fields")
    return (fields if isinstance(fields, dict) else {}), tensors


def read_json(path: Path) -> dict[str, Any]:
    """A small JSON object. Raises CheckpointError for anything else."""
    try:
        if path.stat().st_size > MAX_JSON:
            raise CheckpointError(f"{path} is larger than {MAX_JSON} bytes.")
        data = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}.") from error
    if not isinstance(data, dict):
        raise CheckpointError(f"{path} holds a {type(data).__name__}, an object is wanted.")
    return data
