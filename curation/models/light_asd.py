"""Light-ASD: is this face talking?

The network of Liao et al. (CVPR 2023, "A Light Weight Model for Active Speaker Detection"), written
anew for its published weights: same names, same shapes. It tells a talking face from a still one
while speech is heard. It does not tell whether the speech is that face's: among 13 real clips the
right sound came first for one. So it is no measure of sync.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from reelmill.curation.models.mfcc import mfcc
from reelmill.errors import WeightsError

FPS = 25
SIDE = 112
FILE = "finetuning_TalkSet.model"
MFCC_A_FRAME = 4
SMOOTH = 2  # frames on each side over which scores are averaged, as its own demo does
LEAST = 5  # frames
_HEADS = ("model.", "lossAV.", "lossV.")


class _Block(nn.Module):
    """Two paths, of 3 and of 5, each over space (or pitch) and then over time."""

    def __init__(self, conv: Any, norm: Any, inputs: int, outputs: int, down: bool = False):
        super().__init__()
        flat = conv is nn.Conv2d
        self._across = "m" if flat else "s"
        self.relu = nn.ReLU()
        for size in (3, 5):
            half = size // 2
            across: Any = (size, 1) if flat else (1, size, size)
            along: Any = (1, size) if flat else (size, 1, 1)
            stride: Any = (1, 2, 2) if down else 1
            pads = ((half, 0), (0, half)) if flat else ((0, half, half), (half, 0, 0))
            first = conv(inputs, outputs, across, stride, pads[0], bias=False)
            second = conv(outputs, outputs, along, 1, pads[1], bias=False)
            for name, layer in ((self._across, first), ("t", second)):
                self.add_module(f"{name}_{size}", layer)
                self.add_module(f"bn_{name}_{size}", norm(outputs, eps=0.001, momentum=0.01))
        self.last = conv(outputs, outputs, 1, bias=False)
        self.bn_last = norm(outputs, eps=0.001, momentum=0.01)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        paths = []
        for size in (3, 5):
            path = x
            for name in (self._across, "t"):
                layer, norm = (self.get_submodule(f"{p}{name}_{size}") for p in ("", "bn_"))
                path = self.relu(norm(layer(path)))
            paths.append(path)
        return self.relu(self.bn_last(self.last(paths[0] + paths[1])))


class _Encoder(nn.Module):
    def __init__(self, conv: Any, norm: Any, pool: nn.Module):
        super().__init__()
        down = conv is nn.Conv3d
        self.block1 = _Block(conv, norm, 1, 32, down)
        self.pool1 = pool
        self.block2 = _Block(conv, norm, 32, 64)
        self.pool2 = pool
        self.block3 = _Block(conv, norm, 64, 128)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.block3(self.pool2(self.block2(self.pool1(self.block1(x)))))


class _Memory(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gru_forward = nn.GRU(128, 128, batch_first=True)
        self.gru_backward = nn.GRU(128, 128, batch_first=True)
        self.gelu = nn.GELU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        ahead = self.gelu(self.gru_forward(x)[0])
        back = self.gru_backward(torch.flip(ahead, [1]))[0]
        return self.gelu(torch.flip(back, [1]))


class _Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.visualEncoder = _Encoder(
            nn.Conv3d, nn.BatchNorm3d, nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1))
        )
        self.audioEncoder = _Encoder(
            nn.Conv2d, nn.BatchNorm2d, nn.MaxPool2d((1, 3), (1, 2), (0, 1))
        )
        self.GRU = _Memory()

    def forward(self, faces: torch.Tensor, sound: torch.Tensor) -> torch.Tensor:
        """[n, frames, 128] of faces [n, frames, 112, 112], 0 to 255, sound [n, 4 frames, 13]."""
        seen = self.visualEncoder(((faces / 255 - 0.4161) / 0.1688)[:, None])
        seen = seen.amax(dim=(3, 4)).transpose(1, 2)
        heard = self.audioEncoder(sound[:, None].transpose(2, 3)).mean(dim=2).transpose(1, 2)
        return self.GRU(seen + heard)


class _Head(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.FC = nn.Linear(128, 2)


class LightASD(nn.Module):
    """folder: of the weights `light_asd`. Raises WeightsError when names or shapes differ."""

    def __init__(self, folder: Path):
        super().__init__()
        self.model, self.lossAV, self.lossV = _Network(), _Head(), _Head()
        path = folder / FILE
        try:
            state: Mapping[str, torch.Tensor] = torch.load(
                path, map_location="cpu", weights_only=True
            )
            self.load_state_dict({k: v for k, v in state.items() if k.startswith(_HEADS)})
        except Exception as error:  # torch raises many kinds for files that are none of its own
            raise WeightsError(f"{path} holds no weights of Light-ASD: {error}") from error
        self.eval()

    @torch.inference_mode()
    def score(self, faces: np.ndarray, sound: np.ndarray) -> np.ndarray:
        """float32 [frames]: above 0 where the face talks.

        faces: uint8 [frames, 112, 112] at 25 a second, grey, as `crops` cuts them, without their
        outer halves. sound: float32 at 16 kHz, from the first frame on. Fewer than 5 frames: zeros.
        """
        count = len(faces)
        if count < LEAST:
            return np.zeros(count, np.float32)
        rows = mfcc(sound)[: MFCC_A_FRAME * count]
        rows = np.pad(rows, ((0, MFCC_A_FRAME * count - len(rows)), (0, 0)), mode="edge")
        out = self.model(
            torch.from_numpy(faces.astype(np.float32))[None], torch.from_numpy(rows)[None]
        )
        raw = self.lossAV.FC(out[0])[:, 1].numpy()
        window = np.ones(2 * SMOOTH + 1)
        sums = np.convolve(raw, window, mode="same")
        return (sums / np.convolve(np.ones(count), window, mode="same")).astype(np.float32)
