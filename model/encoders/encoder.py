"""What a prompt encoder is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from reelmill.model.modality import Text


class PromptEncoder(Protocol):
    """width: of its tokens, the model's text_dim. Frozen: the same prompt, the same tokens."""

    @property
    def width(self) -> int: ...

    def encode(self, prompts: Sequence[str]) -> Text:
        """Tokens [B, L, width] of prompts; the empty prompt has at least one."""
        ...

    def fingerprint(self) -> str:
        """sha256 of all that decides what tokens mean."""
        ...

    def save(self, folder: Path) -> None: ...
