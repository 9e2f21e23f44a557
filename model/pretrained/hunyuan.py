"""Weights of HunyuanVideo-1.5 (diffusers' names) as our video tower: all blocks are dual.

Its input is already Concat(V, I, M), its text stream ours. What it has beside, we do not: a token
refiner in front of the text, ByT5 glyphs and an image encoder; our text projection and text
cross-attention are new, the latter with zero output.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from reelmill.errors import CheckpointError
from reelmill.model.config import MMDiTConfig, TowerConfig
from reelmill.model.pretrained.source import Source

THETA = 256.0
BLOCKS = "transformer_blocks"


def is_hunyuan(state: Mapping[str, Tensor]) -> bool:
    return f"{BLOCKS}.0.attn.add_q_proj.weight" in state and "x_embedder.proj.weight" in state


def hunyuan_config(state: Mapping[str, Tensor], text_dim: int | None = None) -> MMDiTConfig:
    """The video tower that these weights fit. text_dim: of our prompts; HunyuanVideo's own where
    None. Of a head's dimensions, (16, 56, 56) of 128 turn for time, height and width."""
    source = Source(state)
    dim, channels, *patch = source["x_embedder.proj.weight"].shape
    head = source[f"{BLOCKS}.0.attn.norm_q.weight"].shape[0]
    plane = 2 * (7 * head // 32)
    video = TowerConfig(
        dim=dim,
        heads=dim // head,
        ffn=source[f"{BLOCKS}.0.ff.net.0.proj.weight"].shape[0],
        dual=source.count(BLOCKS),
        single=0,
        in_ch=channels,
        out_ch=source["proj_out.weight"].shape[0] // max(1, int(torch.tensor(patch).prod())),
        patch=tuple(patch),
        text_dim=text_dim or source["context_embedder.proj_in.weight"].shape[1],
        text_xattn=True,
        qk_norm="head",
        adaln="linear",
        rope_dims=(head - 2 * plane, plane, plane),
        rope_theta=THETA,
    )
    return MMDiTConfig(video, None)


def hunyuan_video_weights(
    state: Mapping[str, Tensor] | Source, config: MMDiTConfig
) -> dict[str, Tensor]:
    """Parameters of the video tower by our names; those of text (`video.text`) are not among them.

    Velocities change their sign. Raises CheckpointError for other names, and for patches of more
    than one cell, whose order would differ.
    """
    source = state if isinstance(state, Source) else Source(state)
    video = config.video
    if max(video.patch) > 1:
        raise CheckpointError(f"HunyuanVideo-1.5 has patches of one cell, not {video.patch}.")
    embedding = source["x_embedder.proj.weight"]
    out = {
        "video.inp.weight": embedding.flatten(1),
        "video.inp.bias": source["x_embedder.proj.bias"],
        "video.keyframe": torch.zeros_like(source["x_embedder.proj.bias"]),
        "video.head.weight": -source["proj_out.weight"],
        "video.head.bias": -source["proj_out.bias"],
    }
    out |= source.linear("time_embed.timestep_embedder.linear_1", "video.time.0")
    out |= source.linear("time_embed.timestep_embedder.linear_2", "video.time.2")
    for kind in ("weight", "bias"):  # theirs: scale, shift; ours: shift, scale
        scale, shift = source[f"norm_out.linear.{kind}"].chunk(2)
        out[f"video.adaln.linear.{kind}"] = torch.cat((shift, scale))
    for i in range(video.blocks):
        out |= block_weights(source, f"{BLOCKS}.{i}", f"layers.{i}.video")
        out[f"layers.{i}.video.text.out.weight"] = embedding.new_zeros(video.dim, video.dim)
        out[f"layers.{i}.video.text.out.bias"] = embedding.new_zeros(video.dim)
    if f"{BLOCKS}.{video.blocks}.norm1.linear.weight" in source:
        raise CheckpointError(f"these weights have more blocks than this config's {video.blocks}.")
    return out


def block_weights(source: Source, theirs: str, ours: str) -> dict[str, Tensor]:
    """One dual block: streams x and c."""
    out: dict[str, Tensor] = {}
    names = {
        "x": ("norm1", "to_{}", "to_out.0", "ff", "norm_{}"),
        "c": ("norm1_context", "add_{}_proj", "to_add_out", "ff_context", "norm_added_{}"),
    }
    for stream, (adaln, qkv, o, mlp, norm) in names.items():
        where = f"{ours}.{stream}"
        out |= source.linear(f"{theirs}.{adaln}.linear", f"{where}.adaln.linear")
        for kind in ("weight", "bias"):
            parts = [source[f"{theirs}.attn.{qkv.format(n)}.{kind}"] for n in "qkv"]
            out[f"{where}.qkv.{kind}"] = torch.cat(parts)
        out |= source.linear(f"{theirs}.attn.{o}", f"{where}.out")
        out |= source.linear(f"{theirs}.{mlp}.net.0.proj", f"{where}.mlp.0")
        out |= source.linear(f"{theirs}.{mlp}.net.2", f"{where}.mlp.2")
        for n in "qk":
            out[f"{where}.qk_norm.{n}.weight"] = source[f"{theirs}.attn.{norm.format(n)}.weight"]
    return out
