"""Words put into time: a wav2vec 2.0 that spells, and the likeliest way through a known text.

Any `Wav2Vec2ForCTC` of transformers serves, from a local folder: config.json, model.safetensors and
vocab.json. The way through is torchaudio's forced alignment, as in WhisperX (arXiv 2303.00747),
whose own code wants a tokenizer from a hub.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

from reelmill.errors import WeightsError

RATE = 16_000
SEPARATORS = ("|", " ")
MAX_JSON_BYTES = 8 << 20


@dataclass(frozen=True, slots=True)
class TimedWord:
    """A word and its samples [first, last) at 16 kHz; score: mean probability of its letters."""

    text: str
    first: int
    last: int
    score: float


class Aligner:
    """folder: of the weights entry `wav2vec2`. Raises WeightsError where it is no such network."""

    def __init__(self, folder: Path):
        from safetensors import SafetensorError
        from transformers import Wav2Vec2ForCTC

        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                loaded: Any = Wav2Vec2ForCTC.from_pretrained(
                    folder, local_files_only=True, use_safetensors=True, output_loading_info=True
                )
            network, found = loaded
            if missing := sorted(found["missing_keys"]):  # transformers would make them up
                raise ValueError(f"it lacks {', '.join(missing[:4])}")
            self._network: Any = network.eval()
            vocab = _json(folder / "vocab.json")
            self._letters = {str(k).casefold(): int(v) for k, v in vocab.items() if len(k) == 1}
        except (
            OSError, ValueError, RuntimeError, TypeError, AttributeError, SafetensorError,
        ) as error:  # fmt: skip
            raise WeightsError(
                f"weights 'wav2vec2' in {folder} cannot be loaded: {str(error)[:200]}"
            ) from error
        self._blank = int(self._network.config.pad_token_id or 0)
        marks = [int(vocab[mark]) for mark in SEPARATORS if mark in vocab]
        self._space: int | None = marks[0] if marks else None
        self._flat = True
        if (folder / "preprocessor_config.json").is_file():
            self._flat = bool(_json(folder / "preprocessor_config.json").get("do_normalize", True))

    def log_probabilities(self, sound: np.ndarray) -> torch.Tensor:
        """float32 [frames, letters] of float32 [n] at 16 kHz."""
        sound = sound.astype(np.float32)
        if self._flat:
            sound = (sound - sound.mean()) / np.sqrt(sound.var() + 1e-7)
        with torch.inference_mode():
            found = self._network(torch.from_numpy(sound)[None]).logits[0]
        return found.float().log_softmax(dim=-1)

    def __call__(self, sound: np.ndarray, text: str) -> list[TimedWord] | None:
        """Words of a text with their times, in order; those without a letter that the network knows
        are left out. None where none is known, or where the sound is too short for them.
        """
        from torchaudio.functional import forced_align, merge_tokens

        words = [(word, self._tokens(word)) for word in text.split()]
        words = [(word, tokens) for word, tokens in words if tokens]
        targets: list[int] = []
        for i, (_, tokens) in enumerate(words):
            if i and self._space is not None:
                targets.append(self._space)
            targets += tokens
        if not words or len(sound) < RATE // 40:
            return None
        scores = self.log_probabilities(sound)
        repeats = sum(a == b for a, b in pairwise(targets))
        if len(targets) + repeats > len(scores):
            return None
        path, given = forced_align(
            scores[None], torch.tensor([targets], dtype=torch.int32), blank=self._blank
        )
        spans = merge_tokens(path[0], given[0].exp(), blank=self._blank)
        return self._timed(words, spans, len(sound) / len(scores))

    def _tokens(self, word: str) -> list[int]:
        known = (self._letters.get(letter) for letter in word.casefold())
        return [token for token in known if token not in (None, self._blank, self._space)]  # type: ignore[misc]

    def _timed(
        self, words: Sequence[tuple[str, list[int]]], spans: Sequence[Any], step: float
    ) -> list[TimedWord]:
        found, at = [], 0
        for i, (word, tokens) in enumerate(words):
            at += i > 0 and self._space is not None
            letters = spans[at : at + len(tokens)]
            at += len(tokens)
            first, last = round(letters[0].start * step), round(letters[-1].end * step)
            score = float(np.mean([span.score for span in letters]))
            found.append(TimedWord(word, first, last, score))
        return found


def _json(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        data = json.loads(file.read(MAX_JSON_BYTES))
    if not isinstance(data, dict):
        raise ValueError(f"{path.name} holds no object")
    return data
