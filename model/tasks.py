"""Tasks: what each modality is, and what must be given (paper section 3.2; PAPER.md M8, M9)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from reelmill.errors import PromptError, UsageError
from reelmill.model.prompt import Reference

Role = Literal["target", "held", "absent"]
MAX_IMAGES = 4  # references; SkyReels-V3


@dataclass(frozen=True)
class Job:
    """What a task makes of each modality, and the inputs that it needs."""

    video: Role
    audio: Role
    needs: tuple[str, ...] = ()


JOBS = {
    "t2i": Job("target", "absent"),
    "t2v": Job("target", "absent"),
    "t2av": Job("target", "target"),
    "t2a": Job("absent", "target"),
    "i2v": Job("target", "absent", ("image",)),
    "i2av": Job("target", "target", ("image",)),
    "ia2v": Job("target", "held", ("image", "audio")),  # talking avatar
    "v2a": Job("held", "target", ("video",)),
    "a2v": Job("target", "held", ("audio",)),
    "inpaint": Job("target", "absent", ("image", "keep")),
    "start_end": Job("target", "absent", ("image", "end")),
    "start_end_av": Job("target", "target", ("image", "end")),
    "extend": Job("target", "absent", ("video",)),
    "edit": Job("target", "absent", ("video", "keep")),
    "edit_av": Job("target", "target", ("video", "keep")),  # sound follows the new picture (M9)
    "v2v": Job("target", "absent", ("video", "strength")),
}


@dataclass(frozen=True)
class Inputs:
    """What is given beside the prompt.

    image, end: first and last frame, uint8 RGB [h, w, 3]. video: uint8 RGB [F, h, w, 3]. keep:
    bool [h, w] or [F, h, w], what of the image or video stays as it is (the paper's M = 1).
    strength: share of noise over the video, above 0 to 1. audio: float32 [channels, n]. references:
    by the names that the prompt uses (`image_1`, `Actor-0`: images; `video_1`; `Audio-0`).
    """

    image: np.ndarray | None = None
    end: np.ndarray | None = None
    video: np.ndarray | None = None
    keep: np.ndarray | None = None
    strength: float | None = None
    audio: np.ndarray | None = None
    references: Mapping[str, np.ndarray] = field(default_factory=dict)

    @property
    def given(self) -> tuple[str, ...]:
        names = ("image", "end", "video", "keep", "strength", "audio")
        return tuple(name for name in names if getattr(self, name) is not None)

    @property
    def source(self) -> np.ndarray | None:
        """Pictures [F, h, w, 3] that set the size: a video, or an image that is edited."""
        if self.video is not None:
            return self.video
        return None if self.image is None or self.keep is None else self.image[None]

    def of_kind(self, kind: str) -> dict[str, np.ndarray]:
        """References that are `image`, `video` or `audio`, in the order they were given."""
        return {n: v for n, v in self.references.items() if Reference(n).kind == kind}

    def check(self) -> None:
        """Raises PromptError for arrays of another type or shape, and too many references."""
        pictures = {"image": self.image, "end": self.end, **self.of_kind("image")}
        clips = {"video": self.video, **self.of_kind("video")}
        for group, ndim in ((pictures, 3), (clips, 4)):
            for name, value in group.items():
                if value is not None:
                    check_pictures(name, value, ndim)
        for name, value in {"audio": self.audio, **self.of_kind("audio")}.items():
            if value is not None:
                check_sound(name, value)
        images = len(self.of_kind("image"))
        if images > MAX_IMAGES:
            raise PromptError(f"{images} image references; at most {MAX_IMAGES} can be given.")
        if self.strength is not None and not 0 < self.strength <= 1:
            raise PromptError(f"strength is {self.strength}; above 0 and up to 1 is needed.")
        if self.keep is not None:
            self._check_keep(self.keep)

    def _check_keep(self, keep: np.ndarray) -> None:
        source = self.source
        if source is None:
            return  # no task takes it alone
        fitting = {source.shape[1:3], source.shape[:3]}
        if keep.dtype != np.bool_ or keep.shape not in fitting:
            sizes = " or ".join(map(str, sorted(fitting, key=len)))
            raise PromptError(f"keep is {keep.dtype} {keep.shape}; bool {sizes} is needed.")


def infer_task(given: Inputs, *, sound: bool = False, audio: bool = True) -> str:
    """The task that uses all that is given.

    sound: whether the prompt says what is to be heard. audio: whether the model can make sound. A
    video alone gets sound (v2a); to be extended or to be a reference, it must be said. Raises
    PromptError when no task takes these inputs together.
    """
    audible = audio and sound
    match given.given:
        case ():
            return "t2av"
        case ("image",):
            return "i2av" if audible else "i2v"
        case ("image", "end"):
            return "start_end_av" if audible else "start_end"
        case ("video", "keep"):
            return "edit_av" if audio else "edit"
        case ("video",):
            return "v2a"
        case inputs:
            for name, job in JOBS.items():
                if job.needs == inputs:
                    return name
    raise PromptError(f"no task takes these together; given: {', '.join(given.given)}.")


def choose_job(task: str | None, given: Inputs, *, sound: bool, audio: bool) -> tuple[str, Job]:
    """The named task, or the one that is inferred. Raises UsageError for an unknown name and
    PromptError when it does not take what is given."""
    name = infer_task(given, sound=sound, audio=audio) if task is None else task
    if name not in JOBS:
        raise UsageError(f"no task {name!r}; there are: {', '.join(JOBS)}.")
    job = JOBS[name]
    if set(given.given) != set(job.needs):
        raise PromptError(
            f"task {name} takes {' and '.join(job.needs) or 'a prompt alone'}; "
            f"given: {', '.join(given.given) or 'nothing'}."
        )
    if job.audio != "absent" and not audio:
        raise PromptError(f"task {name} has sound, but this model has no audio tower.")
    for kind in ("image", "video", "audio"):
        role = job.audio if kind == "audio" else job.video
        unused = given.of_kind(kind)
        if unused and role != "target":
            raise PromptError(
                f"reference @{next(iter(unused))}: task {name} makes no "
                f"{'sound' if kind == 'audio' else 'picture'} that could follow it."
            )
    return name, job


def check_pictures(name: str, pictures: np.ndarray, ndim: int) -> None:
    if (
        pictures.dtype != np.uint8
        or pictures.ndim != ndim
        or pictures.shape[-1] != 3
        or not pictures.size
    ):
        raise PromptError(
            f"{name} is {pictures.dtype} {pictures.shape}; uint8 RGB [.., h, w, 3] is needed."
        )


def check_sound(name: str, sound: np.ndarray) -> None:
    if sound.ndim != 2 or sound.shape[0] < 1 or not np.isfinite(sound).all():
        raise PromptError(f"{name} of shape {sound.shape}: finite [channels, n] is needed.")
