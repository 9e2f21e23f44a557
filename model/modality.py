"""What enters the model: tokens of one modality with all that is said about them, and text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

TARGET, REFERENCE, KEYFRAME = 0, 1, 2


@dataclass(frozen=True)
class Modality:
    """Tokens of one modality; conditioning.py builds them from latents.

    x: [B, L, token_in]. pos: float [B or 1, L, 3] (time, y, x), audio [B or 1, L, 1] (time, on the
    clock of the video latents). t: [B, 1] where all tokens of a sample share it, else [B, L];
    paper time, 1 is clean (references, a modality that is held). kind: int8 [B or 1, L], 0 target,
    1 reference, 2 keyframe; None when all are targets. pad: bool [B, L], True is no token; None
    when there is no padding, which is the fast way. grid: frames, rows, columns of a video's
    tokens, which then come last and in raster order.
    """

    x: Tensor
    pos: Tensor
    t: Tensor
    kind: Tensor | None = None
    pad: Tensor | None = None
    grid: tuple[int, int, int] | None = None


@dataclass(frozen=True)
class Text:
    """A prompt as its encoder gives it, read by both towers.

    tokens: [B, L, text_dim]. pad: bool [B, L], True is no token; None when there is no padding.
    Every sample has at least one token.
    """

    tokens: Tensor
    pad: Tensor | None = None

    @classmethod
    def stack(cls, prompts: Sequence[Tensor]) -> Text:
        """Prompts [n_i, text_dim] of different lengths as one batch, padded with zeros."""
        lengths = [len(p) for p in prompts]
        if not lengths or min(lengths) == 0:
            raise ValueError(f"every prompt needs at least one token; got lengths {lengths}")
        tokens = torch.nn.utils.rnn.pad_sequence(list(prompts), batch_first=True)
        if min(lengths) == max(lengths):
            return cls(tokens)
        count = torch.tensor(lengths, device=tokens.device)
        return cls(tokens, torch.arange(max(lengths), device=tokens.device) >= count[:, None])

    def unstack(self) -> list[Tensor]:
        """The prompts one by one, [n_i, text_dim], without padding."""
        if self.pad is None:
            return list(self.tokens)
        return [t[~p] for t, p in zip(self.tokens, self.pad, strict=True)]

    def to(self, device: torch.device) -> Text:
        return Text(self.tokens.to(device), None if self.pad is None else self.pad.to(device))
