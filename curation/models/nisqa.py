"""NISQA v2: how listeners would rate speech, and what troubles them (Mittag et al. 2021).

The network of the paper (arXiv 2104.09494, section 2), written anew for the published weights
`nisqa.tar` of gabrielmittag/NISQA: same names, same shapes. Mel spectra of 48 bands up to 20 kHz
are cut into segments of 150 ms, a network sees each, self-attention relates them, and five
attention poolings give overall quality, noisiness, discontinuity, coloration and loudness.
"""

from __future__ import annotations

import warnings
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from reelmill.curation.models.published import load_published

FILE = "nisqa.tar"
SCORES = ("overall", "noisiness", "discontinuity", "coloration", "loudness")
MELS, SEGMENT, STEP = 48, 15, 4
TOP_HZ = 20_000.0
FFT, HOP_S, WINDOW_S = 4096, 0.01, 0.02
MOST = 1300  # segments, 52 s: as many as it was made for
WIDTH = 64
_POOLED = ((24, 7), (12, 5), (6, 3))


class _Frames(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        channels = (1, 16, 32, 64, 64, 64, 64)
        for i in range(1, 7):
            padding = (1, 0) if i == 6 else 1
            self.add_module(f"conv{i}", nn.Conv2d(channels[i - 1], channels[i], 3, padding=padding))
            self.add_module(f"bn{i}", nn.BatchNorm2d(channels[i]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        pooled = {1: _POOLED[0], 2: _POOLED[1], 4: _POOLED[2]}
        for i in range(1, 7):
            x = functional.relu(self.get_submodule(f"bn{i}")(self.get_submodule(f"conv{i}")(x)))
            if i in pooled:
                x = functional.adaptive_max_pool2d(x, pooled[i])
        return x.flatten(1)


class _Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(WIDTH)
        self.linear = nn.Linear(WIDTH * _POOLED[2][0], WIDTH)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(WIDTH, 1, WIDTH, 0.0, batch_first=True) for _ in range(2)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norm1(self.linear(x))
        for layer in self.layers:
            x = layer(x)
        return x


class _Pool(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear1 = nn.Linear(WIDTH, 2 * WIDTH)
        self.linear2 = nn.Linear(2 * WIDTH, 1)
        self.linear3 = nn.Linear(WIDTH, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight = self.linear2(functional.relu(self.linear1(x))).softmax(dim=1)
        return self.linear3((weight * x).sum(dim=1))


class _Named(nn.Module):
    """A part under the name `model`, as the published file has it."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.model(x)


class NISQANetwork(nn.Module):
    """Segments [n, 1, MELS, SEGMENT] of one sound to [len(SCORES)]."""

    def __init__(self) -> None:
        super().__init__()
        self.cnn = _Named(_Frames())
        self.time_dependency = _Named(_Attention())
        self.pool_layers = nn.ModuleList(_Named(_Pool()) for _ in SCORES)

    def forward(self, segments: torch.Tensor) -> torch.Tensor:
        x = self.time_dependency(self.cnn(segments)[None])
        return torch.cat([pool(x)[0] for pool in self.pool_layers])


class NISQA:
    """folder: of the weights entry `nisqa`. Raises WeightsError where it is not that network."""

    def __init__(self, folder: Path):
        self._network = load_published(NISQANetwork(), folder / FILE, "model_state_dict")

    def __call__(self, sound: np.ndarray, rate: int) -> np.ndarray:
        """float64 [len(SCORES)], 1 to 5, of float32 [n] at `rate` Hz, which should be its own."""
        spectra = mel_decibels(sound, rate)
        spectra = np.pad(spectra, ((0, 0), (0, max(0, SEGMENT - spectra.shape[1]))), mode="edge")
        rows = np.lib.stride_tricks.sliding_window_view(spectra, SEGMENT, axis=1)[:, ::STEP]
        segments = np.ascontiguousarray(rows.transpose(1, 0, 2)[:MOST], np.float32)
        with torch.inference_mode():
            found = self._network(torch.from_numpy(segments)[:, None])
        return found.numpy().astype(np.float64)


def mel_decibels(sound: np.ndarray, rate: int) -> np.ndarray:
    """float64 [MELS, frames]: mel spectra every 10 ms, in dB, at most 80 below the loudest."""
    window = int(rate * WINDOW_S)
    hann = np.zeros(FFT)
    start = (FFT - window) // 2
    hann[start : start + window] = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)
    short = len(sound) <= FFT // 2  # too short to be mirrored
    padded = np.pad(sound, FFT // 2, mode="constant" if short else "reflect").astype(np.float64)
    rows = np.lib.stride_tricks.sliding_window_view(padded, FFT)[:: int(rate * HOP_S)]
    parts = [np.abs(np.fft.rfft(rows[i : i + 256] * hann)) for i in range(0, len(rows), 256)]
    level = 20 * np.log10(np.maximum(np.concatenate(parts) @ _mel(rate), 1e-4))
    return np.maximum(level, level.max() - 80).T


@lru_cache(maxsize=8)
def _mel(rate: int) -> np.ndarray:
    from transformers.audio_utils import mel_filter_bank

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # bands above half the rate are empty, as they should be
        return mel_filter_bank(
            FFT // 2 + 1, MELS, 0.0, TOP_HZ, rate, norm="slaney", mel_scale="slaney"
        )
