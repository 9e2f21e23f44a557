"""Opens a saved prompt encoder, whatever its kind."""

from __future__ import annotations

from pathlib import Path

from reelmill.errors import CheckpointError
from reelmill.model.codecs.saved import read_json
from reelmill.model.encoders.encoder import PromptEncoder
from reelmill.model.encoders.hash_text import HashTextEncoder


def load_encoder(folder: Path) -> PromptEncoder:
    """Raises CheckpointError when the folder holds no prompt encoder."""
    match read_json(folder / "encoder.json").get("kind"):
        case HashTextEncoder.kind:
            return HashTextEncoder.load(folder)
        case other:
            raise CheckpointError(f"{folder} holds {other!r}; prompt encoders: HashTextEncoder.")
