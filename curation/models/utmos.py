"""UTMOS: how natural speech sounds, the strong learner of VoiceMOS 2022 (arXiv 2204.02152).

Written anew for the weights `utmos22_strong_step7459_v1.pt` that tarepan/SpeechMOS publishes: same
names, same shapes. A wav2vec 2.0 (base) hears the wave, a recurrent network rates its frames
beside the embeddings of one listener and one set of data, and the mean is the score.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from reelmill.curation.models.published import load_published

FILE = "utmos22_strong_step7459_v1.pt"
RATE = 16_000
MOST_S = 15.0
LEAST = 400  # samples: one frame


@dataclass(frozen=True)
class UTMOSConfig:
    """The published sizes; tests take smaller ones."""

    channels: int = 512
    width: int = 768
    inner: int = 3072
    heads: int = 12
    layers: int = 12
    kernel: int = 128
    groups: int = 16
    embedding: int = 128
    recurrent: int = 512
    projected: int = 2048


class _Wave(nn.Module):
    """Seven convolutions: 320 samples a frame."""

    def __init__(self, channels: int):
        super().__init__()
        sizes = ((10, 5), (3, 2), (3, 2), (3, 2), (3, 2), (2, 2), (2, 2))
        self.conv_layers = nn.ModuleList()
        for i, (kernel, stride) in enumerate(sizes):
            conv = nn.Conv1d(channels if i else 1, channels, kernel, stride, bias=False)
            norm = () if i else (nn.GroupNorm(channels, channels),)
            # The file counts a dropout between them.
            self.conv_layers.append(nn.Sequential(conv, nn.Identity(), *norm, nn.GELU()))

    def forward(self, wave: torch.Tensor) -> torch.Tensor:
        x = wave[:, None]
        for layer in self.conv_layers:
            x = layer(x)
        return x.transpose(1, 2)


class _Position(nn.Module):
    """A grouped convolution whose weight is a direction and a length for each tap."""

    def __init__(self, config: UTMOSConfig):
        super().__init__()
        shape = (config.width, config.width // config.groups, config.kernel)
        self.weight_g = nn.Parameter(torch.ones(1, 1, config.kernel))
        self.weight_v = nn.Parameter(torch.randn(shape) / config.width)
        self.bias = nn.Parameter(torch.zeros(config.width))
        self._groups = config.groups

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        length = self.weight_v.pow(2).sum(dim=(0, 1), keepdim=True).sqrt()
        weight = self.weight_v * (self.weight_g / length)
        padding = weight.shape[2] // 2
        found = functional.conv1d(
            x.transpose(1, 2), weight, self.bias, padding=padding, groups=self._groups
        )
        return functional.gelu(found[..., : x.shape[1]]).transpose(1, 2)


class _Heads(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (
            nn.Linear(width, width) for _ in range(4)
        )
        self._heads = heads

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        split = [
            linear(x).unflatten(2, (self._heads, -1)).transpose(1, 2)
            for linear in (self.q_proj, self.k_proj, self.v_proj)
        ]
        found = functional.scaled_dot_product_attention(*split)
        return self.out_proj(found.transpose(1, 2).flatten(2))


class _Layer(nn.Module):
    def __init__(self, config: UTMOSConfig):
        super().__init__()
        self.self_attn = _Heads(config.width, config.heads)
        self.self_attn_layer_norm = nn.LayerNorm(config.width)
        self.fc1 = nn.Linear(config.width, config.inner)
        self.fc2 = nn.Linear(config.inner, config.width)
        self.final_layer_norm = nn.LayerNorm(config.width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.self_attn_layer_norm(x + self.self_attn(x))
        return self.final_layer_norm(x + self.fc2(functional.gelu(self.fc1(x))))


class _Encoder(nn.Module):
    def __init__(self, config: UTMOSConfig):
        super().__init__()
        self.pos_conv = nn.Sequential(_Position(config))
        self.layer_norm = nn.LayerNorm(config.width)
        self.layers = nn.ModuleList(_Layer(config) for _ in range(config.layers))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.layer_norm(x + self.pos_conv(x))
        for layer in self.layers:
            x = layer(x)
        return x


class Wav2Vec2(nn.Module):
    """float32 [batch, samples] at 16 kHz to [batch, frames, width]."""

    def __init__(self, config: UTMOSConfig):
        super().__init__()
        self.feature_extractor = _Wave(config.channels)
        self.layer_norm = nn.LayerNorm(config.channels)
        self.post_extract_proj = nn.Linear(config.channels, config.width)
        self.encoder = _Encoder(config)
        self.mask_emb = nn.Parameter(torch.zeros(config.width))  # of training alone

    def forward(self, wave: torch.Tensor) -> torch.Tensor:
        return self.encoder(self.post_extract_proj(self.layer_norm(self.feature_extractor(wave))))


class UTMOSNetwork(nn.Module):
    """float32 [batch, samples] at 16 kHz to [batch] scores, about 1 to 5."""

    def __init__(self, config: UTMOSConfig | None = None):
        super().__init__()
        config = config or UTMOSConfig()
        self.wav2vec2 = Wav2Vec2(config)
        self.domain_emb = nn.Parameter(torch.zeros(1, config.embedding))
        self.judge_emb = nn.Parameter(torch.zeros(1, config.embedding))
        self.blstm = nn.LSTM(
            config.width + 2 * config.embedding,
            config.recurrent,
            batch_first=True,
            bidirectional=True,
        )
        self.projection = nn.Sequential(
            nn.Linear(2 * config.recurrent, config.projected),
            nn.ReLU(),
            nn.Linear(config.projected, 1),
        )

    def forward(self, wave: torch.Tensor) -> torch.Tensor:
        heard = self.wav2vec2(wave)
        who = torch.cat((self.domain_emb, self.judge_emb), dim=1)
        both = torch.cat((heard, who[:, None].expand(*heard.shape[:2], -1)), dim=2)
        return self.projection(self.blstm(both)[0]).mean(dim=(1, 2)) * 2 + 3


class UTMOS:
    """folder: of the weights entry `utmos`. Raises WeightsError where it is not that network."""

    def __init__(self, folder: Path, config: UTMOSConfig | None = None):
        self._network = load_published(UTMOSNetwork(config), folder / FILE)

    def __call__(self, sound: np.ndarray) -> np.ndarray:
        """float64 [1] of float32 [n] at 16 kHz; longer sound in equal parts, their mean."""
        sound = np.pad(sound, (0, max(0, LEAST - len(sound)))).astype(np.float32)
        parts = np.array_split(sound, -(-len(sound) // round(MOST_S * RATE)))
        with torch.inference_mode():
            found = [float(self._network(torch.from_numpy(part.copy())[None])) for part in parts]
        return np.array([np.mean(found)])
