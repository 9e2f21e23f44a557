"""From a prompt, and files to go by, to a clip on disk."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from reelmill.datasets.media.encode import write_audio, write_image, write_video
from reelmill.datasets.workspace import commit_bytes
from reelmill.errors import PromptError
from reelmill.model.guidance import Guider, ModalityCFG, ReferenceCFG, Rescale, TextCFG
from reelmill.model.pipeline import GeneratedClip, Pipeline
from reelmill.model.refiner import RefineOptions
from reelmill.training import given
from reelmill.training.contact_sheet import contact_sheet

VIDEO, AUDIO, IMAGE = (".mp4", ".mov", ".mkv"), (".flac", ".wav", ".m4a"), (".png", ".jpg", ".webp")
CODECS = {".flac": "flac", ".wav": "pcm_s16le", ".m4a": "aac"}


@dataclass(frozen=True)
class GenerateOptions:
    """What to generate, with which model, into which file.

    model: folder that training exported. output: its suffix must suit the task: .mp4, .mov or .mkv
    for video, .flac, .wav or .m4a for sound alone, .png, .jpg or .webp for a picture. task: one of
    model/tasks.py; None: by what is given.
    image, end: first and last frame. video: gets sound, is edited or goes on, by the task. audio:
    gets a picture. keep: picture or video, light where the source stays as it is; change: a box
    (x, y, width, height) outside of which it does. strength: share of noise over the video, above
    0 to 1. references: files by the names that the prompt uses (`image_1`).
    text_scale: guidance by the prompt, audio_text_scale: of the sound where it is another;
    modality_scale, reference_scale: by the other modality, by references; 1 is off, each costs a
    forward pass. rescale: 0 to 1, against contrast that guidance adds.
    refine: the Refiner makes the pictures `scale` times as large and twice as many, in
    `refine_steps` steps.
    preview: writes `<output>.preview.jpg`, a sheet of frames.
    """

    prompt: str
    model: Path
    output: Path
    task: str | None = None
    image: Path | None = None
    end: Path | None = None
    video: Path | None = None
    audio: Path | None = None
    keep: Path | None = None
    change: tuple[int, int, int, int] | None = None
    strength: float | None = None
    references: Mapping[str, Path] = field(default_factory=dict)
    negative: str = ""
    negative_audio: str | None = None
    seconds: float | None = None
    frames: int | None = None
    height: int = 64
    width: int = 64
    fps: int = 16
    steps: int = 50
    shift: float = 5.0
    solver: str = "euler"
    text_scale: float = 1.0
    audio_text_scale: float | None = None
    modality_scale: float = 1.0
    reference_scale: float = 1.0
    rescale: float = 0.0
    seed: int = 0
    refine: bool = False
    scale: int = 2
    refine_steps: int = 12
    preview: bool = False

    @property
    def guider(self) -> Guider:
        audio = self.text_scale if self.audio_text_scale is None else self.audio_text_scale
        return Guider(
            text=TextCFG(self.text_scale, audio),
            modality=ModalityCFG(self.modality_scale, self.modality_scale),
            rescale=Rescale(self.rescale, self.rescale),
            reference=ReferenceCFG(self.reference_scale, self.reference_scale),
        )

    def check(self) -> None:
        """Raises PromptError for what can be known before a model is loaded."""
        if self.output.suffix.lower() not in VIDEO + AUDIO + IMAGE:
            names = ", ".join(VIDEO + AUDIO + IMAGE)
            raise PromptError(f"output {self.output}: name it {names}, by what is made.")
        if self.keep is not None and self.change is not None:
            raise PromptError("--keep and --change both say what stays; give one of them.")
        if not (1 <= self.fps <= 240 and self.height >= 1 and self.width >= 1):
            raise PromptError(
                f"{self.width} x {self.height} pixels at {self.fps} fps: 1 or more, at 1 to 240 "
                "fps, are needed."
            )
        if not 0 <= self.rescale <= 1:
            raise PromptError(f"rescale is {self.rescale}; 0 to 1 is needed.")


@dataclass(frozen=True)
class GenerateResult:
    """seconds: of the clip; 0 for a picture. provenance: how to make it again, also beside it."""

    output: Path
    seconds: float
    frames: int
    provenance: Mapping[str, Any]


def generate(
    options: GenerateOptions,
    progress: Callable[[int, int], None] | None = None,
    *,
    pipeline: Pipeline | None = None,
    notes: Mapping[str, Any] | None = None,
) -> GenerateResult:
    """Generates one clip and writes it, and `<output>.json` with its provenance, which videos and
    sounds also carry as their comment.

    pipeline: the model, where it is loaded already. notes: further JSON values of the provenance.
    Raises PromptError (prompt, files or output that do not fit), CheckpointError (model),
    WorkspaceError (disk).
    """
    options.check()
    pipeline = pipeline or Pipeline.load(options.model)
    o, rate = options, pipeline.audio_codec.rate
    size = o.height, o.width
    edited = o.keep is not None or o.change is not None
    keep = None
    if o.keep is not None:
        keep = given.read_keep(o.keep, o.fps, *size)
    elif o.change is not None:
        keep = given.outside(o.change, *size)
    image = None
    if o.image is not None:
        # What is edited is brought to size; a first frame is scaled by the pipeline.
        image = (
            given.read_picture("image", o.image, *size)
            if edited and o.video is None
            else given.read_image("image", o.image)
        )
    made = pipeline.generate(
        o.prompt,
        task=o.task,
        frames=o.frames,
        seconds=o.seconds,
        height=o.height,
        width=o.width,
        fps=o.fps,
        seed=o.seed,
        image=image,
        end=None if o.end is None else given.read_image("end", o.end),
        video=None if o.video is None else given.read_video("video", o.video, o.fps, *size),
        keep=keep,
        strength=o.strength,
        audio=None if o.audio is None else given.read_sound("audio", o.audio, rate),
        references=given.read_references(o.references, o.fps, rate),
        negative=o.negative,
        negative_audio=o.negative_audio,
        steps=o.steps,
        shift=o.shift,
        solver=o.solver,
        guider=o.guider,
        refine=RefineOptions(steps=o.refine_steps) if o.refine else None,
        scale=o.scale,
        progress=progress,
    )
    provenance = {**made.provenance, **(notes or {})}
    facts = json.dumps(provenance, indent=1, sort_keys=True, default=str)
    _write(o.output, made, json.dumps(provenance, sort_keys=True, default=str))
    if o.preview and made.video is not None:
        write_image(o.output.with_name(f"{o.output.name}.preview.jpg"), contact_sheet(made.video))
    commit_bytes(o.output.with_name(f"{o.output.name}.json"), facts.encode() + b"\n")
    frames = 0 if made.video is None else len(made.video)
    seconds = 0.0 if made.audio is None else made.audio.shape[1] / made.audio_rate
    return GenerateResult(
        o.output, seconds or (frames / made.fps if frames > 1 else 0.0), frames, provenance
    )


def _write(output: Path, made: GeneratedClip, comment: str) -> None:
    suffix, told = output.suffix.lower(), {"comment": comment}
    if made.video is None:
        if suffix not in AUDIO or made.audio is None:
            raise PromptError(
                f"output {output}: this task makes sound; name it {', '.join(AUDIO)}."
            )
        write_audio(output, made.audio, made.audio_rate, codec=CODECS[suffix], metadata=told)
    elif len(made.video) == 1 and suffix in IMAGE:
        write_image(output, np.ascontiguousarray(made.video[0]))
    elif suffix in VIDEO:
        write_video(
            output,
            made.video,
            fps=made.fps,
            audio=made.audio,
            audio_rate=made.audio_rate,
            crf=14,
            metadata=told,
        )
    else:
        raise PromptError(f"output {output}: this task makes video; name it {', '.join(VIDEO)}.")
