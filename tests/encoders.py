"""Small picture encoders with random weights, saved by transformers as published ones are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Family:
    """reader, processor: classes of transformers that read the folder. output: its vectors."""

    reader: str
    processor: str
    output: str


FAMILIES = {
    "clip": Family("CLIPVisionModelWithProjection", "CLIPImageProcessorPil", "image_embeds"),
    "siglip": Family("SiglipVisionModel", "SiglipImageProcessorPil", "pooler_output"),
    "dinov2": Family("Dinov2Model", "BitImageProcessorPil", "pooler_output"),
}
_SIZES = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 32,
    "patch_size": 8,
}


def make_encoder(folder: Path, family: str, *, width: int = 24, seed: int = 0) -> Path:
    """A folder with config, preparation and safetensors. width: of CLIP's vectors."""
    import torch
    import transformers

    torch.manual_seed(seed)
    if family == "clip":  # whole, with its text tower, as published
        text = {"vocab_size": 99, "hidden_size": 16, "intermediate_size": 32}
        text |= {"num_hidden_layers": 1, "num_attention_heads": 2}
        config = transformers.CLIPConfig(
            text_config=text,
            vision_config=_SIZES | {"projection_dim": width},
            projection_dim=width,
        )
        network = transformers.CLIPModel(config)
    elif family == "siglip":
        network = transformers.SiglipVisionModel(transformers.SiglipVisionConfig(**_SIZES))
    else:
        sizes = _SIZES | {"mlp_ratio": 2}
        network = transformers.Dinov2Model(transformers.Dinov2Config(**sizes))
    with torch.no_grad():
        for weight in network.parameters():
            weight.add_(torch.randn_like(weight) * 0.1)
    network.save_pretrained(folder)
    sizes = {"size": {"height": 32, "width": 32}}
    if family != "siglip":
        short = 36 if family == "dinov2" else 32
        sizes = {"size": {"shortest_edge": short}, "crop_size": {"height": 32, "width": 32}}
    getattr(transformers, FAMILIES[family].processor)(**sizes).save_pretrained(folder)
    return folder
