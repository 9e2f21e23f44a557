"""A prompt encoder without weights: hashed words and byte trigrams.

It is no language model: it knows which words are there and in which order, not what they mean.
Its tokens are one per word, tag (`<sfx>`, `</sfx>`), reference (`@image_1`) or mark.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch

from reelmill.errors import CheckpointError, PromptError
from reelmill.model.codecs.saved import read_json
from reelmill.model.modality import Text

_TOKEN = re.compile(r"</?[a-z_]{1,20}>|@\w{1,20}(?:-\d{1,4})?|\w+|[^\w\s]")
MAX_CHARACTERS = 100_000


@dataclass(frozen=True)
class HashTextEncoder:
    """width: of a token. max_tokens: what comes later in a prompt is cut off."""

    width: int = 64
    max_tokens: int = 256

    kind: ClassVar[str] = "HashTextEncoder"
    version: ClassVar[int] = 1

    def encode(self, prompts: Sequence[str]) -> Text:
        """float32 tokens [B, L, width] of unit mean square. Raises PromptError for a prompt of
        more than 100000 characters."""
        return Text.stack([torch.from_numpy(self._tokens(prompt)) for prompt in prompts])

    def fingerprint(self) -> str:
        return hashlib.sha256(json.dumps(self._head(), sort_keys=True).encode()).hexdigest()

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "encoder.json").write_text(json.dumps(self._head(), indent=1, sort_keys=True))

    @classmethod
    def load(cls, folder: Path) -> HashTextEncoder:
        """Raises CheckpointError for a folder that is no such encoder."""
        head = read_json(folder / "encoder.json")
        sizes = [head.get("width"), head.get("max_tokens")]
        if not all(isinstance(n, int) and 0 < n <= 1 << 16 for n in sizes):
            raise CheckpointError(f"encoder {folder}: width and max_tokens are {sizes}.")
        encoder = cls(*sizes)  # type: ignore[arg-type]
        if head != encoder._head():
            raise CheckpointError(f"encoder {folder} is {head}; {encoder._head()} is wanted.")
        return encoder

    def _head(self) -> dict[str, str | int]:
        return {
            "kind": self.kind,
            "version": self.version,
            "width": self.width,
            "max_tokens": self.max_tokens,
        }

    def _tokens(self, prompt: str) -> np.ndarray:
        if len(prompt) > MAX_CHARACTERS:
            raise PromptError(
                f"a prompt of {len(prompt)} characters; at most {MAX_CHARACTERS} are read."
            )
        words = _TOKEN.findall(unicodedata.normalize("NFC", prompt).lower()) or [""]
        words = words[: self.max_tokens]
        out = np.empty((len(words), self.width), np.float32)
        for i, (before, word) in enumerate(zip(["", *words], words, strict=False)):
            # Word, what it is made of, what it follows, where it stands.
            spelling = [_vector(b"3" + part, self.width) for part in _trigrams(word)]
            out[i] = _vector(b"1" + word.encode(), self.width)
            out[i] += 0.5 * np.mean(spelling, 0) * math.sqrt(len(spelling))
            out[i] += 0.5 * _vector(b"2" + before.encode() + b" " + word.encode(), self.width)
            out[i] += 0.25 * _place(i, self.width)
        return out / np.sqrt(np.square(out).mean(1, keepdims=True))


def _trigrams(word: str) -> list[bytes]:
    data = b"^" + word.encode() + b"$"
    return [data[i : i + 3] for i in range(max(1, len(data) - 2))]


@lru_cache(maxsize=65_536)
def _vector(data: bytes, width: int) -> np.ndarray:
    """A fixed pseudo-random vector [width] of about unit variance."""
    digest = hashlib.shake_128(data).digest(width)
    return (np.frombuffer(digest, np.uint8).astype(np.float32) - 127.5) / 73.9


def _place(i: int, width: int) -> np.ndarray:
    rates = 100.0 ** (-np.arange(math.ceil(width / 2)) / max(1, width // 2))
    angles = i * rates
    return np.concatenate((np.sin(angles), np.cos(angles)))[:width].astype(np.float32) * math.sqrt(
        2
    )
