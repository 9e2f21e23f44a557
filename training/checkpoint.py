"""Checkpoints of a training run: there whole or not at all, checked byte by byte, never unpickled.

    <folder>/step-00000400/
        weights.safetensors  ema.safetensors  optimizer.safetensors
        state.json           step, loader position, losses that are still being summed
        manifest.json        config that it belongs to, sha256 of every file; written last

A checkpoint is written as `.step-....tmp-<pid>` and renamed. Random numbers are keyed by
(seed, step, slot), so none of their state is kept.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from reelmill.errors import CheckpointError, WorkspaceError
from reelmill.training.sharding import spread

log = logging.getLogger(__name__)
SCHEMA = 1
_NAME = re.compile(r"step-\d{8,}")
_FILES = ("weights.safetensors", "ema.safetensors", "optimizer.safetensors", "state.json")


@dataclass
class Checkpoint:
    """What a run needs to go on as if it had never stopped.

    weights, ema: by parameter name. optimizer: `<parameter>.<exp_avg|exp_avg_sq|step>`.
    state: small JSON values. config: what it belongs to; compared field by field on resume.
    """

    step: int
    weights: dict[str, Tensor]
    ema: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    state: dict[str, Any]
    config: dict[str, Any]


def save(folder: Path, checkpoint: Checkpoint, *, keep: int = 2) -> Path:
    """Writes a checkpoint, drops all but the newest `keep`. Raises WorkspaceError (disk full)."""
    final = place(folder, checkpoint.step)
    temporary = folder / f".{final.name}.tmp-{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        tensors = (checkpoint.weights, checkpoint.ema, checkpoint.optimizer)
        for name, group in zip(_FILES, tensors, strict=False):
            whole = {k: v.detach().cpu().contiguous() for k, v in group.items()}
            safetensors.torch.save_file(whole, temporary / name)
        (temporary / "state.json").write_bytes(_json(checkpoint.state))
        manifest = {
            "schema": SCHEMA,
            "step": checkpoint.step,
            "config": checkpoint.config,
            "files": {name: _sha256(temporary / name) for name in _FILES},
        }
        (temporary / "manifest.json").write_bytes(_json(manifest))
        for name in (*_FILES, "manifest.json"):
            _sync(temporary / name)
        if final.exists():  # an equal one that was damaged, or the same step saved again
            shutil.rmtree(final)
        temporary.rename(final)
        _sync(folder)
    except (OSError, safetensors.SafetensorError) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise WorkspaceError(
            f"checkpoint {final} cannot be written: {error}. The one before is untouched; make "
            "room and run the same command again."
        ) from error
    for old in _folders(folder)[:-keep]:
        shutil.rmtree(old, ignore_errors=True)
    return final


def place(folder: Path, step: int) -> Path:
    """Where the checkpoint of a step is."""
    return folder / f"step-{step:08d}"


def sweep(folder: Path) -> None:
    """Removes what runs that were killed left half written: nobody else may be writing there."""
    for left in folder.glob(".step-*.tmp-*"):
        shutil.rmtree(left, ignore_errors=True)


def latest(folder: Path) -> Path | None:
    """The newest checkpoint whose bytes are all what its manifest says; damaged ones are named."""
    for path in reversed(_folders(folder)):
        try:
            _verify(path)
        except CheckpointError as error:
            log.warning("%s Falling back to the one before.", error)
            continue
        return path
    return None


def load(path: Path, *, config: Mapping[str, Any] | None = None) -> Checkpoint:
    """Reads a checkpoint. Raises CheckpointError when it is damaged or of another config."""
    manifest = _verify(path)
    if config is not None:
        differing = _differences(manifest["config"], json.loads(_json(config)))
        if differing:
            raise CheckpointError(
                f"checkpoint {path} belongs to another config: {'; '.join(differing)}. Train in "
                "another folder, or set these fields back."
            )
    weights, ema, optimizer = (safetensors.torch.load_file(path / n) for n in _FILES[:3])
    return Checkpoint(
        step=manifest["step"],
        weights=weights,
        ema=ema,
        optimizer=optimizer,
        state=json.loads((path / "state.json").read_text()),
        config=manifest["config"],
    )


def digest(path: Path) -> str:
    """Identity of a checkpoint: sha256 of its manifest, which names the sha256 of all its files."""
    return _sha256(path / "manifest.json")


def optimizer_state(
    optimizer: torch.optim.Optimizer, named: Mapping[str, torch.nn.Parameter]
) -> dict[str, Tensor]:
    """The optimiser's tensors by parameter name."""
    return {
        f"{name}.{key}": value
        for name, parameter in named.items()
        for key, value in optimizer.state.get(parameter, {}).items()
    }


def restore_optimizer(
    optimizer: torch.optim.Optimizer,
    named: Mapping[str, torch.nn.Parameter],
    tensors: Mapping[str, Tensor],
) -> None:
    """Puts `optimizer_state` back. Raises CheckpointError for tensors of another model."""
    optimizer.state.clear()
    for full, value in tensors.items():
        name, _, key = full.rpartition(".")
        parameter = named.get(name)
        if parameter is None or (key != "step" and value.shape != parameter.shape):
            raise CheckpointError(f"optimiser state {full!r} fits no parameter of this model.")
        optimizer.state[parameter][key] = (
            value.clone() if key == "step" else spread(value, parameter)
        )


def _folders(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir() if _NAME.fullmatch(p.name) and p.is_dir())


def _verify(path: Path) -> dict[str, Any]:
    try:
        manifest = json.loads((path / "manifest.json").read_text())
        if manifest["schema"] != SCHEMA:
            raise CheckpointError(
                f"checkpoint {path} has schema version {manifest['schema']!r}; this Reelmill reads "
                f"version {SCHEMA}."
            )
        if set(manifest["files"]) != set(_FILES) or not isinstance(manifest["config"], dict):
            raise ValueError("its manifest lists other files")
        if not isinstance(manifest["step"], int) or manifest["step"] < 0:
            raise ValueError(f"its step is {manifest['step']!r}")
        for name, digest in manifest["files"].items():
            if _sha256(path / name) != digest:
                raise CheckpointError(
                    f"checkpoint file {path / name} is damaged: its sha256 is not the manifest's."
                )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"checkpoint {path} is damaged: {error}.") from error
    return manifest


def _differences(saved: Any, asked: Any, where: str = "") -> list[str]:
    """Fields that differ, as `a.b: saved 1, asked 2`."""
    if isinstance(saved, dict) and isinstance(asked, dict):
        found = []
        for key in sorted(set(saved) | set(asked)):
            found += _differences(
                saved.get(key), asked.get(key), f"{where}.{key}" if where else key
            )
        return found
    return [] if saved == asked else [f"{where}: saved {saved!r}, asked {asked!r}"]


def _json(value: Any) -> bytes:
    return json.dumps(value, indent=1, sort_keys=True).encode()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
