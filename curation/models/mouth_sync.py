"""A small SyncNet that a team trains on its own clips, on a processor if need be.

Two towers as in SyncNet, over the same 5 frames and 20 MFCC, a hundredth of its size: grey mouths
of 48 x 48 pixels instead of faces of 224 x 224. Embeddings have the length `scale`, which is
chosen after training so that SyncNet's bound on confidence, 1.5, divides clips in sync from
others (curation/lips/training.py).
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import nn

from reelmill.curation.models.syncnet import FRAMES, MFCCS
from reelmill.errors import WeightsError

CONFIG, WEIGHTS = "config.json", "mouth_sync.safetensors"
SIDE = 48
# Of a crop of 224 x 224 (curation/lips/crops.py): about the mouth, half as wide as the face.
LEFT, TOP, REGION = 62, 76, 100
MAX_CONFIG_BYTES = 1 << 16
_MFCC_SPREAD = 20.0


def mouths(faces: np.ndarray) -> np.ndarray:
    """uint8 [n, 48, 48], grey, of crops uint8 RGB [n, 224, 224, 3]."""
    region = faces[:, TOP : TOP + REGION, LEFT : LEFT + REGION]
    out = np.empty((len(faces), SIDE, SIDE), np.uint8)
    for i, picture in enumerate(region):
        small = cv2.resize(picture, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
        out[i] = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY)
    return out


@dataclass(frozen=True)
class MouthConfig:
    """channels: of the widest layer. width: numbers of an embedding. scale: length of one."""

    channels: int = 96
    width: int = 64
    scale: float = 1.0

    def __post_init__(self) -> None:
        if not (16 <= self.channels <= 1024 and self.channels % 4 == 0 and 8 <= self.width <= 4096):
            raise WeightsError(f"a mouth network of {self.channels} channels, {self.width} wide?")
        if not (np.isfinite(self.scale) and self.scale > 0):
            raise WeightsError(f"embeddings of length {self.scale}: it must be above 0.")


class MouthSync(nn.Module):
    """The two towers."""

    def __init__(self, config: MouthConfig):
        super().__init__()
        self.config = config
        quarter, half, whole = config.channels // 4, config.channels // 2, config.channels
        self.lip_tower = nn.Sequential(
            nn.Conv3d(1, quarter, (FRAMES, 5, 5), (1, 2, 2), (0, 2, 2), bias=False),
            nn.BatchNorm3d(quarter),
            nn.ReLU(),
            *_layer3d(quarter, half),
            *_layer3d(half, whole),
            *_layer3d(whole, whole),
            nn.Conv3d(whole, config.width, (1, 3, 3)),
        )
        self.sound_tower = nn.Sequential(
            *_layer2d(1, half, 1),
            *_layer2d(half, half, (1, 2)),
            *_layer2d(half, whole, 2),
            *_layer2d(whole, whole, 2),
            nn.Flatten(),
            nn.Linear(whole * 4 * 3, config.width),
        )

    def lips(self, mouths: torch.Tensor) -> torch.Tensor:
        """[n, frames - 4, width], of length 1, of float32 [n, frames, 48, 48], 0 to 255."""
        seen = self._folded(centred(mouths))
        return F.normalize(seen, dim=-1)

    def _folded(self, flat: torch.Tensor) -> torch.Tensor:
        """What `lip_tower` makes of [n, 1, frames, 48, 48]: [n, frames - 4, width].

        The 5 frames of a window as channels of one picture, and moments as batch: the same sums,
        with convolutions in two dimensions, which processors do faster.
        """
        windows = flat[:, 0].unfold(1, FRAMES, 1).permute(0, 1, 4, 2, 3)
        count = windows.shape[1]
        x = windows.flatten(0, 1).contiguous(memory_format=torch.channels_last)
        for layer in self.lip_tower:
            if isinstance(layer, nn.Conv3d):
                weight = layer.weight[:, 0] if layer.in_channels == 1 else layer.weight[:, :, 0]
                weight = weight.contiguous(memory_format=torch.channels_last)
                x = F.conv2d(x, weight, layer.bias, layer.stride[1:], layer.padding[1:])  # type: ignore[arg-type]
            elif isinstance(layer, nn.BatchNorm3d):
                x = _normed(layer, x)
            else:
                x = layer(x)
        return x.flatten(1).unflatten(0, (-1, count))

    def sound(self, mfcc: torch.Tensor) -> torch.Tensor:
        """[n, width], of length 1, of float32 [n, 13, 20]."""
        heard = (mfcc[:, None] / _MFCC_SPREAD).contiguous(memory_format=torch.channels_last)
        return F.normalize(self.sound_tower(heard), dim=-1)


def centred(mouths: torch.Tensor) -> torch.Tensor:
    """[n, 1, frames, 48, 48], each picture about its mean, of [n, frames, 48, 48], 0 to 255."""
    light = mouths / 255
    return (light - light.mean(dim=(2, 3), keepdim=True))[:, None] / 0.2


def _normed(layer: nn.BatchNorm3d, x: torch.Tensor) -> torch.Tensor:
    """The layer over pictures [n, channels, h, w]."""
    if layer.training and layer.num_batches_tracked is not None:
        layer.num_batches_tracked.add_(1)
    return F.batch_norm(
        x,
        layer.running_mean,
        layer.running_var,
        layer.weight,
        layer.bias,
        layer.training,
        layer.momentum or 0.0,
        layer.eps,
    )


def _layer3d(inputs: int, outputs: int) -> tuple[nn.Module, ...]:
    conv = nn.Conv3d(inputs, outputs, (1, 3, 3), (1, 2, 2), (0, 1, 1), bias=False)
    return conv, nn.BatchNorm3d(outputs), nn.ReLU()


def _layer2d(inputs: int, outputs: int, stride: int | tuple[int, int]) -> tuple[nn.Module, ...]:
    conv = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
    return conv, nn.BatchNorm2d(outputs), nn.ReLU()


def sound_windows(mfcc: np.ndarray, count: int) -> np.ndarray:
    """float32 [count, 13, 20]: the MFCC of frames i to i + 4, of [n, 13]; the last row repeats."""
    wanted = 4 * (count - 1) + MFCCS
    rows = np.pad(mfcc[:wanted], ((0, max(0, wanted - len(mfcc))), (0, 0)), mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(rows, MFCCS, axis=0)
    return np.ascontiguousarray(windows[::4][:count])


def save(network: MouthSync, folder: Path) -> None:
    """Writes a network into a folder, its config last."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {name: value.contiguous().cpu() for name, value in network.state_dict().items()}
    save_file(state, folder / WEIGHTS)
    (folder / CONFIG).write_text(json.dumps(asdict(network.config), indent=1) + "\n", "utf-8")


def load(folder: Path) -> MouthSync:
    """The network of a folder, every weight of it. Raises WeightsError."""
    try:
        with (folder / CONFIG).open("rb") as file:
            data = json.loads(file.read(MAX_CONFIG_BYTES))
        network = MouthSync(MouthConfig(**data))
        network.load_state_dict(load_file(folder / WEIGHTS))
    except WeightsError:
        raise
    except Exception as error:  # of many kinds, for files that are none of its own
        raise WeightsError(f"{folder} holds no network for mouths and sound: {error}") from error
    return network.eval()
