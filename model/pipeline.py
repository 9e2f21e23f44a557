"""From a prompt to a clip: everything that generation needs, in one folder.

<folder>/model.safetensors  model.json        weights (EMA), config, fingerprints, provenance
<folder>/video_codec/  audio_codec/  text_encoder/
"""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from reelmill.errors import CheckpointError, PromptError, UsageError, WorkspaceError
from reelmill.model.codecs.codec import AudioCodec, VideoCodec, to_frames, to_pixels
from reelmill.model.codecs.load import load_audio_codec, load_video_codec
from reelmill.model.encoders.encoder import PromptEncoder
from reelmill.model.encoders.load import load_encoder
from reelmill.model.guidance import NO_GUIDANCE, Guider
from reelmill.model.mmdit import MMDiT
from reelmill.model.sampler import AudioCanvas, VideoCanvas, sample
from reelmill.model.weights_file import read_model, write_model

FPS = 16  # all base training of the paper is at 16 fps (Table 1)
VIDEO_CODEC, AUDIO_CODEC, TEXT_ENCODER = "video_codec", "audio_codec", "text_encoder"
MAX_SECONDS = 3600

Role = Literal["target", "held", "absent"]


@dataclass(frozen=True)
class _Job:
    """What a task makes of each modality, and the one input that it needs."""

    video: Role
    audio: Role
    needs: Literal["", "image", "video", "audio"] = ""


JOBS = {
    "t2i": _Job("target", "absent"),
    "t2v": _Job("target", "absent"),
    "t2av": _Job("target", "target"),
    "t2a": _Job("absent", "target"),
    "i2v": _Job("target", "absent", "image"),
    "i2av": _Job("target", "target", "image"),
    "v2a": _Job("held", "target", "video"),
    "a2v": _Job("target", "held", "audio"),
}


