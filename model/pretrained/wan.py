"""Weights of Wan 2.1 and 2.2 video transformers as our video tower, and back.

SkyReels-V2 and V3 bear the same names. Names are those of diffusers' WanTransformer3DModel;
`diffusers_names` brings the original ones there. Wan has no text stream: its text enters by
cross-attention alone. The text stream of dual blocks starts as a copy of the video's; set
`model.video.text_bias` to -inf for Wan itself, or to a large negative number and raise it to 0
while training.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from reelmill.errors import CheckpointError
from reelmill.model.config import MMDiTConfig, TowerConfig
from reelmill.model.pretrained.source import Source

_ENDS = {
    "condition_embedder.time_embedder.linear_1": "video.time.0",
    "condition_embedder.time_embedder.linear_2": "video.time.2",
    "condition_embedder.time_proj": "video.time_six",
    "condition_embedder.text_embedder.linear_1": "video.text.0",
    "condition_embedder.text_embedder.linear_2": "video.text.2",
}

# Original names and those of diffusers.
_TOP = {
    "time_embedding.0": "condition_embedder.time_embedder.linear_1",
    "time_embedding.2": "condition_embedder.time_embedder.linear_2",
    "time_projection.1": "condition_embedder.time_proj",
    "text_embedding.0": "condition_embedder.text_embedder.linear_1",
    "text_embedding.2": "condition_embedder.text_embedder.linear_2",
    "head.head": "proj_out",
}
_BLOCK = {
    **{f"self_attn.{n}": f"attn1.to_{n}" for n in "qkv"},
    **{f"cross_attn.{n}": f"attn2.to_{n}" for n in "qkv"},
    "self_attn.o": "attn1.to_out.0",
    "cross_attn.o": "attn2.to_out.0",
    **{f"self_attn.norm_{n}": f"attn1.norm_{n}" for n in "qk"},
    **{f"cross_attn.norm_{n}": f"attn2.norm_{n}" for n in "qk"},
    "norm3": "norm2",
    "ffn.0": "ffn.net.0.proj",
    "ffn.2": "ffn.net.2",
}


def is_wan(state: Mapping[str, Tensor]) -> bool:
    """Whether these are a Wan transformer's names, original or diffusers'."""
    return "patch_embedding.weight" in state and any(
        f"blocks.0.{attention}.weight" in state for attention in ("attn1.to_q", "self_attn.q")
    )


def diffusers_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Original Wan names as those of diffusers; names that are not Wan's stay as they are."""
    if "blocks.0.attn1.to_q.weight" in state:
        return dict(state)
    return {_diffusers_name(name): value for name, value in state.items()}


def _diffusers_name(name: str) -> str:
    if name == "head.modulation":
        return "scale_shift_table"
    block = re.fullmatch(r"(blocks\.\d{1,4})\.(.+)", name)
    if block and block[2] == "modulation":
        return f"{block[1]}.scale_shift_table"
    place, _, kind = (block[2] if block else name).rpartition(".")
    renamed = (_BLOCK if block else _TOP).get(place)
    if renamed is None:
        return name
    return f"{block[1]}.{renamed}.{kind}" if block else f"{renamed}.{kind}"


