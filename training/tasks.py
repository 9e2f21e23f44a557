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

from reelmill.datasets.pairing import Pair

Role = Literal["target", "clean", "absent"]


@dataclass(frozen=True)
class Task:
    """known: what of a target video is given: none, the first latent frame, the first few, a
    region (training/regions.py), or the same clip smaller and at half the rate (the Refiner's
    task). reference: the first frame, or the first few, of another moment of the clip, before the
    video. heard: a stretch of that moment's sound, before the sound. keyframes: some frames of the
    same window at a larger size, made in the same pass (M13).
    """

    name: str
    video: Role
    audio: Role
    known: Literal["none", "first", "prefix", "region", "low"] = "none"
    images: bool = False  # draws 1-frame samples instead of clips
    reference: Literal["none", "image", "video"] = "none"
    heard: bool = False
    keyframes: bool = False

    @property
    def pair(self) -> Pair | None:
        """What other sample goes with each of this task."""
        if self.keyframes:
            return "size"
        return "moment" if self.reference != "none" else None

    def usable(
        self,
        frames: np.ndarray,
        has_audio: np.ndarray,
        low: bool = False,
        pictures: np.ndarray | None = None,
    ) -> np.ndarray:
        """bool [n]: which samples have what the task needs. low: whether they have that clip.
        pictures: whether they have any, true of all where None."""
        if self.known == "low" and not low:
            return np.zeros(len(frames), np.bool_)
        fitting = (frames == 1) if self.images else (frames > 1)
        if pictures is not None and self.video != "absent":
            fitting = fitting & pictures
        return fitting if self.audio == "absent" else fitting & has_audio


TASKS = {
    task.name: task
    for task in (
        Task("t2i", "target", "absent", images=True),
        Task("t2v", "target", "absent"),
        Task("inpaint", "target", "absent", known="region", images=True),
        Task("i2v", "target", "absent", known="first"),
        Task("v2v", "target", "absent", known="prefix"),
        Task("edit", "target", "absent", known="region"),
        Task("image_ref", "target", "absent", reference="image"),
        Task("video_ref", "target", "absent", reference="video"),
        Task("t2av", "target", "target"),
        Task("t2a", "absent", "target"),
        # Not in the paper's mix; they make synchronisation learnable in few steps.
        Task("v2a", "clean", "target"),
        Task("a2v", "target", "clean"),
        Task("multimodal", "target", "target", reference="image", heard=True),
        Task("keyframes", "target", "absent", keyframes=True),
        Task("refine", "target", "absent", known="low"),
    )
}


def known_mask(task: Task, video: Tensor, drawn: Tensor | None = None) -> Tensor:
    """M for latents [b, C, T, h, w]: float [b, 1, T, h, w], 1 = known, 0 = to be generated.

    drawn: bool [b, 1, T, h, w], what is given in a task that draws it (training/regions.py).
    """
    mask = torch.zeros_like(video[:, :1])
    if task.video == "clean":
        mask[:] = 1
    elif task.known in ("prefix", "region"):
        assert drawn is not None, "a batch of this task has it drawn"
        mask[:] = drawn
    elif task.known == "first":
        mask[:, :, 0] = 1
    return mask


def condition(video: Tensor, mask: Tensor, black: Tensor) -> Tensor:
    """I: latents where known, the black image's latents elsewhere.

    video: [b, C, T, h, w]. mask: [b, 1, T, h, w]. black: [C, T, h, w], latents of a black clip.
    """
    return torch.where(mask.bool(), video, black.to(video))
