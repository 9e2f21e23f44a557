"""Weights of Wan 2.1 and 2.2 video transformers (diffusers' names) as our video tower.

Wan has no text stream: its text enters by cross-attention alone. The text stream of dual blocks
starts as a copy of the video's; set `model.video.text_bias` to -inf for Wan itself, or to a large
negative number and raise it to 0 while training.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from reelmill.errors import CheckpointError
from reelmill.model.config import MMDiTConfig

_ENDS = {
    "condition_embedder.time_embedder.linear_1": "video.time.0",
    "condition_embedder.time_embedder.linear_2": "video.time.2",
    "condition_embedder.time_proj": "video.time_six",
    "condition_embedder.text_embedder.linear_1": "video.text.0",
    "condition_embedder.text_embedder.linear_2": "video.text.2",
}


def wan_video_weights(state: Mapping[str, Tensor], config: MMDiTConfig) -> dict[str, Tensor]:
    """Parameters of `MMDiT`'s video tower by our names, for `load_state_dict(strict=False)`.

    state: of diffusers' WanTransformer3DModel, text to video (in_channels = C). The columns of the
    patch embedding for I and M are zero, and velocities change their sign: Wan predicts
    eps - z0. Raises CheckpointError for a state of other names or sizes.
    """
    video = config.video
    out: dict[str, Tensor] = {}
    try:
        for theirs, ours in _ENDS.items():
            for kind in ("weight", "bias"):
                out[f"{ours}.{kind}"] = state[f"{theirs}.{kind}"]
        out["video.inp.weight"] = _patch_embedding(state["patch_embedding.weight"], video.in_ch)
        out["video.inp.bias"] = state["patch_embedding.bias"]
        out["video.keyframe"] = torch.zeros_like(out["video.inp.bias"])  # Wan has no keyframes
        out["video.adaln.table"] = state["scale_shift_table"][0]
        out["video.head.weight"] = -state["proj_out.weight"]
        out["video.head.bias"] = -state["proj_out.bias"]
        for i in range(video.blocks):
            block = {k.removeprefix(f"blocks.{i}."): v for k, v in state.items()}
            where = f"layers.{i}.video"
            for stream in ("x", "c") if i < video.dual else ("shared",):
                out |= {f"{where}.{stream}.{k}": v for k, v in _stream(block).items()}
            out |= {f"{where}.text.{k}": v for k, v in _text(block).items()}
    except KeyError as error:
        raise CheckpointError(
            f"these are no weights of a Wan transformer with {video.blocks} blocks: {error} is "
            "missing."
        ) from error
    if f"blocks.{video.blocks}.scale_shift_table" in state:
        raise CheckpointError(f"these weights have more blocks than this config's {video.blocks}.")
    return out


def _patch_embedding(weight: Tensor, channels: int) -> Tensor:
    """Conv3d [dim, C, 1, 2, 2] -> Linear [dim, 4 * channels], channels fastest, new ones zero."""
    missing = channels - weight.shape[1]
    weight = torch.nn.functional.pad(weight.movedim(1, -1), (0, missing))
    return weight.flatten(1)


def _stream(block: Mapping[str, Tensor]) -> dict[str, Tensor]:
    out = {"adaln.table": block["scale_shift_table"][0]}
    for kind in ("weight", "bias"):
        out[f"qkv.{kind}"] = torch.cat([block[f"attn1.to_{n}.{kind}"] for n in "qkv"])
        out[f"out.{kind}"] = block[f"attn1.to_out.0.{kind}"]
        out[f"mlp.0.{kind}"] = block[f"ffn.net.0.proj.{kind}"]
        out[f"mlp.2.{kind}"] = block[f"ffn.net.2.{kind}"]
    return out | {f"qk_norm.{n}.weight": block[f"attn1.norm_{n}.weight"] for n in "qk"}


def _text(block: Mapping[str, Tensor]) -> dict[str, Tensor]:
    out = {}
    for kind in ("weight", "bias"):
        out[f"norm.{kind}"] = block[f"norm2.{kind}"]
        out[f"q.{kind}"] = block[f"attn2.to_q.{kind}"]
        out[f"kv.{kind}"] = torch.cat([block[f"attn2.to_{n}.{kind}"] for n in "kv"])
        out[f"out.{kind}"] = block[f"attn2.to_out.0.{kind}"]
    return out | {f"qk_norm.{n}.weight": block[f"attn2.norm_{n}.weight"] for n in "qk"}
