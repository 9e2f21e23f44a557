"""A clip of a curated shard as the codecs want it: pictures of given sizes, sound, caption."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from reelmill.datasets.index import ShardIndex
from reelmill.datasets.media.decode import MediaInfo, probe
from reelmill.datasets.media.span import clip_audio, clip_frames
from reelmill.datasets.sample import Clip, Kind
from reelmill.datasets.workspace import writing
from reelmill.errors import MediaError
from reelmill.training.encode_request import Size

SUFFIXES = ("mp4", "jpg", "flac")


@dataclass(frozen=True)
class DecodedClip:
    """pictures: uint8 [F, H, W, 3] by (H, W); none of sound alone. sound: float32 [n] at 44.1 kHz,
    or None. frames: F, or how long a sound lasts in frames."""

    pictures: Mapping[Size, np.ndarray]
    frames: int
    sound: np.ndarray | None
    record: Mapping[str, Any]
    caption: str


def read_clip(source: ShardIndex, key: str, fps: int, sizes: tuple[Size, ...]) -> DecodedClip:
    """Decodes a sample: pictures of each size at `fps`, scaled to cover it, cut in the middle.

    Raises MediaError.
    """
    members = source.sample(key)
    suffix = next((s for s in SUFFIXES if s in members), None)
    if suffix is None or "json" not in members:
        held = ", ".join(sorted(members))
        raise MediaError(f"sample {key} holds {held}: no media, or no record.")
    record = json.loads(members["json"])
    caption = members.get("txt", b"").decode(errors="replace").strip()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"clip.{suffix}"
        with writing(path):
            path.write_bytes(members[suffix])
        try:
            info = probe(path)
            clip = _whole(key, info, record)
            pictures, sound = {}, None
            if clip.kind != Kind.AUDIO:
                pictures = {size: _pictures(path, info, clip, fps, *size) for size in sizes}
            if info.audio is not None and clip.kind != Kind.IMAGE:
                sound = clip_audio(path, info, clip, 44_100)
        except MediaError as error:  # the path is another one each time
            raise MediaError(str(error).replace(str(path), key), cause=error.cause) from error
    frames = len(next(iter(pictures.values()))) if pictures else int(clip.seconds * fps + 1e-6)
    return DecodedClip(pictures, frames, sound, record, caption)


def _whole(key: str, info: MediaInfo, record: Mapping[str, Any]) -> Clip:
    """The clip that a shard's media file is: all of it, as long as its record says."""
    if info.kind == Kind.IMAGE or (info.video is None and info.audio is None):
        return Clip(key, Kind.IMAGE, 0, 0, Fraction(1), 0, 0, 1)
    cut = record.get("cut")
    seconds = cut.get("seconds") if isinstance(cut, dict) else info.seconds
    if not isinstance(seconds, int | float) or not 0 < seconds < 86_400:
        raise MediaError(f"sample {key}: its length is {seconds!r} seconds.")
    if info.video is None or info.kind == Kind.AUDIO:
        assert info.audio is not None
        rate = Fraction(1, info.audio.rate)
        length = round(seconds * info.audio.rate)
        return Clip(key, Kind.AUDIO, 0, length, rate, 0, 0, length)
    base = info.video.time_base
    start = round(info.video.start_s / base)
    return Clip(key, Kind.VIDEO, start, start + round(seconds / base), base, start, 0, 0)


def _pictures(
    path: Path, info: MediaInfo, clip: Clip, fps: int, height: int, width: int
) -> np.ndarray:
    """uint8 [F, height, width, 3] at `fps`: scaled to cover, cut in the middle."""
    assert info.video is not None
    covering = max(height, int(np.ceil(width * info.video.height / info.video.width)))
    covering += covering % 2
    frames = clip_frames(path, info, clip, fps, covering)
    if frames.shape[2] < width:  # an odd width was rounded down
        frames = np.stack([cv2.resize(f, (width, frames.shape[1])) for f in frames])
    top, left = (frames.shape[1] - height) // 2, (frames.shape[2] - width) // 2
    return np.ascontiguousarray(frames[:, top : top + height, left : left + width])
