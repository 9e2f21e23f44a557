"""The aesthetic heads of LAION over CLIP's picture vectors.

`linear`: sa_0_4_vit_*_linear.pth of LAION-AI/aesthetic-predictor. `mlp`: five layers without any
activation between them, sac+logos+ava1-l14-linearMSE.pth of improved-aesthetic-predictor. Both are
affine, so each is folded into one vector and one number, and the score of a mean of vectors is the
mean of their scores.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from reelmill.errors import WeightsError

FILES = {
    ("linear", 512): "sa_0_4_vit_b_32_linear.pth",
    ("linear", 768): "sa_0_4_vit_l_14_linear.pth",
    ("mlp", 768): "sac+logos+ava1-l14-linearMSE.pth",
}
LAYERS = {  # their names, and how many numbers each gives
    "linear": {"": 1},
    "mlp": {"layers.0.": 1024, "layers.2.": 128, "layers.4.": 64, "layers.6.": 16, "layers.7.": 1},
}


class AestheticHead:
    """A head for CLIP's vectors of `width` numbers. Raises WeightsError for another layout."""

    def __init__(self, folder: Path, head: str, width: int):
        path = folder / FILES[head, width]
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
            names = [f"{layer}{part}" for layer in LAYERS[head] for part in ("weight", "bias")]
            if sorted(state) != sorted(names):
                raise ValueError(f"it holds {', '.join(sorted(map(str, state)))[:200]}")
            weight, bias = np.eye(width), np.zeros(width)
            for layer, size in LAYERS[head].items():
                w, b = (np.asarray(state[f"{layer}{part}"].double()) for part in ("weight", "bias"))
                if w.shape != (size, len(weight)) or b.shape != (size,):
                    raise ValueError(f"{layer}weight has shape {w.shape}")
                weight, bias = w @ weight, w @ bias + b
        except Exception as error:  # torch raises many kinds for files that are none of its own
            raise WeightsError(f"{path} holds no aesthetic head of LAION's: {error}") from error
        self._weight, self._bias = weight[0], float(bias[0])

    def __call__(self, vector: np.ndarray) -> float:
        """About 1 to 10, of one unit vector or the mean of some: float [width]."""
        return float(self._weight @ vector.astype(np.float64)) + self._bias