@dataclass(frozen=True)
class GeneratedClip:
    """video: uint8 RGB [F, H, W, 3] at `fps`, None for t2a. audio: float32 [channels, n] at
    `audio_rate` Hz with n = round(F / fps * audio_rate), None for a task without sound.

    provenance: JSON values: what it was made with; enough to make it again.
    """

    video: np.ndarray | None
    fps: float
    audio: np.ndarray | None
    audio_rate: int
    provenance: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class Pipeline:
    """A model with the codecs and the prompt encoder that it was trained with."""

    model: MMDiT
    video_codec: VideoCodec
    audio_codec: AudioCodec
    encoder: PromptEncoder
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        config = self.model.config
        pairs = [
            ("video channels", config.video.out_ch, self.video_codec.channels),
            ("prompt width", config.video.text_dim, self.encoder.width),
        ]
        if config.audio is not None:
            pairs.append(("audio channels", config.audio.out_ch, self.audio_codec.channels))
        for name, model, part in pairs:
            if model != part:
                raise CheckpointError(
                    f"{name}: the model has {model}, its codec or encoder {part}. They were not "
                    "trained together."
                )

    @property
    def fingerprints(self) -> dict[str, str]:
        return {
            "video": self.video_codec.fingerprint(),
            "audio": self.audio_codec.fingerprint(),
            "text": self.encoder.fingerprint(),
        }

    def save(self, folder: Path) -> Path:
        """Writes the folder, there whole or not at all; one that exists is replaced.

        Raises WorkspaceError when it cannot be written.
        """
        temporary = folder.with_name(f".{folder.name}.tmp-{os.getpid()}")
        try:
            shutil.rmtree(temporary, ignore_errors=True)
            details = {"fingerprints": self.fingerprints, "provenance": dict(self.provenance)}
            write_model(temporary, self.model.config, self.model.state_dict(), details)
            self.video_codec.save(temporary / VIDEO_CODEC)
            self.audio_codec.save(temporary / AUDIO_CODEC)
            self.encoder.save(temporary / TEXT_ENCODER)
            if folder.exists():
                shutil.rmtree(folder)
            temporary.rename(folder)
        except OSError as error:
            shutil.rmtree(temporary, ignore_errors=True)
            raise WorkspaceError(f"model {folder} cannot be written: {error}.") from error
        return folder

    @classmethod
    def load(cls, folder: Path) -> Pipeline:
        """Raises CheckpointError when anything is missing, damaged or of another training."""
        if not folder.is_dir():
            raise CheckpointError(f"no model folder {folder}. `reelmill train` exports one.")
        model, details = read_model(folder)
        pipeline = cls(
            model=model,
            video_codec=load_video_codec(folder / VIDEO_CODEC),
            audio_codec=load_audio_codec(folder / AUDIO_CODEC),
            encoder=load_encoder(folder / TEXT_ENCODER),
            provenance=details.get("provenance") or {},
        )
        trained = details.get("fingerprints")
        for name, found in pipeline.fingerprints.items():
            expected = trained.get(name) if isinstance(trained, dict) else None
            if expected != found:
                raise CheckpointError(
                    f"model {folder}: its {name} latents have fingerprint {expected!r}, the codec "
                    f"or encoder beside it has {found!r}. Put back the one it was trained with."
                )
        return pipeline

    def to(self, device: torch.device | str) -> Pipeline:
        self.model.to(device)
        return self

    def generate(
        self,
        prompt: str,
        *,
        task: str | None = None,
        frames: int | None = None,
        seconds: float | None = None,
        height: int = 64,
        width: int = 64,
        fps: float = FPS,
        seed: int = 0,
        image: np.ndarray | None = None,
        video: np.ndarray | None = None,
        audio: np.ndarray | None = None,
        steps: int = 50,
        shift: float = 5.0,
        guider: Guider = NO_GUIDANCE,
        progress: Callable[[int, int], None] | None = None,
    ) -> GeneratedClip:
        """One clip.

        task: one of JOBS; by what is given where None: image i2v, video v2a, audio a2v, else t2av.
        frames or seconds: length, brought to 1 + a multiple of 4 frames; an audio or a video that
        is held gives it. image: uint8 RGB [h, w, 3], scaled and cropped to height x width. video:
        uint8 RGB [F, height, width, 3] at `fps`. audio: float32 [channels, n] at the codec's rate,
        mixed to mono for the model. Held inputs come back as they were, cut to the length.
        Raises PromptError for inputs that do not fit.
        """
        given = {"image": image, "video": video, "audio": audio}
        name, job = _choose(task, given)
        if job.audio != "absent" and self.model.config.audio is None:
            raise PromptError(f"task {name} has sound, but this model has no audio tower.")
        if not (1 <= fps <= 240 and steps >= 1 and shift > 0):
            raise PromptError(
                f"fps {fps}, steps {steps}, shift {shift}: 1 to 240, 1 or more, above 0 are needed."
            )
        if video is not None:
            _check_pictures("video", video, 4)
            height, width = video.shape[1:3]
        self._check_size(height, width)
        frames = self._length(name, job, frames, seconds, fps, video, audio)
        samples = round(
            Fraction(frames) / Fraction(fps).limit_denominator(1001) * self.audio_codec.rate
        )
        sound = None if audio is None else _fit_sound(audio, samples)
        pictures = None if video is None else video[:frames]
        z_video, z_audio = sample(
            self.model,
            self.encoder.encode([prompt]),
            video=self._video_canvas(job, frames, height, width, image, pictures),
            audio=self._audio_canvas(job, frames, samples, sound),
            null=self.encoder.encode([""]),
            seeds=[seed],
            steps=steps,
            s=shift,
            guider=guider,
            progress=progress,
        )
        if job.video == "target" and z_video is not None:
            pictures = to_frames(self.video_codec.decode(z_video))
        if job.audio == "target" and z_audio is not None:
            sound = self.audio_codec.decode(z_audio, samples).clamp(-1, 1).cpu().numpy()
        made_with = {
            "prompt": prompt,
            "task": name,
            "seed": seed,
            "frames": frames,
            "height": height,
            "width": width,
            "fps": fps,
            "steps": steps,
            "shift": shift,
            "guidance": guider.to_json(),
            "config": self.model.config.hash,
            "codecs": {
                "video": type(self.video_codec).__name__,
                "audio": type(self.audio_codec).__name__,
                "text": type(self.encoder).__name__,
            },
            "fingerprints": self.fingerprints,
            "model": dict(self.provenance),
        }
        return GeneratedClip(pictures, fps, sound, self.audio_codec.rate, made_with)

    def _check_size(self, height: int, width: int) -> None:
        patch, stride = self.model.config.video.patch, self.video_codec.stride
        down, across = stride[1] * patch[1], stride[2] * patch[2]
        if height < down or width < across or height % down or width % across:
            raise PromptError(
                f"pictures of {height} x {width} pixels: height must be a multiple of {down} and "
                f"width of {across}."
            )

    def _length(
        self,
        name: str,
        job: _Job,
        frames: int | None,
        seconds: float | None,
        fps: float,
        video: np.ndarray | None,
        audio: np.ndarray | None,
    ) -> int:
        """Frames: 1 + a multiple of the codec's stride, and no longer than what is held."""
        stride = self.video_codec.stride[0]
        if name == "t2i":
            return 1
        if frames is not None and seconds is not None:
            raise PromptError("give frames or seconds, not both.")
        if seconds is not None:
            if not 0 < seconds <= MAX_SECONDS:
                raise PromptError(f"seconds is {seconds}; above 0 and up to {MAX_SECONDS}.")
            frames = 1 + stride * max(0, round((seconds * fps - 1) / stride))
        elif frames is not None and (frames < 1 or (frames - 1) % stride):
            raise PromptError(f"frames is {frames}; 1 + a multiple of {stride} is needed.")
        held: int | None = None
        if job.video == "held" and video is not None:
            held = len(video)
        if job.audio == "held" and audio is not None:
            if audio.ndim != 2 or audio.shape[0] < 1 or not np.isfinite(audio).all():
                raise PromptError(f"audio of shape {audio.shape}: finite [channels, n] is needed.")
            held = math.floor(audio.shape[1] / self.audio_codec.rate * fps + 1e-6)
        if held is not None:
            longest = 1 + stride * ((held - 1) // stride)
            frames = longest if frames is None else frames
            if held < 1 or frames > longest:
                raise PromptError(
                    f"{frames} frames are asked for; the given {job.needs} has {held}."
                )
        frames = 1 + 4 * stride if frames is None else frames
        if job.audio != "absent" and frames / fps * self.audio_codec.rate < self.audio_codec.hop:
            raise PromptError(
                f"{frames} frames at {fps} fps are too short for sound; ask for more."
            )
        return frames

    def _video_canvas(
        self,
        job: _Job,
        frames: int,
        height: int,
        width: int,
        image: np.ndarray | None,
        pictures: np.ndarray | None,
    ) -> VideoCanvas | None:
        if job.video == "absent":
            return None
        if job.video == "held" and pictures is not None:
            known = self.video_codec.encode(to_pixels(pictures))
            return VideoCanvas(known, torch.ones_like(known[:, :1]), held=True)
        known = self.video_codec.encode(torch.full((1, 3, frames, height, width), -1.0))
        mask = torch.zeros_like(known[:, :1])
        if image is not None:
            _check_pictures("image", image, 3)
            first = self.video_codec.encode(cover(image, height, width))
            known[:, :, :1], mask[:, :, :1] = first, 1.0
        return VideoCanvas(known, mask)

    def _audio_canvas(
        self, job: _Job, frames: int, samples: int, sound: np.ndarray | None
    ) -> AudioCanvas | None:
        if job.audio == "absent":
            return None
        latents = 1 + (frames - 1) // self.video_codec.stride[0]
        length = samples // self.audio_codec.hop
        if sound is None:
            return AudioCanvas(length, latents)
        mono = torch.from_numpy(sound.mean(0, keepdims=True, dtype=np.float32))
        return AudioCanvas(length, latents, held=self.audio_codec.encode(mono))


def cover(image: np.ndarray, height: int, width: int) -> Tensor:
    """uint8 RGB [h, w, 3] -> float [1, 3, 1, height, width] in [-1, 1]: scaled until it covers,
    then cut in the middle."""
    x = to_pixels(image[None])[:, :, 0]
    scale = max(height / x.shape[2], width / x.shape[3])
    size = [max(height, round(x.shape[2] * scale)), max(width, round(x.shape[3] * scale))]
    x = F.interpolate(x, size, mode="bicubic", antialias=True).clamp(-1, 1)
    top, left = (size[0] - height) // 2, (size[1] - width) // 2
    return x[:, :, None, top : top + height, left : left + width]


def _choose(task: str | None, given: Mapping[str, np.ndarray | None]) -> tuple[str, _Job]:
    inputs = [name for name, value in given.items() if value is not None]
    if task is None:
        by_input = {"image": "i2v", "video": "v2a", "audio": "a2v"}
        task = by_input[inputs[0]] if len(inputs) == 1 else "t2av"
    if task not in JOBS:
        raise UsageError(f"no task {task!r}; there are: {', '.join(JOBS)}.")
    job = JOBS[task]
    if inputs != ([job.needs] if job.needs else []):
        raise PromptError(
            f"task {task} takes {job.needs or 'a prompt alone'}; "
            f"given: {', '.join(inputs) or 'nothing'}."
        )
    return task, job


def _check_pictures(name: str, pictures: np.ndarray, ndim: int) -> None:
    if (
        pictures.dtype != np.uint8
        or pictures.ndim != ndim
        or pictures.shape[-1] != 3
        or not pictures.size
    ):
        raise PromptError(
            f"{name} is {pictures.dtype} {pictures.shape}; uint8 RGB [.., h, w, 3] is needed."
        )


def _fit_sound(audio: np.ndarray, samples: int) -> np.ndarray:
    """Cut to the length of the video; rounding may leave it a sample short, which is repeated."""
    sound = audio[:, :samples].astype(np.float32)
    return np.pad(sound, ((0, 0), (0, samples - sound.shape[1])), mode="edge")