def wan_config(state: Mapping[str, Tensor], *, dual: int | None, heads: int | None) -> MMDiTConfig:
    """The video tower that these weights (diffusers' names) fit.

    dual: dual blocks; a third of all where None. heads: 128 wide where None, as all published ones.
    """
    source = Source(state)
    dim, _, *patch = source["patch_embedding.weight"].shape
    channels = source["proj_out.weight"].shape[0] // max(1, int(torch.tensor(patch).prod()))
    blocks = source.count("blocks")
    dual = blocks // 3 if dual is None else min(dual, blocks)
    video = TowerConfig(
        dim=dim,
        heads=heads or max(1, dim // 128),
        ffn=source["blocks.0.ffn.net.0.proj.weight"].shape[0],
        dual=dual,
        single=blocks - dual,
        in_ch=2 * channels + 1,
        out_ch=channels,
        patch=tuple(patch),
        text_dim=source["condition_embedder.text_embedder.linear_1.weight"].shape[1],
        text_xattn=True,
    )
    return MMDiTConfig(video, None)


def wan_video_weights(
    state: Mapping[str, Tensor] | Source, config: MMDiTConfig
) -> dict[str, Tensor]:
    """Parameters of `MMDiT`'s video tower by our names, for `load_state_dict(strict=False)`.

    state: by diffusers' names; a `Source` knows afterwards what was not used. In text-to-video
    models, the columns of the patch embedding for I and M are zero. Image-to-video ones (C noisy, 4
    of mask, C of image) have them: M stands for the sum of their four, which are equal. Velocities
    change their sign: Wan predicts eps - z0. Raises CheckpointError for other names or sizes.
    """
    source = state if isinstance(state, Source) else Source(state)
    video = config.video
    out: dict[str, Tensor] = {}
    try:
        for theirs, ours in _ENDS.items():
            out |= source.linear(theirs, ours)
        out["video.inp.weight"] = _patch_embedding(source["patch_embedding.weight"], video)
        out["video.inp.bias"] = source["patch_embedding.bias"]
        out["video.keyframe"] = torch.zeros_like(out["video.inp.bias"])  # Wan has no keyframes
        out["video.adaln.table"] = source["scale_shift_table"][0]
        out["video.head.weight"] = -source["proj_out.weight"]
        out["video.head.bias"] = -source["proj_out.bias"]
        for i in range(video.blocks):
            theirs, where = f"blocks.{i}", f"layers.{i}.video"
            for stream in ("x", "c") if i < video.dual else ("shared",):
                # Copies: streams that share memory would be one parameter.
                parts = _stream(source, theirs).items()
                out |= {f"{where}.{stream}.{k}": v.clone() for k, v in parts}
            out |= {f"{where}.text.{k}": v for k, v in _text(source, theirs).items()}
    except CheckpointError as error:
        raise CheckpointError(
            f"these are no weights of a Wan transformer with {video.blocks} blocks: {error} "
            "It is missing."
        ) from error
    if f"blocks.{video.blocks}.scale_shift_table" in source:
        raise CheckpointError(f"these weights have more blocks than this config's {video.blocks}.")
    return out


def wan_state(weights: Mapping[str, Tensor], config: MMDiTConfig) -> tuple[dict[str, Tensor], list]:
    """Our video tower by diffusers' Wan names (text to video), and our names that were left out.

    Wan has no text stream, no inputs for I and M and no keyframes: the streams of dual blocks are
    named as left out, and of the patch embedding the columns of I and M. Raises CheckpointError for
    a config that is not Wan's.
    """
    video = config.video
    if video.adaln != "table" or video.qk_norm != "full" or not video.text_xattn:
        raise CheckpointError(
            "this model's blocks are not Wan's: it cannot be written by its names"
        )
    source = Source(weights)
    out: dict[str, Tensor] = {}
    for theirs, ours in _ENDS.items():
        out |= source.linear(ours, theirs)
    embedding = source["video.inp.weight"].unflatten(1, (*video.patch, video.in_ch))
    out["patch_embedding.weight"] = embedding[..., : video.out_ch].movedim(-1, 1).contiguous()
    out["patch_embedding.bias"] = source["video.inp.bias"]
    out["scale_shift_table"] = source["video.adaln.table"][None]
    out["proj_out.weight"] = -source["video.head.weight"]
    out["proj_out.bias"] = -source["video.head.bias"]
    for i in range(video.blocks):
        stream = f"layers.{i}.video.{'x' if i < video.dual else 'shared'}"
        text, theirs = f"layers.{i}.video.text", f"blocks.{i}"
        out[f"{theirs}.scale_shift_table"] = source[f"{stream}.adaln.table"][None]
        for kind in ("weight", "bias"):
            parts = [
                *source[f"{stream}.qkv.{kind}"].chunk(3),
                *source[f"{text}.kv.{kind}"].chunk(2),
            ]
            names = [*(f"attn1.to_{n}" for n in "qkv"), *(f"attn2.to_{n}" for n in "kv")]
            out |= {f"{theirs}.{n}.{kind}": p for n, p in zip(names, parts, strict=True)}
        out |= source.linear(f"{stream}.out", f"{theirs}.attn1.to_out.0")
        out |= source.linear(f"{stream}.mlp.0", f"{theirs}.ffn.net.0.proj")
        out |= source.linear(f"{stream}.mlp.2", f"{theirs}.ffn.net.2")
        out |= source.linear(f"{text}.norm", f"{theirs}.norm2")
        out |= source.linear(f"{text}.q", f"{theirs}.attn2.to_q")
        out |= source.linear(f"{text}.out", f"{theirs}.attn2.to_out.0")
        for n in "qk":
            out[f"{theirs}.attn1.norm_{n}.weight"] = source[f"{stream}.qk_norm.{n}.weight"]
            out[f"{theirs}.attn2.norm_{n}.weight"] = source[f"{text}.qk_norm.{n}.weight"]
    left = [*source.unmatched, "video.inp.weight: columns of I and M"]
    return {name: value.clone() for name, value in out.items()}, left


def _patch_embedding(weight: Tensor, video: TowerConfig) -> Tensor:
    """Conv3d [dim, C, 1, 2, 2] -> Linear [dim, 4 * in_ch], channels fastest, new ones zero."""
    channels, found = video.out_ch, weight.shape[1]
    weight = weight.movedim(1, -1)
    if found == 2 * channels + 4 and video.in_ch == 2 * channels + 1:
        noisy, mask, image = weight.split((channels, 4, channels), -1)
        weight = torch.cat((noisy, image, mask.sum(-1, keepdim=True)), -1)
    elif found > video.in_ch:
        raise CheckpointError(
            f"patch_embedding takes {found} channels; {channels} (text to video) or "
            f"{2 * channels + 4} (image to video) are wanted."
        )
    missing = video.in_ch - weight.shape[-1]
    return torch.nn.functional.pad(weight, (0, missing)).flatten(1)


def _stream(source: Source, block: str) -> dict[str, Tensor]:
    out = {"adaln.table": source[f"{block}.scale_shift_table"][0]}
    for kind in ("weight", "bias"):
        out[f"qkv.{kind}"] = torch.cat([source[f"{block}.attn1.to_{n}.{kind}"] for n in "qkv"])
    out |= source.linear(f"{block}.attn1.to_out.0", "out")
    out |= source.linear(f"{block}.ffn.net.0.proj", "mlp.0")
    out |= source.linear(f"{block}.ffn.net.2", "mlp.2")
    norms = {f"qk_norm.{n}.weight": source[f"{block}.attn1.norm_{n}.weight"] for n in "qk"}
    return out | norms


def _text(source: Source, block: str) -> dict[str, Tensor]:
    out = source.linear(f"{block}.norm2", "norm") | source.linear(f"{block}.attn2.to_q", "q")
    out |= source.linear(f"{block}.attn2.to_out.0", "out")
    for kind in ("weight", "bias"):
        out[f"kv.{kind}"] = torch.cat([source[f"{block}.attn2.to_{n}.{kind}"] for n in "kv"])
    return out | {f"qk_norm.{n}.weight": source[f"{block}.attn2.norm_{n}.weight"] for n in "qk"}
