"""Weights that others published: safetensors files, and an account of which tensors were used."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import safetensors
import safetensors.torch
from torch import Tensor

from reelmill.errors import CheckpointError, WeightsError

PICKLES = {".pt", ".pth", ".bin", ".ckpt", ".pkl"}
_WRAPPERS = re.compile(r"^(?:module\.|model\.diffusion_model\.|model\.|transformer\.)+")


class Source:
    """Tensors by name; remembers which were taken."""

    def __init__(self, tensors: Mapping[str, Tensor]):
        self._tensors = tensors
        self.taken: set[str] = set()

    def __getitem__(self, name: str) -> Tensor:
        """Raises CheckpointError when there is none of this name."""
        if name not in self._tensors:
            raise CheckpointError(f"these weights lack {name!r}, which such a model has.")
        self.taken.add(name)
        return self._tensors[name]

    def __contains__(self, name: str) -> bool:
        return name in self._tensors

    def linear(self, theirs: str, ours: str) -> dict[str, Tensor]:
        return {f"{ours}.{kind}": self[f"{theirs}.{kind}"] for kind in ("weight", "bias")}

    def count(self, prefix: str) -> int:
        """How many blocks are numbered behind a prefix: blocks.0, blocks.1, ..."""
        found = (re.match(rf"{re.escape(prefix)}\.(\d{{1,4}})\.", name) for name in self._tensors)
        return 1 + max((int(m[1]) for m in found if m), default=-1)

    @property
    def unmatched(self) -> list[str]:
        """Names that nothing of ours was made from."""
        return sorted(set(self._tensors) - self.taken)


def weight_files(place: Path) -> list[Path]:
    """The safetensors files of a file, a model folder, or the `transformer` folder of a pipeline.

    Raises WeightsError when there are none; pickled weights are never opened.
    """
    if place.is_file():
        found = [place]
    else:
        found = sorted(place.glob("*.safetensors")) or sorted(
            place.glob("transformer/*.safetensors")
        )
        if not found:
            found = sorted(p for p in place.glob("*") if p.suffix in PICKLES)[:1]
    if not found:
        raise WeightsError(f"{place}: no *.safetensors there, nor in its folder transformer/.")
    for path in found:
        if path.suffix != ".safetensors":
            raise WeightsError(
                f"{path}: only safetensors are read, since a pickle can run any code. Ask its "
                "publisher for safetensors, or convert it where you trust it."
            )
    return found


def read_weights(files: Iterable[Path]) -> dict[str, Tensor]:
    """All tensors, without wrappers in front of their names (`model.diffusion_model.`, `module.`).

    Raises CheckpointError for files that are damaged, and for a name that comes twice.
    """
    out: dict[str, Tensor] = {}
    for path in files:
        try:
            tensors = safetensors.torch.load_file(path)
        except (OSError, safetensors.SafetensorError) as error:
            raise CheckpointError(f"weights {path} cannot be read: {error}.") from error
        for name, value in tensors.items():
            plain = _WRAPPERS.sub("", name)
            if plain in out:
                raise CheckpointError(f"weights {path}: {plain!r} comes more than once.")
            if not value.is_floating_point() or value.element_size() < 2:
                raise CheckpointError(
                    f"weights {path}: {name} is {value.dtype}; float32, float16 or bfloat16 is "
                    "wanted (no quantised weights)."
                )
            out[plain] = value
    return out
