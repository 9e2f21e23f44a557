"""Picture encoders of transformers from a local folder: CLIP, SigLIP, DINOv2.

Weights are read from safetensors only, code from the installed transformers only: the family is
taken from a fixed list by the folder's `model_type`, whatever else its config asks for. Nothing is
fetched.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from reelmill.errors import WeightsError

CONFIG, PREPARATION = "config.json", "preprocessor_config.json"
FAMILIES = {  # model_type: name, class in transformers, its output
    "clip": ("clip", "CLIPVisionModelWithProjection", "image_embeds"),
    "clip_vision_model": ("clip", "CLIPVisionModelWithProjection", "image_embeds"),
    "siglip": ("siglip", "SiglipVisionModel", "pooler_output"),
    "siglip_vision_model": ("siglip", "SiglipVisionModel", "pooler_output"),
    "dinov2": ("dinov2", "Dinov2Model", "pooler_output"),
    "dinov2_with_registers": ("dinov2", "Dinov2WithRegistersModel", "pooler_output"),
}
MAX_JSON_BYTES = 1 << 20
MAX_SIDE = 1024
BATCH = 16


@dataclass(frozen=True)
class Preparation:
    """How a picture becomes the network's input, as `preprocessor_config.json` has it.

    short: pixels of the shorter side before the middle is cut out; None: straight to `size`.
    size: (height, width) of the input. mean, deviation: of RGB, 0 to 1. resample: PIL's number.
    """

    short: int | None
    size: tuple[int, int]
    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    resample: int

    @classmethod
    def read(cls, data: Mapping[str, Any]) -> Preparation:
        """Raises ValueError, LookupError or TypeError for what no picture can be prepared by."""
        size = data["size"]
        short = size if isinstance(size, int) else size.get("shortest_edge")
        crop = data.get("crop_size", size) if data.get("do_center_crop", short) else size
        whole = (crop, crop) if isinstance(crop, int) else (crop["height"], crop["width"])
        found = cls(
            None if short is None else int(short),
            (int(whole[0]), int(whole[1])),
            tuple(float(x) for x in data["image_mean"]),
            tuple(float(x) for x in data["image_std"]),
            int(data.get("resample", Image.Resampling.BICUBIC)),
        )
        sides = (*found.size, found.short or 1)
        if not all(1 <= side <= MAX_SIDE for side in sides):
            raise ValueError(f"sides of {sides} pixels; from 1 to {MAX_SIDE} are read")
        if not (len(found.mean) == len(found.deviation) == 3 and min(found.deviation) > 0):
            raise ValueError("image_mean and image_std must be of three colours")
        if found.short is not None and found.short < max(found.size):
            raise ValueError("the shorter side is smaller than what is cut out of it")
        Image.Resampling(found.resample)
        return found

    def __call__(self, rgb: np.ndarray) -> np.ndarray:
        """float32 [3, height, width] of uint8 RGB [h, w, 3]."""
        picture, resample = Image.fromarray(rgb), Image.Resampling(self.resample)
        height, width = self.size
        if self.short is None:
            picture = picture.resize((width, height), resample)
        else:
            w, h = picture.size
            least = min(w, h)
            picture = picture.resize(
                (int(self.short * w / least), int(self.short * h / least)), resample
            )
            left, top = (picture.width - width) // 2, (picture.height - height) // 2
            picture = picture.crop((left, top, left + width, top + height))
        scaled = np.asarray(picture, np.float32) / 255
        mean, deviation = (np.asarray(c, np.float32) for c in (self.mean, self.deviation))
        normal = (scaled - mean) / deviation
        return np.ascontiguousarray(normal.transpose(2, 0, 1))


class Vision:
    """A picture encoder. family: clip, siglip or dinov2. name: of family and length of vectors."""

    def __init__(self, folder: Path, device: str = "cpu"):
        try:
            kind = _json(folder / CONFIG).get("model_type")
            if kind not in FAMILIES:
                raise ValueError(f"model_type {kind!r}; read are {', '.join(sorted(FAMILIES))}")
            self._prepare = Preparation.read(_json(folder / PREPARATION))
            self.family, class_name, self._output = FAMILIES[kind]
            self._network = _network(folder, class_name).to(device)
        except WeightsError:
            raise
        except Exception as error:  # transformers raises many kinds for folders that are none
            raise WeightsError(
                f"{folder} holds no picture encoder that can be read: {error}"
            ) from error
        self._device = device

    def __call__(self, pictures: Sequence[np.ndarray]) -> np.ndarray:
        """Unit vectors, float32 [n, d], of pictures uint8 RGB [h, w, 3] each."""
        rows = []
        for start in range(0, len(pictures), BATCH):
            batch = np.stack([self._prepare(one) for one in pictures[start : start + BATCH]])
            with torch.inference_mode():
                told = self._network(pixel_values=torch.from_numpy(batch).to(self._device))
                rows.append(getattr(told, self._output).float().cpu().numpy())
        found = np.concatenate(rows)
        return np.asarray(found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12))


def _network(folder: Path, class_name: str) -> Any:
    import transformers

    with _quiet(transformers.utils.logging):
        network, told = getattr(transformers, class_name).from_pretrained(
            folder,
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            dtype=torch.float32,
            output_loading_info=True,
        )
    if lacking := sorted(told["missing_keys"]):
        raise WeightsError(
            f"{folder} lacks {len(lacking)} of the weights of {class_name}, such as {lacking[0]}."
        )
    return network.eval()


@contextmanager
def _quiet(logging: Any) -> Iterator[None]:
    """Without a list of the weights of text towers, which are left out on purpose."""
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def _json(path: Path) -> dict[str, Any]:
    if path.stat().st_size > MAX_JSON_BYTES:
        raise ValueError(f"{path.name} is larger than {MAX_JSON_BYTES} bytes")
    data = json.loads(path.read_bytes())
    if not isinstance(data, dict):
        raise ValueError(f"{path.name} holds no object")
    return data


@lru_cache(1)
def loaded(folder: Path, device: str) -> Vision:
    """The encoder of a folder, read once by a process."""
    return Vision(folder, device)
