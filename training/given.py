"""Files that generation goes by, read as the arrays that model/pipeline.py takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from reelmill.datasets.media.decode import MediaInfo, probe
from reelmill.datasets.media.image import read_rgb
from reelmill.datasets.media.span import clip_audio, clip_frames
from reelmill.datasets.sample import Clip, Kind
from reelmill.errors import MediaError, PromptError
from reelmill.model.masks import Box, region
from reelmill.model.pipeline import cover
from reelmill.model.prompt import Reference

MAX_SECONDS = 60.0
T = TypeVar("T")


def read_image(name: str, path: Path) -> np.ndarray:
    """uint8 RGB [h, w, 3] in its own size. Raises PromptError, as all here, with name and path."""
    return _read(name, path, read_rgb)


def read_picture(name: str, path: Path, height: int, width: int) -> np.ndarray:
    """uint8 RGB [height, width, 3]: scaled until it covers, cut in the middle."""
    return _covered(read_image(name, path), height, width)


def read_video(name: str, path: Path, fps: float, height: int, width: int) -> np.ndarray:
    """uint8 RGB [F, height, width, 3] at `fps`, scaled and cut in the middle."""
    return _read(name, path, lambda p: _pictures(name, p, fps, height, width))


def read_sound(name: str, path: Path, rate: int) -> np.ndarray:
    """float32 [1, n] at `rate` Hz."""
    return _read(name, path, lambda p: _sound(name, p, rate))


def read_keep(path: Path, fps: float, height: int, width: int) -> np.ndarray:
    """bool [height, width] of a picture, [F, height, width] of a video: true where it is light."""
    pictures = _read(
        "keep",
        path,
        lambda p: (
            _covered(read_rgb(p), height, width)
            if probe(p).kind == Kind.IMAGE
            else _pictures("keep", p, fps, height, width)
        ),
    )
    return pictures.mean(-1) > 127.5


def outside(box: tuple[int, int, int, int], height: int, width: int) -> np.ndarray:
    """bool [height, width]: false in the box (x, y, width, height; pixels), true around it."""
    x, y, w, h = box
    return region(1, height, width, Box(y, x, y + h, x + w))[0]


def read_references(given: Mapping[str, Path], fps: float, rate: int) -> dict[str, np.ndarray]:
    """By name (`image_1`, `Actor-0`, `video_1`, `Audio-0`): pictures and clips in their own size,
    sounds at `rate` Hz."""
    found: dict[str, np.ndarray] = {}
    for name, path in given.items():
        kind = Reference(name).kind
        if kind == "image":
            found[name] = read_image(f"ref {name}", path)
        elif kind == "audio":
            found[name] = read_sound(f"ref {name}", path, rate)
        else:
            found[name] = _read(f"ref {name}", path, lambda p: _clip(p, fps))
    return found


def _read(name: str, path: Path, how: Callable[[Path], T]) -> T:
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


def _moving(name: str, path: Path) -> tuple[MediaInfo, Any]:
    info = probe(path)
    if info.video is None or info.kind != Kind.VIDEO:
        raise PromptError(f"--{name} {path} has no moving picture.")
    return info, info.video


def _pictures(name: str, path: Path, fps: float, height: int, width: int) -> np.ndarray:
    info, video = _moving(name, path)
    # The width follows the aspect: read high enough that both sides are covered.
    least = max(height, -(-width * video.height // video.width))
    found = clip_frames(path, info, _whole(path, info, Kind.VIDEO), fps, least)
    return np.stack([_covered(frame, height, width) for frame in found])


def _clip(path: Path, fps: float) -> np.ndarray:
    info, video = _moving("ref", path)
    return clip_frames(path, info, _whole(path, info, Kind.VIDEO), fps, min(video.height, 1080))


def _covered(picture: np.ndarray, height: int, width: int) -> np.ndarray:
    pixels = cover(picture, height, width)[0, :, 0].permute(1, 2, 0)
    return ((pixels + 1) * 127.5).round().clamp(0, 255).byte().numpy()


def _sound(name: str, path: Path, rate: int) -> np.ndarray:
    info = probe(path)
    if info.audio is None:
        raise PromptError(f"--{name} {path} has no sound.")
    kind = Kind.AUDIO if info.kind == Kind.AUDIO else Kind.VIDEO
    return clip_audio(path, info, _whole(path, info, kind), rate)[None]
