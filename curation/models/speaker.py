"""Who speaks: embeddings of voices, by an x-vector network of transformers.

Any `WavLMForXVector`, `Wav2Vec2ForXVector` or other network that transformers lists under
audio x-vectors serves, from a local folder: config.json and model.safetensors. Code comes from the
installed transformers alone.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from reelmill.errors import WeightsError

RATE = 16_000
LEAST_S = 0.5  # the network's statistics are taken over frames; shorter sound is said again
MAX_JSON_BYTES = 1 << 20


class Speaker:
    """folder: of the weights entry `xvector`. Raises WeightsError where it is no such network, or
    where some of its weights are missing: transformers would make them up.
    """

    def __init__(self, folder: Path):
        from safetensors import SafetensorError
        from transformers import AutoModelForAudioXVector

        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                network, found = AutoModelForAudioXVector.from_pretrained(
                    folder, local_files_only=True, use_safetensors=True, output_loading_info=True
                )
            if missing := sorted(found["missing_keys"]):
                raise ValueError(f"it lacks {', '.join(missing[:4])}")
            self._network: Any = network.eval().float()
            self._flat = _flat(folder / "preprocessor_config.json")
        except (
            OSError, ValueError, RuntimeError, TypeError, AttributeError, LookupError,
            SafetensorError,
        ) as error:  # fmt: skip
            raise WeightsError(
                f"weights 'xvector' in {folder} cannot be loaded: {str(error)[:200]}"
            ) from error

    def __call__(self, pieces: Sequence[np.ndarray]) -> np.ndarray:
        """float32 [pieces, size], each of length 1, of float32 [n] at 16 kHz. One at a time, so
        that no piece's embedding depends on the others.
        """
        found = []
        for sound in pieces:
            whole = np.resize(sound, max(len(sound), round(LEAST_S * RATE))).astype(np.float32)
            if self._flat:
                whole = (whole - whole.mean()) / np.sqrt(whole.var() + 1e-7)
            with torch.inference_mode():
                vector = self._network(torch.from_numpy(whole)[None]).embeddings[0]
            found.append(torch.nn.functional.normalize(vector, dim=0).numpy())
        return np.stack(found)


def _flat(path: Path) -> bool:
    """Whether the network wants sound of mean 0 and variance 1."""
    if not path.is_file():
        return True
    with path.open("rb") as file:
        data = json.loads(file.read(MAX_JSON_BYTES))
    if not isinstance(data, dict):
        raise ValueError(f"{path.name} holds no object")
    return bool(data.get("do_normalize", True))
