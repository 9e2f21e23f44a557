"""From a prompt to a clip: everything that generation needs, in one folder.

<folder>/model.safetensors  model.json        weights (EMA), config, fingerprints, provenance
<folder>/video_codec/  audio_codec/  text_encoder/  refiner/ (where there is one)
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch

from reelmill.errors import CheckpointError, PromptError, WorkspaceError
from reelmill.model.canvas import audio_canvas, continued, fit_sound, video_canvas
from reelmill.model.canvas import cover as cover
from reelmill.model.codecs.codec import AudioCodec, VideoCodec, to_frames
from reelmill.model.codecs.load import load_audio_codec, load_video_codec
from reelmill.model.encoders.encoder import PromptEncoder
from reelmill.model.encoders.load import load_encoder
from reelmill.model.forcing import Forcing, force
from reelmill.model.guidance import NO_GUIDANCE, Guider
from reelmill.model.length import clip_length, extended_length
from reelmill.model.mmdit import MMDiT
from reelmill.model.modality import Text
from reelmill.model.prompt import Prompt
from reelmill.model.refiner import RefineOptions
from reelmill.model.refining import Refining, makes_keyframes
from reelmill.model.sampler import AudioCanvas, Latents, VideoCanvas, denoise
from reelmill.model.solvers import Solver, solver_named
from reelmill.model.tasks import JOBS as JOBS
from reelmill.model.tasks import Inputs, Job, choose_job
from reelmill.model.weights_file import read_model, write_model

FPS = 16  # all base training of the paper is at 16 fps (Table 1)
VIDEO_CODEC, AUDIO_CODEC, TEXT_ENCODER = "video_codec", "audio_codec", "text_encoder"
REFINER = "refiner"
WINDOW, CONTEXT = 81, 25  # frames that are made at once, and that an extension looks back on
PIECE = 1_000_003  # between the seeds of pieces


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
    refiner: MMDiT | None = None

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
    def digest(self) -> str:
        """sha256 of the model's weights, as they are in memory."""
        whole = hashlib.sha256(self.model.config.hash.encode())
        for name, value in sorted(self.model.state_dict().items()):
            whole.update(name.encode() + value.detach().float().cpu().numpy().tobytes())
        return whole.hexdigest()

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
            if self.refiner is not None:
                write_model(temporary / REFINER, self.refiner.config, self.refiner.state_dict(), {})
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
            refiner=read_model(folder / REFINER)[0] if (folder / REFINER).is_dir() else None,
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
        if self.refiner is not None:
            self.refiner.to(device)
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
        end: np.ndarray | None = None,
        video: np.ndarray | None = None,
        keep: np.ndarray | None = None,
        strength: float | None = None,
        audio: np.ndarray | None = None,
        references: Mapping[str, np.ndarray] | None = None,
        negative: str = "",
        negative_audio: str | None = None,
        steps: int = 50,
        shift: float = 5.0,
        solver: str = "euler",
        guider: Guider = NO_GUIDANCE,
        forcing: Forcing | None = None,
        window: int = WINDOW,
        context: int = CONTEXT,
        refine: RefineOptions | None = None,
        scale: int = 2,
        progress: Callable[[int, int], None] | None = None,
    ) -> GeneratedClip:
        """One clip.

        task: one of tasks.py; None: by what is given, see `infer_task`. frames or seconds: length,
        brought to 1 + a multiple of 4 frames; an audio or a video that is held or changed gives it.
        image, end: first and last frame, scaled and cropped to height x width. video, audio: at
        `fps`, at the codec's rate; audio is mixed to mono for the model. keep, strength,
        references: see `Inputs`. negative, negative_audio: what guidance leads away from.
        forcing: a time per frame, for long video without sound (forcing.py). refine: the pictures
        are made anew at `scale` times the size and twice the rate by the Refiner; sound stays. It
        sees image and end at that size, and the keyframes of a base model that makes them.
        window, context: an extension is made in pieces of `window` frames, of which the first
        `context` are the last ones of what there is (SkyReels-V3). Held inputs and kept pixels come
        back as they were. Raises PromptError for inputs that do not fit.
        """
        inputs = Inputs(image, end, video, keep, strength, audio, references or {})
        words = Prompt.parse(prompt)
        words.check(inputs.references)
        name, job = choose_job(
            task, inputs, sound=words.sounds, audio=self.model.config.audio is not None
        )
        if not (1 <= fps <= 240 and steps >= 1 and shift > 0):
            raise PromptError(
                f"fps {fps}, steps {steps}, shift {shift}: 1 to 240, 1 or more, above 0 are needed."
            )
        inputs.check()
        if forcing is not None and (job.audio != "absent" or job.video != "target"):
            raise PromptError(f"task {name}: a time per frame is for video without sound.")
        if inputs.source is not None:
            height, width = inputs.source.shape[1:3]
        self._check_size(height, width)
        way = _Way(
            text=self.encoder.encode([prompt]),
            null=self.encoder.encode([negative]),
            null_audio=None if negative_audio is None else self.encoder.encode([negative_audio]),
            steps=steps,
            s=shift,
            solver=solver_named(solver),
            guider=guider,
            forcing=forcing,
            refine=self._refining(refine, scale, job),
        )
        pictures: np.ndarray | None
        if name == "extend":
            frames = extended_length(
                self.video_codec, inputs, frames, seconds, fps, window, context
            )
            pictures, sound = self._extend(way, inputs, frames, window, context, seed, progress)
        else:
            frames = clip_length(
                self.video_codec, self.audio_codec, name, job, inputs, frames, seconds, fps
            )
            pictures, sound = self._clip(
                way, job, inputs, frames, height, width, fps, seed, progress
            )
        made_with = {
            "prompt": prompt,
            "negative": negative,
            "negative_audio": negative_audio,
            "task": name,
            "seed": seed,
            "frames": frames,
            "height": height,
            "width": width,
            "fps": fps,
            "steps": steps,
            "shift": shift,
            "solver": solver,
            "strength": strength,
            "references": list(inputs.references),
            "guidance": guider.to_json(),
            "forcing": None if forcing is None else asdict(forcing),
            "refine": None if refine is None else asdict(refine) | {"scale": scale},
            "config": self.model.config.hash,
            "codecs": {
                "video": type(self.video_codec).__name__,
                "audio": type(self.audio_codec).__name__,
                "text": type(self.encoder).__name__,
            },
            "fingerprints": self.fingerprints,
            "model": dict(self.provenance),
        }
        if name == "extend":
            made_with |= {"window": window, "context": context}
        if way.refine is not None:
            fps *= 2
        return GeneratedClip(pictures, fps, sound, self.audio_codec.rate, made_with)

    def _refining(self, options: RefineOptions | None, scale: int, job: Job) -> Refining | None:
        """Raises PromptError where there is no Refiner, or nothing to refine."""
        if options is None:
            return None
        options.check()
        if self.refiner is None:
            raise PromptError("this model has no Refiner; train one, see `reelmill train --help`.")
        if not 1 <= scale <= 4 or job.video != "target" or {"keep", "video"} & set(job.needs):
            raise PromptError(
                f"refining {scale} times: 1 to 4 times is possible, of pictures that are made "
                "anew from first to last."
            )
        return Refining(self.refiner, options, scale)

    def _clip(
        self,
        way: _Way,
        job: Job,
        inputs: Inputs,
        frames: int,
        height: int,
        width: int,
        fps: float,
        seed: int,
        progress: Callable[[int, int], None] | None,
    ) -> tuple[np.ndarray | None, np.ndarray | None]:
        """Pictures and sound of one pass."""
        exact = Fraction(frames) / Fraction(fps).limit_denominator(1001) * self.audio_codec.rate
        samples = round(exact)
        sound = None if inputs.audio is None else fit_sound(inputs.audio, samples)
        inputs = replace(inputs, audio=sound)
        pictures = None if inputs.video is None else inputs.video[:frames]
        latents = 1 + (frames - 1) // self.video_codec.stride[0]
        canvas, high = video_canvas(self.video_codec, job, inputs, frames, height, width), None
        if way.refine is not None and canvas is not None:
            makes = way.forcing is None and makes_keyframes(self.model)
            size = (latents, height, width)
            high = way.refine.keyframes(self.video_codec, inputs, *size, made=makes)
            canvas = replace(canvas, keyframes=high if makes else None)
        made = way.sample(
            self.model,
            canvas,
            audio_canvas(self.audio_codec, job, inputs, latents, samples),
            seed,
            progress,
        )
        z_video, z_audio = made.video, made.audio
        for z in made:
            if z is not None and not bool(z.isfinite().all()):
                raise PromptError(
                    "the model's latents are no longer finite: guidance or shift are too strong, "
                    "or its training diverged."
                )
        if job.video == "target" and z_video is not None:
            if way.refine is not None:
                if high is not None and made.keyframes is not None:
                    high = replace(high, known=made.keyframes)
                z_video = way.refine.apply(z_video, way.text, seed, high, progress)
            pictures = to_frames(self.video_codec.decode(z_video))
            if way.refine is not None and frames > 1:
                # Twice the frames, less one; the last is shown twice, as long as there is sound.
                pictures = np.concatenate((pictures, pictures[-1:]))
            elif inputs.keep is not None:
                source = inputs.source
                assert source is not None
                keep = inputs.keep if inputs.keep.ndim == 2 else inputs.keep[:frames]
                pictures = np.where(keep[..., None], source[:frames], pictures)
        if job.audio == "target" and z_audio is not None:
            sound = self.audio_codec.decode(z_audio, samples).clamp(-1, 1).cpu().numpy()
        return pictures, sound

    def _extend(
        self,
        way: _Way,
        inputs: Inputs,
        frames: int,
        window: int,
        context: int,
        seed: int,
        progress: Callable[[int, int], None] | None,
    ) -> tuple[np.ndarray, None]:
        """The video, and behind it what comes next, until there are `frames`."""
        assert inputs.video is not None
        done, stride = inputs.video, self.video_codec.stride[0]
        given = len(done)
        while len(done) < frames:
            before = done[-(1 + (min(context, len(done)) - 1) // stride * stride) :]
            missing = -(-(frames - len(done)) // stride) * stride
            length = min(window, len(before) + missing)
            canvas = continued(self.video_codec, inputs, before, length)
            # Each piece has noise of its own.
            own = seed + PIECE * (len(done) - given)
            z = way.sample(self.model, canvas, None, own, None).video
            assert z is not None
            new = to_frames(self.video_codec.decode(z))[len(before) :]
            done = np.concatenate((done, new))[:frames]
            if progress is not None:
                progress(len(done) - given, frames - given)
        return done, None

    def _check_size(self, height: int, width: int) -> None:
        patch, stride = self.model.config.video.patch, self.video_codec.stride
        down, across = stride[1] * patch[1], stride[2] * patch[2]
        if height < down or width < across or height % down or width % across:
            raise PromptError(
                f"pictures of {height} x {width} pixels: height must be a multiple of {down} and "
                f"width of {across}."
            )


@dataclass(frozen=True)
class _Way:
    """How to get from noise to latents: what all passes of one call share."""

    text: Text
    null: Text
    null_audio: Text | None
    steps: int
    s: float
    solver: Solver
    guider: Guider
    forcing: Forcing | None
    refine: Refining | None

    def sample(
        self,
        model: MMDiT,
        video: VideoCanvas | None,
        audio: AudioCanvas | None,
        seed: int,
        progress: Callable[[int, int], None] | None,
    ) -> Latents:
        if self.forcing is not None and video is not None:
            forced = force(
                model,
                self.text,
                video,
                self.forcing,
                seeds=[seed],
                null=self.null,
                steps=self.steps,
                s=self.s,
                solver=self.solver,
                guider=self.guider,
                progress=progress,
            )
            return Latents(forced, None, None)
        return denoise(
            model,
            self.text,
            video=video,
            audio=audio,
            seeds=[seed],
            null=self.null,
            null_audio=self.null_audio,
            steps=self.steps,
            s=self.s,
            solver=self.solver,
            guider=self.guider,
            progress=progress,
        )
