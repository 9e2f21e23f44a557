"""MMAudio's published autoencoder of sound and its vocoder (through diffusers)."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from reelmill.errors import CheckpointError
from reelmill.model.codecs.published import digest_parts, open_published, write_published
from reelmill.model.codecs.saved import codec_digest, read_json, write_head

VAE, VOCODER = "MMAudioVAE", "MMAudioVocoder"


class VAEAudio:
    """vae: MMAudioVAE; vocoder: MMAudioVocoder (BigVGAN v2), both frozen. At 44.1 kHz 1024 samples
    are a token: 5.0625 s are the paper's 218."""

    kind: ClassVar[str] = "VAEAudio"
    version: ClassVar[int] = 1

    def __init__(self, vae: Any, vocoder: Any):
        self.vae, self.vocoder = vae, vocoder
        config = self.vae.config
        self.channels, self.rate = int(config.latent_channels), int(config.sample_rate)
        self.hop = int(self.vae.latent_hop_length)
        up = 1
        for rate in self.vocoder.config.upsample_rates:
            up *= rate
        if 2 * up != self.hop or self.vocoder.config.num_mels != config.mel_bins:
            raise CheckpointError(
                f"vocoder of {self.vocoder.config.num_mels} mels, {up} samples each; the "
                f"autoencoder has {config.mel_bins} of {self.hop // 2}."
            )

    @classmethod
    def open(cls, vae: Path, vocoder: Path) -> VAEAudio:
        """From publishers' folders. Raises WeightsError or CheckpointError."""
        return cls(open_published(vae, (VAE,)), open_published(vocoder, (VOCODER,)))

    @torch.no_grad()
    def encode(self, samples: Tensor) -> Tensor:
        """float [B, n] in [-1, 1] -> [B, C, n // hop]: samples that fill no token are left out, as
        the paper's 218 wants. Raises ValueError below two tokens, which MMAudio's front end needs.
        """
        whole = samples.shape[-1] // self.hop * self.hop
        if samples.ndim != 2 or whole < 2 * self.hop:
            raise ValueError(
                f"samples of shape {tuple(samples.shape)}: [B, {2 * self.hop} or more]"
            )
        z = self.vae.encode(samples[:, :whole].to(self._weight)).latent_dist.mode()
        return (z * self.vae.config.scaling_factor).to(samples.dtype)

    @torch.no_grad()
    def decode(self, latents: Tensor, samples: int | None = None) -> Tensor:
        """[B, C, L] -> float [B, samples], L * hop of them by default; where more are wanted, the
        last token goes on."""
        samples = latents.shape[2] * self.hop if samples is None else samples
        missing = -(-samples // self.hop) - latents.shape[2]
        if missing > 0:
            latents = F.pad(latents, (0, missing), mode="replicate")
        z = latents.to(self._weight) / self.vae.config.scaling_factor
        sound = self.vocoder(self.vae.decode(z).sample).sample
        return sound[:, 0, :samples].to(latents.dtype)

    def fingerprint(self) -> str:
        """Of what latents mean: the vocoder does not change that."""
        return self._digest

    def save(self, folder: Path) -> None:
        write_published(folder / "vae", self.vae)
        write_published(folder / "vocoder", self.vocoder)
        write_head(folder, self.kind, self.version, {})

    @classmethod
    def load(cls, folder: Path) -> VAEAudio:
        """Raises CheckpointError for a folder that is no such codec."""
        head = read_json(folder / "codec.json")
        if (head.get("kind"), head.get("version")) != (cls.kind, cls.version):
            raise CheckpointError(
                f"codec {folder} is {head.get('kind')!r} {head.get('version')!r}; {cls.kind!r} "
                f"{cls.version} is wanted."
            )
        return cls.open(folder / "vae", folder / "vocoder")

    @cached_property
    def _digest(self) -> str:
        return codec_digest(self.kind, self.version, *digest_parts(self.vae))

    @property
    def _weight(self) -> Tensor:
        return next(self.vae.parameters())
