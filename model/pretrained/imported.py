"""A published video transformer as a model folder of ours, with an account of every tensor."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from reelmill.errors import CheckpointError, WeightsError
from reelmill.model.codecs.saved import read_json
from reelmill.model.config import MMDiTConfig
from reelmill.model.mmdit import MMDiT
from reelmill.model.pretrained.hunyuan import hunyuan_config, hunyuan_video_weights, is_hunyuan
from reelmill.model.pretrained.source import Source, read_weights, weight_files
from reelmill.model.pretrained.wan import diffusers_names, is_wan, wan_config, wan_video_weights
from reelmill.model.weights_file import write_model


@dataclass(frozen=True)
class Imported:
    """family: `wan` or `hunyuan-video-1.5`. weights: all parameters of the video tower. unmatched:
    their tensors that we have no place for. fresh: our parameters that they do not have, which
    were initialised. files: name and sha256 of what was read."""

    family: str
    config: MMDiTConfig
    weights: dict[str, Tensor]
    unmatched: list[str]
    fresh: list[str]
    files: dict[str, str]

    def save(self, folder: Path) -> None:
        details: dict[str, Any] = {
            "provenance": {
                "imported": self.family,
                "files": self.files,
                "unmatched": self.unmatched,
                "fresh": self.fresh,
            }
        }
        write_model(folder, self.config, self.weights, details)


def import_video(
    place: Path, *, dual: int | None = None, heads: int | None = None, text_dim: int | None = None
) -> Imported:
    """Reads Wan 2.1/2.2, SkyReels-V2/V3 (original and diffusers' names) or HunyuanVideo-1.5.

    place: a safetensors file, or a folder with some. dual: dual blocks of Wan's; a third where
    None. heads: of Wan's; from a config.json beside the weights, else 128 wide. text_dim: of
    prompts for HunyuanVideo. Raises WeightsError for a place without weights or of an unknown
    family, CheckpointError for damaged ones.
    """
    files = weight_files(place)
    state = read_weights(files)
    if is_wan(state):
        state = diffusers_names(state)
        beside = files[0].with_name("config.json")
        if heads is None and beside.is_file():
            named = read_json(beside)
            found = named.get("num_attention_heads", named.get("num_heads"))
            heads = found if isinstance(found, int) and found > 0 else None
        family, config = "wan", wan_config(state, dual=dual, heads=heads)
        source = Source(state)
        weights = wan_video_weights(source, config)
    elif is_hunyuan(state):
        family, config = "hunyuan-video-1.5", hunyuan_config(state, text_dim)
        source = Source(state)
        weights = hunyuan_video_weights(source, config)
    else:
        some = ", ".join(sorted(state)[:3]) or "nothing"
        raise WeightsError(
            f"{place} holds {some}, ...: no Wan, SkyReels-V2/V3 or HunyuanVideo-1.5 transformer."
        )
    weights, fresh = _completed(weights, config)
    digests = {path.name: _sha256(path) for path in files}
    return Imported(family, config, weights, source.unmatched, fresh, digests)


def _completed(
    weights: dict[str, Tensor], config: MMDiTConfig
) -> tuple[dict[str, Tensor], list[str]]:
    """Fills in what is missing, as `MMDiT.initialise` does. Raises CheckpointError for a tensor of
    another size, or one that is not finite."""
    with torch.device("meta"):
        wanted = MMDiT(config).state_dict()
    first = next(iter(weights.values()))
    torch.manual_seed(0)
    out, fresh = {}, []
    for name, like in wanted.items():
        if name in weights:
            value = weights[name]
            if value.shape != like.shape:
                raise CheckpointError(
                    f"{name} would be {tuple(value.shape)}; {tuple(like.shape)} is wanted. Is "
                    "`heads` right?"
                )
            if not bool(value.isfinite().all()):
                raise CheckpointError(f"{name} holds numbers that are not finite.")
        else:
            value = _initial(name, like).to(first.dtype)
            fresh.append(name)
        out[name] = value.contiguous()
    return out, fresh


def _initial(name: str, like: Tensor) -> Tensor:
    value = torch.zeros(like.shape)
    if like.ndim == 2:
        if name.startswith("video.text."):
            nn.init.normal_(value, std=0.02)
        else:
            nn.init.xavier_uniform_(value)
    elif name.endswith("weight"):  # norms
        nn.init.ones_(value)
    return value


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
