"""SyncNet: how well lips and speech agree, and by how many frames they are apart.

The network of Chung and Zisserman (2016, "Out of time: automated lip sync in the wild"), written
anew for the published weights `syncnet_v2.model` of joonson/syncnet_python: same names, same
shapes. Lips: 5 frames of 25 a second, in OpenCV's order BGR, 0 to 255, 224 x 224. Sound: 13
MFCC at 100 a second, 20 of them for 5 frames.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from reelmill.errors import WeightsError

FPS = 25
FRAMES = 5
MFCCS = 20
REACH = 15  # frames of offset that are tried on each side
WIDTH = 1024


def _conv(
    inputs: int, outputs: int, kernel: tuple[int, ...], stride: Any = 1, padding: Any = 0
) -> tuple[nn.Module, ...]:
    conv: Any = nn.Conv3d if len(kernel) == 3 else nn.Conv2d
    norm: Any = nn.BatchNorm3d if len(kernel) == 3 else nn.BatchNorm2d
    layers = (conv(inputs, outputs, kernel, stride, padding), norm(outputs), nn.ReLU(inplace=True))
    return layers


def _dense(inputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(inputs, 512), nn.BatchNorm1d(512), nn.ReLU(), nn.Linear(512, WIDTH)
    )


class SyncNet(nn.Module):
    """Two towers to one space of 1024 numbers, in which what belongs together lies close."""

    def __init__(self) -> None:
        super().__init__()
        self.netcnnaud = nn.Sequential(
            *_conv(1, 64, (3, 3), 1, 1),
            nn.MaxPool2d((1, 1), (1, 1)),
            *_conv(64, 192, (3, 3), 1, 1),
            nn.MaxPool2d((3, 3), (1, 2)),
            *_conv(192, 384, (3, 3), 1, 1),
            *_conv(384, 256, (3, 3), 1, 1),
            *_conv(256, 256, (3, 3), 1, 1),
            nn.MaxPool2d((3, 3), (2, 2)),
            *_conv(256, 512, (5, 4)),
        )
        self.netcnnlip = nn.Sequential(
            *_conv(3, 96, (5, 7, 7), (1, 2, 2)),
            nn.MaxPool3d((1, 3, 3), (1, 2, 2)),
            *_conv(96, 256, (1, 5, 5), (1, 2, 2), (0, 1, 1)),
            nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1)),
            *_conv(256, 256, (1, 3, 3), 1, (0, 1, 1)),
            *_conv(256, 256, (1, 3, 3), 1, (0, 1, 1)),
            *_conv(256, 256, (1, 3, 3), 1, (0, 1, 1)),
            nn.MaxPool3d((1, 3, 3), (1, 2, 2)),
            *_conv(256, 512, (1, 6, 6)),
        )
        self.netfcaud, self.netfclip = _dense(512), _dense(512)

    def sound(self, mfcc: torch.Tensor) -> torch.Tensor:
        """[n, 1024] of float32 [n, 1, 13, 20]."""
        return self.netfcaud(self.netcnnaud(mfcc).flatten(1))

    def lips(self, frames: torch.Tensor) -> torch.Tensor:
        """[n, 1024] of float32 [n, 3, 5, 224, 224]."""
        return self.netfclip(self.netcnnlip(frames).flatten(1))


def load(path: Path) -> SyncNet:
    """The network with the weights of a file, every one of them, ready to be asked.

    Raises WeightsError when names or shapes differ, or when the file would run code.
    """
    network = SyncNet()
    try:
        network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:  # torch raises many kinds for files that are none of its own
        raise WeightsError(f"{path} holds no weights of SyncNet (syncnet_v2): {error}") from error
    return network.eval()


@dataclass(frozen=True, slots=True)
class Sync:
    """offset: frames of 25 a second, positive where the sound comes early, as in syncnet_python.

    distance: least mean distance over all offsets. confidence: median of them less that.
    """

    offset: int
    confidence: float
    distance: float


def distances(lips: np.ndarray, sound: np.ndarray, reach: int = REACH) -> np.ndarray:
    """float64 [n, 2 reach + 1]: of each frame's lips to the sound up to `reach` frames away.

    The first column is for the sound `reach` frames before. Zeros beyond the ends, and 1e-6 added
    to each difference, as torch's pairwise_distance has it.
    """
    padded = np.pad(sound.astype(np.float64), ((reach, reach), (0, 0)))
    rows = lips.astype(np.float64) + 1e-6
    columns = [
        np.linalg.norm(rows - padded[i : i + len(lips)], axis=1) for i in range(2 * reach + 1)
    ]
    return np.stack(columns, axis=1)


def compare(lips: np.ndarray, sound: np.ndarray, reach: int = REACH) -> Sync:
    """Of embeddings float32 [n, 1024] each, n > 0: one per frame, in order.

    As syncnet_python has it: the distance of each frame's lips to the sound up to `reach` frames
    away on both sides; their mean over frames per offset; the least of them, and by how much the
    median lies above it.
    """
    means = distances(lips, sound, reach).mean(axis=0)
    best = int(means.argmin())
    least = float(means[best])
    return Sync(reach - best, float(np.sort(means)[reach]) - least, least)
