"""TransNetV2: how likely each frame is the last one before a cut.

The network of Soucek and Lokoc (2020, "TransNet V2: an effective deep network architecture for fast
shot transition detection"), written anew for the weights that its PyTorch form has, with the same
names and shapes. Pictures: RGB, 48 x 27. 100 frames are seen at once, of which the middle 50 count.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from reelmill.errors import WeightsError

HEIGHT, WIDTH = 27, 48
WINDOW, STEP = 100, 50
CONTEXT = (WINDOW - STEP) // 2
FILTERS = (16, 32, 64)
DILATIONS = (1, 2, 4, 8)
REACH = 50  # frames on each side that one is compared with
FILES = ("transnetv2-pytorch-weights.pth", "transnetv2.safetensors")


class _Separable(nn.Module):
    """3 x 3 in space, then 3 in time, `dilation` frames apart."""

    def __init__(self, inputs: int, outputs: int, dilation: int):
        super().__init__()
        space = nn.Conv3d(inputs, 2 * outputs, (1, 3, 3), padding=(0, 1, 1), bias=False)
        time = nn.Conv3d(
            2 * outputs, outputs, (3, 1, 1), dilation=(dilation, 1, 1),
            padding=(dilation, 0, 0), bias=False,
        )  # fmt: skip
        self.layers = nn.ModuleList([space, time])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


class _Dilated(nn.Module):
    """The same at four dilations, side by side."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        for dilation in DILATIONS:
            self.add_module(f"Conv3D_{dilation}", _Separable(inputs, outputs, dilation))
        self.bn = nn.BatchNorm3d(4 * outputs, eps=1e-3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts = [self.get_submodule(f"Conv3D_{dilation}")(x) for dilation in DILATIONS]
        normal: torch.Tensor = self.bn(torch.cat(parts, dim=1))
        return normal


class _Stage(nn.Module):
    """Two of those with a way around the second, at half the size afterwards."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.DDCNN = nn.ModuleList([_Dilated(inputs, outputs), _Dilated(4 * outputs, outputs)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first = functional.relu(self.DDCNN[0](x))
        return functional.avg_pool3d(functional.relu(self.DDCNN[1](first)) + first, (1, 2, 2))


def _neighbours(vectors: torch.Tensor) -> torch.Tensor:
    """Cosines of each frame with those up to 50 away, 0 beyond the ends: [b, t, 101]."""
    unit = functional.normalize(vectors, dim=2)
    every = functional.pad(unit @ unit.transpose(1, 2), (REACH, REACH))
    frames = torch.arange(vectors.shape[1], device=vectors.device)
    at = frames[:, None] + torch.arange(2 * REACH + 1, device=vectors.device)
    return every.gather(2, at.expand(len(vectors), -1, -1))


def _histograms(pictures: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Counts of 8 x 8 x 8 colours, [b, t, 512], of uint8 [b, t, h, w, 3]."""
    high = (pictures >> 5).long()
    colours = (high[..., 0] * 64 + high[..., 1] * 8 + high[..., 2]).flatten(2)
    counts = torch.zeros(*colours.shape[:2], 512, device=pictures.device, dtype=dtype)
    return counts.scatter_add_(2, colours, torch.ones_like(colours, dtype=dtype))


class _FrameSimilarity(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.projection = nn.Linear(sum(4 * n for n in FILTERS), 128)
        self.fc = nn.Linear(2 * REACH + 1, 128)

    def forward(self, features: list[torch.Tensor]) -> torch.Tensor:
        means = torch.cat([one.mean(dim=(3, 4)) for one in features], dim=1).transpose(1, 2)
        return functional.relu(self.fc(_neighbours(self.projection(means))))


class _ColourSimilarity(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(2 * REACH + 1, 128)

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        return functional.relu(self.fc(_neighbours(_histograms(pictures, self.fc.weight.dtype))))


class TransNetV2(nn.Module):
    """Logits [b, t] of uint8 RGB [b, t, 27, 48, 3]: that a shot's last frame is there."""

    def __init__(self) -> None:
        super().__init__()
        inputs = (3, *(4 * n for n in FILTERS))
        self.SDDCNN = nn.ModuleList([_Stage(a, b) for a, b in zip(inputs, FILTERS, strict=False)])
        self.frame_sim_layer = _FrameSimilarity()
        self.color_hist_layer = _ColourSimilarity()
        self.fc1 = nn.Linear(4 * FILTERS[-1] * (HEIGHT // 8) * (WIDTH // 8) + 256, 1024)
        self.cls_layer1 = nn.Linear(1024, 1)
        self.cls_layer2 = nn.Linear(1024, 1)  # every frame of a transition; not used here

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        x = pictures.permute(0, 4, 1, 2, 3).to(self.fc1.weight.dtype) / 255
        features = []
        for stage in self.SDDCNN:
            x = stage(x)
            features.append(x)
        looks = x.permute(0, 2, 3, 4, 1).flatten(2)
        parts = [self.color_hist_layer(pictures), self.frame_sim_layer(features), looks]
        logits: torch.Tensor = self.cls_layer1(functional.relu(self.fc1(torch.cat(parts, dim=2))))
        return logits[..., 0]


def read(folder: Path) -> TransNetV2:
    """The network with the weights of a folder, every one of them, ready to be asked.

    Raises WeightsError when names or shapes differ, or when the file would run code.
    """
    path = next((folder / name for name in FILES if (folder / name).is_file()), folder / FILES[0])
    network = TransNetV2()
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
        network.load_state_dict(state)
    except Exception as error:  # torch raises many kinds for files that are none of its own
        raise WeightsError(f"{path} holds no weights of TransNetV2: {error}") from error
    return network.eval()


@lru_cache(1)
def loaded(folder: Path) -> TransNetV2:
    """The network of a folder, read once by a process."""
    return read(folder)


class Windows:
    """Frames in, likelihoods out: float32, one for each frame, in order.

    The first frame stands 25 times before the film, the last one as often as is missing behind it,
    as in the authors' code; no more than 100 frames are held.
    """

    def __init__(self, network: TransNetV2):
        self._network = network
        self._held: list[np.ndarray] = []
        self._count = 0
        self._found: list[np.ndarray] = []

    def push(self, picture: np.ndarray) -> None:
        """Takes the next frame, uint8 RGB [27, 48, 3]."""
        self._held += [picture] * (1 if self._count else 1 + CONTEXT)
        self._count += 1
        self._run()

    def finish(self) -> np.ndarray:
        if self._count:
            lacking = CONTEXT + -self._count % STEP
            self._held += [self._held[-1]] * lacking
            self._run()
        return np.concatenate([np.zeros(0, np.float32), *self._found])[: self._count]

    def _run(self) -> None:
        while len(self._held) >= WINDOW:
            batch = torch.from_numpy(np.stack(self._held[:WINDOW])[None])
            with torch.inference_mode():
                likely = torch.sigmoid(self._network(batch))[0, CONTEXT : CONTEXT + STEP]
            self._found.append(likely.numpy())
            del self._held[:STEP]
