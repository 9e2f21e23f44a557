"""Tasks as masks and roles (paper section 3.2; PAPER.md M8).

A task says what each modality is: `target` is noised and predicted, `clean` is given whole at
t = 1, `absent` drops its tower from the forward pass. Known latent frames of a target video are
given through I and M, which are concatenated to it on the channels: M = 1 is known.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

Role = Literal["target", "clean", "absent"]


@dataclass(frozen=True)
class Task:
    """known: what of a target video is given: none, the first latent frame, or the same clip
    smaller and at half the rate (the Refiner's task)."""

    name: str
    video: Role
    audio: Role
    known: Literal["none", "first", "low"] = "none"
    images: bool = False  # draws 1-frame samples instead of clips

    def usable(self, frames: np.ndarray, has_audio: np.ndarray, low: bool = False) -> np.ndarray:
        """bool [n]: which samples have what the task needs. low: whether they have that clip."""
        if self.known == "low" and not low:
            return np.zeros(len(frames), np.bool_)
        fitting = (frames == 1) if self.images else (frames > 1)
        return fitting if self.audio == "absent" else fitting & has_audio


TASKS = {
    task.name: task
    for task in (
        Task("t2i", "target", "absent", images=True),
        Task("t2v", "target", "absent"),
        Task("i2v", "target", "absent", known="first"),
        Task("t2av", "target", "target"),
        Task("t2a", "absent", "target"),
        # Not in the paper's mix; they make synchronisation learnable in few steps.
        Task("v2a", "clean", "target"),
        Task("a2v", "target", "clean"),
        Task("refine", "target", "absent", known="low"),
    )
}


def known_mask(task: Task, video: Tensor) -> Tensor:
    """M for latents [b, C, T, h, w]: float [b, 1, T, h, w], 1 = known, 0 = to be generated."""
    mask = torch.zeros_like(video[:, :1])
    if task.video == "clean":
        mask[:] = 1
    elif task.known == "first":
        mask[:, :, 0] = 1
    return mask


def condition(video: Tensor, mask: Tensor, black: Tensor) -> Tensor:
    """I: latents where known, the black image's latents elsewhere.

    video: [b, C, T, h, w]. mask: [b, 1, T, h, w]. black: [C, T, h, w], latents of a black clip.
    """
    return torch.where(mask.bool(), video, black.to(video))
