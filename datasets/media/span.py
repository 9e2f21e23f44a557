"""Random access: the pictures and the sound of one clip, as a decode from the start gives them."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from reelmill.datasets.media.clock import sound_span
from reelmill.datasets.media.container import describe
from reelmill.datasets.media.image import read_rgb
from reelmill.datasets.media.picture import Scaler, even, frames_between
from reelmill.datasets.media.sound import context, resample, sound_between
from reelmill.datasets.sample import Clip, Kind
from reelmill.errors import MediaError

if TYPE_CHECKING:
    from reelmill.datasets.media.decode import MediaInfo

MAX_CLIP_BYTES = 4 << 30


def clip_frames(path: Path, info: MediaInfo, clip: Clip, fps: float, height: int) -> np.ndarray:
    """uint8 RGB [frames, height, width, 3]: what is on screen at start, start + 1/fps, ...

    The width follows the display aspect (even). Raises MediaError when the clip's frames cannot be
    decoded.
    """
    if info.video is None:
        raise MediaError(f"{describe(path)} has no picture.")
    width = even(info.video.width * height / info.video.height)
    if clip.kind == Kind.IMAGE:
        rgb = read_rgb(path, least=(width, height))
        return cv2.resize(rgb, (width, height), interpolation=cv2.INTER_AREA)[None]
    wanted = max(1, int(np.ceil(clip.seconds * fps - 1e-6)))
    if wanted * width * height * 3 > MAX_CLIP_BYTES:
        raise MediaError(f"{describe(path)}: {wanted} frames of {width} x {height} are too many.")
    step = Fraction(1) / (Fraction(fps).limit_denominator(1001) * clip.time_base)
    due = [clip.start_pts + round(k * step) for k in range(wanted)]
    out = np.empty((wanted, height, width, 3), np.uint8)
    done, scaler, shown = 0, Scaler(), None
    for pts, frame in frames_between(path, clip.start_pts, clip.end_pts):
        while shown is not None and done < wanted and due[done] < pts:
            out[done] = scaler.rgb(shown, width, height, info.video.rotation)
            done += 1
        shown = frame
    if shown is None:
        raise MediaError(f"{describe(path)}: no frame of clip {clip.id} could be decoded.")
    out[done:] = scaler.rgb(shown, width, height, info.video.rotation)
    return out


def clip_audio(path: Path, info: MediaInfo, clip: Clip, rate: int) -> np.ndarray:
    """Mono float32 [samples] at `rate` Hz: the mean of all channels over the clip's span.

    Where the source has no sound inside the span there is silence. Raises MediaError when the file
    has no sound stream, or none of it can be decoded.
    """
    if info.audio is None:
        raise MediaError(f"{describe(path)} has no sound.")
    source = info.audio.rate
    first, last = sound_span(clip, info, source)
    wanted_first, wanted_last = sound_span(clip, info, rate)
    margin, margin_out = context(source, rate)
    native, _ = clip_samples(path, info, first - margin, last + margin)
    mono = resample(native.mean(axis=0), source, rate)[margin_out:]
    wanted = wanted_last - wanted_first
    return np.pad(mono[:wanted], (0, max(0, wanted - len(mono))))


def clip_samples(path: Path, info: MediaInfo, first: int, last: int) -> tuple[np.ndarray, int]:
    """(float32 [channels, last - first], sounding) at the stream's own rate: samples [first, last)
    of the sound, counted from its start, and how many of them the source has; the others are
    silence. Raises MediaError as `clip_audio` does.
    """
    assert info.audio is not None
    sound = info.audio
    if (last - first) * sound.channels * 4 > MAX_CLIP_BYTES:
        raise MediaError(f"{describe(path)}: {last - first} samples at once are too many.")
    return sound_between(path, sound.rate, sound.channels, sound.start_s, first, last)
