"""How long a clip becomes: what is asked for, on the codec's grid, within what is given."""

from __future__ import annotations

import math

from reelmill.errors import PromptError
from reelmill.model.codecs.codec import AudioCodec, VideoCodec
from reelmill.model.tasks import Inputs, Job

MAX_SECONDS = 3600


def clip_length(
    video: VideoCodec,
    audio: AudioCodec,
    name: str,
    job: Job,
    inputs: Inputs,
    frames: int | None,
    seconds: float | None,
    fps: float,
) -> int:
    """Frames: 1 + a multiple of the codec's stride, and no longer than the video or sound that is
    given; as long where neither frames nor seconds are said, or 1 + 4 strides. Raises PromptError.
    """
    stride = video.stride[0]
    if name in ("t2i", "inpaint"):
        return 1
    asked = _asked(frames, seconds, fps)
    if asked is not None and seconds is not None:
        asked = 1 + stride * max(0, round((asked - 1) / stride))
    elif asked is not None and (asked < 1 or (asked - 1) % stride):
        raise PromptError(f"frames is {frames}; 1 + a multiple of {stride} is needed.")
    given: int | None = None
    if inputs.video is not None:
        given = len(inputs.video)
    elif inputs.audio is not None:
        given = math.floor(inputs.audio.shape[1] / audio.rate * fps + 1e-6)
    length = 1 + 4 * stride if asked is None else int(asked)
    if given is not None:
        longest = 1 + stride * ((given - 1) // stride)
        length = longest if asked is None else length
        if given < 1 or length > longest:
            what = "audio" if inputs.video is None else "video"
            raise PromptError(f"{length} frames are asked for; the given {what} has {given}.")
    if inputs.end is not None and length < 1 + stride:
        raise PromptError(
            f"{length} frames are too short for a start and an end; at least {1 + stride}."
        )
    if job.audio != "absent" and length / fps * audio.rate < audio.hop:
        raise PromptError(f"{length} frames at {fps} fps are too short for sound; ask for more.")
    return length


def extended_length(
    video: VideoCodec,
    inputs: Inputs,
    frames: int | None,
    seconds: float | None,
    fps: float,
    window: int,
    context: int,
) -> int:
    """Frames of an extension, with those that are given; one window more where nothing is said.
    Raises PromptError."""
    stride = video.stride[0]
    for name, value in (("window", window), ("context", context)):
        if value < 1 or (value - 1) % stride:
            raise PromptError(f"{name} is {value}; 1 + a multiple of {stride} is needed.")
    if window <= context:
        raise PromptError(f"a window of {window} frames leaves none after context {context}.")
    assert inputs.video is not None
    given = len(inputs.video)
    asked = _asked(frames, seconds, fps)
    length = given + window - context if asked is None else round(asked)
    if length <= given:
        raise PromptError(f"{length} frames are asked for; the given video has {given} already.")
    return length


def _asked(frames: int | None, seconds: float | None, fps: float) -> float | None:
    if frames is not None and seconds is not None:
        raise PromptError("give frames or seconds, not both.")
    if seconds is None:
        return frames
    if not 0 < seconds <= MAX_SECONDS:
        raise PromptError(f"seconds is {seconds}; above 0 and up to {MAX_SECONDS}.")
    return seconds * fps
