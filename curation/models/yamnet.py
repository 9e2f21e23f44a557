"""YAMNet: probabilities of 521 AudioSet classes, 0.96 s at a time (Apache-2.0, TensorFlow models).

The published TFLite file is read for its weights alone, and the network (MobileNet v1 over log mel
spectra) is run by torch: no TFLite runtime is needed. Its int8 weights are scaled back to float,
and the spectrum is an exact one instead of the file's int8 matrices.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np

from reelmill.curation.models.tflite import TFLite
from reelmill.errors import WeightsError

RATE = 16_000
WINDOW = 15_600  # samples: 96 spectra of 25 ms, 10 ms apart
HOP = 7_680
_FRAME, _STEP, _FFT = 400, 160, 512
_SPECTRA = 96
_LOG_OFFSET = 0.001
_STRIDES = (2, 1, 1, 2, 1, 1, 1, 2, 1, 1, 1, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2, 1, 1, 1)
_DEPTHWISE, _CONV, _DENSE = 4, 3, 9  # operators of TFLite
_CLASSES = 521


class YAMNet:
    """folder: of the weights entry `yamnet`. Raises WeightsError where it is not that network."""

    def __init__(self, folder: Path):
        import torch

        model = TFLite(folder / "yamnet.tflite")
        layers = [op for op in model.operators if op.code in (_CONV, _DEPTHWISE)]
        dense = [op for op in model.operators if op.code == _DENSE]
        if len(layers) != len(_STRIDES) or len(dense) != 4:
            raise WeightsError(f"{folder / 'yamnet.tflite'} is not the network YAMNet.")
        self._layers: list[tuple[Any, Any, int, int]] = []
        for op, stride in zip(layers, _STRIDES, strict=True):
            weight, bias = model.tensor(op.inputs[1]), model.tensor(op.inputs[2])
            # TFLite: [out, h, w, in], or [1, h, w, channels] for one filter a channel.
            order = (3, 0, 1, 2) if op.code == _DEPTHWISE else (0, 3, 1, 2)
            groups = weight.shape[3] if op.code == _DEPTHWISE else 1
            weight = np.ascontiguousarray(weight.transpose(order))
            self._layers.append((torch.from_numpy(weight), torch.from_numpy(bias), stride, groups))
        self._mel = model.tensor(dense[2].inputs[1]).T  # [257, 64]
        self._dense = model.tensor(dense[3].inputs[1]), model.tensor(dense[3].inputs[2])
        self.names = _names(folder / "yamnet_class_map.csv")

    def __call__(self, sound: np.ndarray) -> np.ndarray:
        """float32 [windows, 521] of float32 [n] at 16 kHz, n > 0; windows 0.48 s apart.

        Sound shorter than a window is filled up with silence; a rest shorter than a hop is left.
        """
        sound = np.pad(sound, (0, max(0, WINDOW - len(sound))))
        rows = np.lib.stride_tricks.sliding_window_view(sound, WINDOW)[::HOP]
        return np.concatenate([self._run(rows[i : i + 16]) for i in range(0, len(rows), 16)])

    def _run(self, rows: np.ndarray) -> np.ndarray:
        import torch
        from torch.nn import functional

        hann = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(_FRAME) / _FRAME)).astype(np.float32)
        framed = np.lib.stride_tricks.sliding_window_view(rows, _FRAME, axis=1)
        spectrum = np.abs(np.fft.rfft(framed[:, : _SPECTRA * _STEP : _STEP] * hann, _FFT))
        mel = np.log(spectrum @ self._mel + _LOG_OFFSET).astype(np.float32)
        with torch.inference_mode():
            x = torch.from_numpy(mel)[:, None]
            for weight, bias, stride, groups in self._layers:
                x = functional.pad(x, _same(x.shape[-2:], weight.shape[-2:], stride))
                x = functional.relu(functional.conv2d(x, weight, bias, stride, groups=groups))
            pooled = x.mean(dim=(2, 3)).numpy()
        weight_, bias_ = self._dense
        logits = np.clip(pooled @ weight_.T + bias_, -80, 80)
        return (1 / (1 + np.exp(-logits))).astype(np.float32)


def _same(size: Any, kernel: Any, stride: int) -> tuple[int, int, int, int]:
    """TensorFlow's SAME padding as torch has it: left, right, top, bottom."""
    need = [
        max(0, (-(-s // stride) - 1) * stride + k - s) for s, k in zip(size, kernel, strict=True)
    ]
    (top, left) = (n // 2 for n in need)
    return left, need[1] - left, top, need[0] - top


def _names(path: Path) -> tuple[str, ...]:
    with path.open(newline="", encoding="utf-8") as file:
        names = tuple(row["display_name"] for row in csv.DictReader(file))
    if len(names) != _CLASSES:
        raise WeightsError(f"{path} names {len(names)} classes, not {_CLASSES}.")
    return names
