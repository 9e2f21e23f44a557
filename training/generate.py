"""From a prompt, and files to go by, to a clip on disk."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from reelmill.datasets.media.decode import MediaInfo, probe
from reelmill.datasets.media.encode import write_audio, write_image, write_video
from reelmill.datasets.media.image import read_rgb
from reelmill.datasets.media.span import clip_audio, clip_frames
from reelmill.datasets.sample import Clip, Kind
from reelmill.datasets.workspace import commit_bytes
from reelmill.errors import MediaError, PromptError
from reelmill.model.guidance import Guider, TextCFG
from reelmill.model.pipeline import GeneratedClip, Pipeline, cover

VIDEO, AUDIO, IMAGE = (".mp4", ".mov", ".mkv"), (".flac", ".wav", ".m4a"), (".png", ".jpg", ".webp")
CODECS = {".flac": "flac", ".wav": "pcm_s16le", ".m4a": "aac"}
MAX_SECONDS = 60.0


@dataclass(frozen=True)
class GenerateOptions:
    """What to generate, with which model, into which file.

    model: folder that training exported. output: its suffix must suit the task: .mp4, .mov or .mkv
    for video, .flac, .wav or .m4a for sound alone, .png, .jpg or .webp for a picture. task: one of
    model/pipeline.py; None: by the files given. image: first frame; video: its sound is made;
    audio: its picture is made. text_scale: guidance by the prompt, 1 is off.
    """

    prompt: str
    model: Path
    output: Path
    task: str | None = None
    image: Path | None = None
    video: Path | None = None
    audio: Path | None = None
    seconds: float | None = None
    frames: int | None = None
    height: int = 64
    width: int = 64
    fps: int = 16
    steps: int = 50
    shift: float = 5.0
    text_scale: float = 1.0
    seed: int = 0


@dataclass(frozen=True)
class GenerateResult:
    """seconds: of the clip; 0 for a picture. provenance: how to make it again, also beside it."""

    output: Path
    seconds: float
    frames: int
    provenance: Mapping[str, Any]


def generate(
    options: GenerateOptions, progress: Callable[[int, int], None] | None = None
) -> GenerateResult:
    """Generates one clip and writes it, and `<output>.json` with its provenance.

    Raises PromptError (prompt, files or output that do not fit), CheckpointError (model),
    WorkspaceError (disk).
    """
    suffix = options.output.suffix.lower()
    if suffix not in VIDEO + AUDIO + IMAGE:
        raise PromptError(
            f"output {options.output}: name it {', '.join(VIDEO + AUDIO + IMAGE)}, by what is made."
        )
    pipeline = Pipeline.load(options.model)
    rate = pipeline.audio_codec.rate
    made = pipeline.generate(
        options.prompt,
        task=options.task,
        frames=options.frames,
        seconds=options.seconds,
        height=options.height,
        width=options.width,
        fps=options.fps,
        seed=options.seed,
        image=_read("image", options.image, read_rgb),
        video=_read("video", options.video, lambda path: _pictures(path, options)),
        audio=_read("audio", options.audio, lambda path: _sound(path, rate)),
        steps=options.steps,
        shift=options.shift,
        guider=Guider(text=TextCFG(options.text_scale, options.text_scale)),
        progress=progress,
    )
    _write(options.output, made)
    facts = json.dumps(made.provenance, indent=1, sort_keys=True, default=str)
    commit_bytes(options.output.with_name(f"{options.output.name}.json"), facts.encode() + b"\n")
    frames = 0 if made.video is None else len(made.video)
    seconds = 0.0 if made.audio is None else made.audio.shape[1] / made.audio_rate
    return GenerateResult(
        options.output,
        seconds or (frames / made.fps if frames > 1 else 0.0),
        frames,
        made.provenance,
    )


def _read(name: str, path: Path | None, how: Callable[[Path], np.ndarray]) -> np.ndarray | None:
    """A file that the prompt goes by. Raises PromptError when it is not what it should be."""
    if path is None:
        return None
    if not path.is_file():
        raise PromptError(f"--{name} {path}: there is no such file.")
    try:
        return how(path)
    except MediaError as error:
        raise PromptError(f"--{name} {path} cannot be read: {error}") from error


def _whole(path: Path, info: MediaInfo, kind: Kind) -> Clip:
    """All of a file, as far as MAX_SECONDS."""
    seconds = Fraction(min(info.seconds or MAX_SECONDS, MAX_SECONDS)).limit_denominator(1_000_000)
    if kind == Kind.VIDEO and info.video is not None:
        base = info.video.time_base
        start = round(Fraction(info.video.start_s) / base)
        return Clip(path.name, kind, start, start + round(seconds / base), base, start, 0, 0)
    rate = info.audio.rate if info.audio is not None else 1
    length = round(seconds * rate)
    return Clip(path.name, kind, 0, length, Fraction(1, rate), 0, 0, length)


def _pictures(path: Path, options: GenerateOptions) -> np.ndarray:
    """uint8 RGB [F, height, width, 3] at the options' rate, scaled and cut in the middle."""
    info = probe(path)
    if info.video is None or info.kind != Kind.VIDEO:
        raise PromptError(f"--video {path} has no moving picture.")
    height, width = options.height, options.width
    # The width follows the aspect: read high enough that both sides are covered.
    least = max(height, -(-width * info.video.height // info.video.width))
    clip = _whole(path, info, Kind.VIDEO)
    found = clip_frames(path, info, clip, options.fps, least)
    covered = [cover(frame, height, width)[0, :, 0] for frame in found]
    pixels = [((c.permute(1, 2, 0) + 1) * 127.5).round().clamp(0, 255).byte() for c in covered]
    return np.stack([p.numpy() for p in pixels])


def _sound(path: Path, rate: int) -> np.ndarray:
    """float32 [1, n] at `rate` Hz."""
    info = probe(path)
    if info.audio is None:
        raise PromptError(f"--audio {path} has no sound.")
    kind = Kind.AUDIO if info.kind == Kind.AUDIO else Kind.VIDEO
    return clip_audio(path, info, _whole(path, info, kind), rate)[None]


def _write(output: Path, made: GeneratedClip) -> None:
    suffix = output.suffix.lower()
    if made.video is None:
        if suffix not in AUDIO or made.audio is None:
            raise PromptError(
                f"output {output}: this task makes sound; name it {', '.join(AUDIO)}."
            )
        write_audio(output, made.audio, made.audio_rate, codec=CODECS[suffix])
    elif len(made.video) == 1 and suffix in IMAGE:
        write_image(output, made.video[0])
    elif suffix in VIDEO:
        write_video(
            output, made.video, fps=made.fps, audio=made.audio, audio_rate=made.audio_rate, crf=14
        )
    else:
        raise PromptError(f"output {output}: this task makes video; name it {', '.join(VIDEO)}.")
