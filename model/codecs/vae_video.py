"""Published video autoencoders: Wan 2.1 and 2.2, HunyuanVideo-1.5, LTX-2 (through diffusers)."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from reelmill.errors import CheckpointError
from reelmill.model.codecs.published import digest_parts, open_published, write_published
from reelmill.model.codecs.saved import codec_digest, read_json, write_head

WAN, HUNYUAN, LTX = "AutoencoderKLWan", "AutoencoderKLHunyuanVideo15", "AutoencoderKLLTX2Video"
CLASSES = (WAN, HUNYUAN, LTX)


class VAEVideo:
    """model: one of the classes above, frozen. Latents are the posterior's mode, normalised as its
    publisher says: per channel (Wan, LTX-2) or by one factor (HunyuanVideo-1.5)."""

    kind: ClassVar[str] = "VAEVideo"
    version: ClassVar[int] = 1

    def __init__(self, model: Any):
        self.model = model
        self.family = type(model).__name__
        if self.family not in CLASSES:
            raise CheckpointError(f"{self.family} is no video autoencoder; {', '.join(CLASSES)}.")
        config = self.model.config
        if self.family == WAN:
            self.channels = int(config.z_dim)
            time, space = config.scale_factor_temporal, config.scale_factor_spatial
            mean, std = torch.tensor(config.latents_mean), torch.tensor(config.latents_std)
        else:
            self.channels = int(config.latent_channels)
            time, space = _strides(self.family, config)
            mean, std = torch.zeros(self.channels), torch.ones(self.channels)
            if self.family == LTX:
                mean, std = self.model.latents_mean, self.model.latents_std
            std = std / config.scaling_factor
        if len(mean) != self.channels or len(std) != self.channels or not bool((std > 0).all()):
            raise CheckpointError(
                f"{self.family}: {len(mean)} means and {len(std)} deviations of {self.channels} "
                "channels, above zero, are wanted."
            )
        self.stride = (int(time), int(space), int(space))
        self._mean, self._std = mean.float(), std.float()

    @classmethod
    def open(cls, folder: Path) -> VAEVideo:
        """From a publisher's folder (`vae/` of a diffusers pipeline). Raises WeightsError or
        CheckpointError."""
        return cls(open_published(folder, CLASSES))

    @torch.no_grad()
    def encode(self, pixels: Tensor) -> Tensor:
        """float [B, 3, F, H, W] in [-1, 1] -> [B, C, T, h, w]. Raises ValueError unless F is 1 + a
        multiple of stride[0], and H, W are multiples of stride[1]."""
        frames, *sides = pixels.shape[2:]
        if (frames - 1) % self.stride[0] or any(n < 1 or n % self.stride[1] for n in sides):
            raise ValueError(
                f"{frames} frames of {sides[0]} x {sides[1]} pixels: 1 + a multiple of "
                f"{self.stride[0]} frames and multiples of {self.stride[1]} pixels are wanted"
            )
        z = self.model.encode(pixels.to(self._weight)).latent_dist.mode()
        mean, std = self._scale(z)
        return ((z - mean) / std).to(pixels.dtype)

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """[B, C, T, h, w] -> float [B, 3, F, H, W]."""
        return self.model.decode(self._raw(latents)).sample.to(latents.dtype)

    @torch.no_grad()
    def stream(self, latents: Tensor) -> Iterator[Tensor]:
        """`decode`, piece after piece along time, each as soon as it is there, so that only one is
        in memory. Wan's causal decoder does a latent frame at a time; the others all at once."""
        if self.family != WAN:
            yield self.decode(latents)
            return
        from diffusers.models.autoencoders.autoencoder_kl_wan import unpatchify

        model = self.model
        z = model.post_quant_conv(self._raw(latents))
        model.clear_cache()
        try:
            for i in range(z.shape[2]):
                model._conv_idx = [0]
                first = {"first_chunk": True} if i == 0 else {}
                piece = model.decoder(
                    z[:, :, i : i + 1],
                    feat_cache=model._feat_map,
                    feat_idx=model._conv_idx,
                    **first,
                )
                if model.config.patch_size is not None:
                    piece = unpatchify(piece, patch_size=model.config.patch_size)
                yield piece.clamp(-1, 1).to(latents.dtype)
        finally:
            model.clear_cache()

    def fingerprint(self) -> str:
        return self._digest

    def save(self, folder: Path) -> None:
        write_published(folder / "vae", self.model)
        write_head(folder, self.kind, self.version, {"family": self.family})

    @classmethod
    def load(cls, folder: Path) -> VAEVideo:
        """Raises CheckpointError for a folder that is no such codec."""
        head = read_json(folder / "codec.json")
        if (head.get("kind"), head.get("version")) != (cls.kind, cls.version):
            raise CheckpointError(
                f"codec {folder} is {head.get('kind')!r} {head.get('version')!r}; {cls.kind!r} "
                f"{cls.version} is wanted."
            )
        return cls.open(folder / "vae")

    @cached_property
    def _digest(self) -> str:
        return codec_digest(self.kind, self.version, *digest_parts(self.model))

    @property
    def _weight(self) -> Tensor:
        return next(self.model.parameters())

    def _scale(self, z: Tensor) -> tuple[Tensor, Tensor]:
        return self._mean.to(z)[:, None, None, None], self._std.to(z)[:, None, None, None]

    def _raw(self, latents: Tensor) -> Tensor:
        z = latents.to(self._weight)
        mean, std = self._scale(z)
        return z * std + mean


def _strides(family: str, config: Any) -> tuple[int, int]:
    """Pixels per latent in time and space. LTX-2's are counted from its layers: those that its
    class works out without them in the config are of another version."""
    if family == HUNYUAN:
        return config.temporal_compression_ratio, config.spatial_compression_ratio
    scaling = config.spatio_temporal_scaling
    types = config.downsample_type
    used = [t for t, on in zip(types, scaling, strict=False) if on]
    time = sum(t in ("temporal", "spatiotemporal") for t in used)
    space = sum(t in ("spatial", "spatiotemporal") for t in used)
    return config.patch_size_t * 2**time, config.patch_size * 2**space
