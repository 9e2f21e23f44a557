"""One step's losses: of the parts of a rank's share, and of the whole batch over all ranks."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from reelmill.datasets.loader import Batch
from reelmill.training.objective import Losses
from reelmill.training.ranks import Ranks


@dataclass(frozen=True)
class Report:
    """What a rank tells of its share. values: by modality, a loss for each slot."""

    slots: list[int]
    keys: tuple[str, ...]
    t: list[float]
    values: dict[str, list[float]]
    total: float
    norm: float
    stop: bool


@dataclass(frozen=True)
class Outcome:
    """Of a whole batch, the same on all ranks. batch: only its keys and slots are those of all.

    norm: of the gradient. stop: whether some rank was asked to.
    """

    batch: Batch
    losses: Losses
    norm: float
    stop: bool


def part(batch: Batch, chosen: slice) -> Batch:
    """Some samples of a batch, all tensors cut alike."""

    def cut(rows: np.ndarray | None) -> np.ndarray | None:
        return None if rows is None else rows[chosen]

    return replace(
        batch,
        slots=batch.slots[chosen],
        keys=batch.keys[chosen],
        video=batch.video[chosen],
        audio=cut(batch.audio),
        text=cut(batch.text),
        text_mask=cut(batch.text_mask),
        captions=batch.captions[chosen],
        meta=batch.meta[chosen],
        low=cut(batch.low),
        other=cut(batch.other),
        other_audio=cut(batch.other_audio),
    )


def parts(batch: Batch, count: int) -> Iterator[Batch]:
    """A batch in so many equal parts; the trainer has checked that it divides."""
    size = len(batch.slots) // count
    for first in range(0, len(batch.slots), size):
        yield part(batch, slice(first, first + size))


def outcome(
    ranks: Ranks, batch: Batch, losses: Sequence[Losses], norm: float, stop: bool
) -> Outcome:
    """Puts together what all ranks know of a step. norm: of this rank's part of the gradient."""
    kinds = {
        kind: torch.cat([getattr(one, kind) for one in losses]).tolist()
        for kind in ("video", "audio")
        if getattr(losses[0], kind) is not None
    }
    mine = Report(
        slots=batch.slots.tolist(),
        keys=batch.keys,
        t=torch.cat([one.t for one in losses]).tolist(),
        values=kinds,
        total=sum(one.total.item() for one in losses) / len(losses),
        norm=norm,
        stop=stop,
    )
    told = ranks.gather(mine)
    shares = ranks.shares(told)
    slots = np.array([slot for share in shares for slot in share.slots])
    order = np.argsort(slots, kind="stable")
    keys = [key for share in shares for key in share.keys]

    def ordered(values: list[float]) -> Tensor:
        return torch.tensor(values, dtype=torch.float64)[order]

    found = {
        kind: ordered([value for share in shares for value in share.values[kind]]) for kind in kinds
    }
    return Outcome(
        batch=replace(batch, slots=slots[order], keys=tuple(keys[i] for i in order)),
        losses=Losses(
            total=torch.tensor(
                sum(share.total for share in shares) / len(shares), dtype=torch.float64
            ),
            video=found.get("video"),
            audio=found.get("audio"),
            t=ordered([t for share in shares for t in share.t]),
        ),
        norm=math.hypot(*(share.norm for share in told)),
        stop=any(share.stop for share in told),
    )
