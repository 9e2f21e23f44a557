"""A sound codec in closed form: log-mel frames in pairs and their principal components.

It has the shape of MMAudio's 44.1 kHz VAE (40 channels, 1024 samples per token; 5.0625 s are 218
tokens) and needs no download. Phase is not coded: decoding finds one by Griffin-Lim.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from reelmill.errors import CheckpointError, UsageError
from reelmill.model.codecs.pca import Components, Moments
from reelmill.model.codecs.saved import codec_digest, read_codec, write_codec

RATE, WINDOW, HOP, MELS = 44_100, 2048, 512, 128
TOKEN = 2 * HOP
FLOOR = 1e-5  # of mel magnitudes, as in MMAudio
EDGE = (WINDOW - HOP) // 2


@dataclass(frozen=True, eq=False)
class MelPCAAudio:
    """components: of two log-mel frames, 256 numbers. iterations: of Griffin-Lim."""

    components: Components
    iterations: int = 32

    kind: ClassVar[str] = "MelPCAAudio"
    version: ClassVar[int] = 1
    rate: ClassVar[int] = RATE
    hop: ClassVar[int] = TOKEN

    @property
    def channels(self) -> int:
        return len(self.components.scale)

    @classmethod
    def fit(cls, sounds: Iterable[np.ndarray], channels: int = 40) -> MelPCAAudio:
        """Fits to mono sounds, float32 [n] at 44.1 kHz; those below one token are left out.

        Raises UsageError when none is long enough.
        """
        moments = Moments(2 * MELS)
        for sound in sounds:
            if len(sound) >= TOKEN:
                moments.add(_pairs(log_mel(torch.as_tensor(sound)[None])))
        if not moments.count:
            raise UsageError(f"no sound to fit a codec on: none has {TOKEN} samples.")
        return cls(moments.components(channels))

    def encode(self, samples: Tensor) -> Tensor:
        """float [B, n] in [-1, 1] at 44.1 kHz -> [B, C, n // 1024]. Raises ValueError below one
        token."""
        if samples.ndim != 2 or samples.shape[1] < TOKEN:
            raise ValueError(f"samples of shape {tuple(samples.shape)}: [B, {TOKEN} or more]")
        return self.components.encode(_pairs(log_mel(samples))).transpose(1, 2)

    def decode(self, latents: Tensor, samples: int | None = None) -> Tensor:
        """[B, C, L] -> float [B, samples] at 44.1 kHz, L * 1024 of them by default.

        Deterministic, and each sound as if it were alone. More samples than the latents cover are
        filled by their last frame.
        """
        samples = latents.shape[2] * TOKEN if samples is None else samples
        pairs = self.components.decode(latents.transpose(1, 2))
        mel = pairs.unflatten(2, (2, MELS)).flatten(1, 2).clamp(math.log(FLOOR), 8.0)
        inverse = _filters().pinverse().to(mel)
        magnitude = ((mel.exp() - FLOOR) @ inverse.T).clamp(min=0).transpose(1, 2)
        return _griffin_lim(magnitude, samples, self.iterations)

    def fingerprint(self) -> str:
        """Of what latents mean; `iterations` does not change that."""
        return codec_digest(self.kind, self.version, {}, self._tensors())

    def save(self, folder: Path) -> None:
        fields = {"iterations": self.iterations}
        write_codec(folder, self.kind, self.version, fields, self._tensors())

    @classmethod
    def load(cls, folder: Path) -> MelPCAAudio:
        """Raises CheckpointError for a folder that is no such codec."""
        shapes = {"mean": 1, "basis": 2, "scale": 1}
        fields, t = read_codec(folder, cls.kind, cls.version, shapes)
        channels = len(t["scale"])
        if t["mean"].shape != (2 * MELS,) or t["basis"].shape != (2 * MELS, channels):
            raise CheckpointError(f"codec {folder}: its basis is {tuple(t['basis'].shape)}.")
        iterations = fields.get("iterations")
        if not isinstance(iterations, int) or not 1 <= iterations <= 1000:
            raise CheckpointError(f"codec {folder}: iterations is {iterations!r}, 1 to 1000.")
        return cls(Components(*(t[name] for name in shapes)), iterations)

    def _tensors(self) -> dict[str, Tensor]:
        c = self.components
        return {"mean": c.mean, "basis": c.basis, "scale": c.scale}


def log_mel(samples: Tensor) -> Tensor:
    """[B, n] -> natural log of mel magnitudes [B, n // 512, 128], framed as in MMAudio."""
    padded = F.pad(samples[:, None], (EDGE, EDGE), mode="reflect")[:, 0]
    window = torch.hann_window(WINDOW, device=samples.device, dtype=samples.dtype)
    spectrum = torch.stft(
        padded, WINDOW, HOP, window=window, center=False, return_complex=True
    ).abs()
    return (spectrum.transpose(1, 2) @ _filters().to(samples).T).clamp(min=FLOOR).log()


def _pairs(mel: Tensor) -> Tensor:
    """[B, n, 128] -> [B, n // 2, 256]; an odd last frame is left out."""
    whole = mel.shape[1] // 2
    return mel[:, : 2 * whole].unflatten(1, (whole, 2)).flatten(2)


@lru_cache(maxsize=1)
def _filters() -> Tensor:
    """Slaney's mel filters of unit area, float32 [128, 1025] (as in librosa, MMAudio)."""

    def to_hz(mel: np.ndarray) -> np.ndarray:
        linear, octave = mel * 200 / 3, 1000 * np.exp(np.log(6.4) / 27 * (mel - 15))
        return np.where(mel < 15, linear, octave)

    top = 15 + 27 * np.log(RATE / 2 / 1000) / np.log(6.4)
    edges = to_hz(np.linspace(0, top, MELS + 2))
    bins = np.linspace(0, RATE / 2, WINDOW // 2 + 1)
    left, centre, right = (edges[i : i + MELS, None] for i in range(3))
    rising, falling = (bins - left) / (centre - left), (right - bins) / (right - centre)
    filters = np.minimum(rising, falling).clip(0) * 2 / (right - left)
    return torch.tensor(filters, dtype=torch.float32)


def _griffin_lim(magnitude: Tensor, samples: int, iterations: int) -> Tensor:
    """Samples whose spectrum has this magnitude [B, 1025, frames]: fast Griffin-Lim (Perraudin et
    al., 2013), momentum .99, from a fixed random phase.

    Frame i of `log_mel` is centred on sample 512 i + 256. One frame is repeated in front, so that
    the first centre is at -256, and as many behind as the wanted samples need.
    """
    behind = max(1, math.ceil((samples + 256) / HOP) + 1 - (magnitude.shape[2] + 1))
    magnitude = F.pad(magnitude, (1, behind), mode="replicate")
    window = torch.hann_window(WINDOW, device=magnitude.device, dtype=magnitude.dtype)
    start = torch.rand(magnitude.shape[1:], generator=torch.Generator().manual_seed(0))
    angles = torch.polar(torch.ones_like(start), 2 * math.pi * start).to(magnitude.device)
    angles = angles.expand(magnitude.shape)
    before = torch.zeros_like(angles)
    length = (magnitude.shape[2] - 1) * HOP
    for _ in range(iterations):
        signal = torch.istft(magnitude * angles, WINDOW, HOP, window=window, length=length)
        rebuilt = torch.stft(signal, WINDOW, HOP, window=window, return_complex=True)
        ahead = rebuilt - before * (0.99 / 1.99)
        angles, before = ahead / (ahead.abs() + 1e-16), rebuilt
    signal = torch.istft(magnitude * angles, WINDOW, HOP, window=window, length=length)
    return signal[:, 256 : 256 + samples]
