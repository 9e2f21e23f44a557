"""A model of ours as one safetensors file, by our names or by Wan's."""

from __future__ import annotations

import os
from pathlib import Path

import safetensors.torch
import torch

from reelmill.errors import UsageError
from reelmill.model.mmdit import part_of
from reelmill.model.pretrained.wan import wan_state
from reelmill.model.weights_file import read_model

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def export_weights(
    folder: Path, output: Path, *, names: str = "reelmill", dtype: str = "keep"
) -> tuple[list[str], int]:
    """Writes the weights of a model folder; gives what was left out, and the number of parameters.

    names: `reelmill`, everything; `wan`, the video tower as diffusers' WanTransformer3DModel. The
    file is there whole or not at all. Raises UsageError for other names, dtypes or suffixes, and
    CheckpointError for a folder that is no model or not of Wan's kind.
    """
    if names not in ("reelmill", "wan"):
        raise UsageError(f"names {names!r}; there are: reelmill, wan.")
    if dtype != "keep" and dtype not in DTYPES:
        raise UsageError(f"dtype {dtype!r}; there are: keep, {', '.join(DTYPES)}.")
    if output.suffix != ".safetensors":
        raise UsageError(f"output {output}: name it *.safetensors.")
    model, _ = read_model(folder)
    weights, left = dict(model.state_dict()), []
    if names == "wan":
        video = {name: value for name, value in weights.items() if part_of(name) == "video"}
        left = [name for name in weights if name not in video]
        weights, more = wan_state(video, model.config)
        left = sorted(left) + more
    if dtype != "keep":
        weights = {name: value.to(DTYPES[dtype]) for name, value in weights.items()}
    output.parent.mkdir(parents=True, exist_ok=True)
    temporary = output.with_name(f".{output.name}.tmp-{os.getpid()}")
    try:
        data = {name: value.contiguous() for name, value in weights.items()}
        safetensors.torch.save_file(data, temporary, metadata={"format": "pt"})
        temporary.replace(output)
    finally:
        temporary.unlink(missing_ok=True)
    return left, sum(value.numel() for value in weights.values())
