"""A clip of a curated shard, decoded as codecs want it."""

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
from reelmill.training.encode_request import EncodeOptions

_PARTS = {"mp4": Kind.VIDEO, "jpg": Kind.IMAGE}


@dataclass(frozen=True)
class DecodedClip:
    """frames: uint8 [F, H, W, 3]; sound: float32 [n] or None."""

    frames: np.ndarray
    sound: np.ndarray | None
    record: Mapping[str, Any]
    caption: str


def read_clip(source: ShardIndex, key: str, options: EncodeOptions) -> DecodedClip | None:
    """Decodes a sample of a curated shard; None for sound alone. Raises MediaError."""
    members = source.sample(key)
    suffix = next((s for s in members if s in _PARTS), None)
    if suffix is None:
        return None
    record = json.loads(members["json"])
    caption = members.get("txt", b"").decode(errors="replace").strip()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"clip.{suffix}"
        with writing(path):
            path.write_bytes(members[suffix])
        try:
            info = probe(path)
            clip = _whole(key, info, record)
            frames = _pictures(path, info, clip, options)
            sound = None
            if info.audio is not None and info.kind == Kind.VIDEO:
                sound = clip_audio(path, info, clip, 44_100)
        except MediaError as error:  # the path is another one each time
            raise MediaError(str(error).replace(str(path), key), cause=error.cause) from error
    return DecodedClip(frames, sound, record, caption)


def _whole(key: str, info: MediaInfo, record: Mapping[str, Any]) -> Clip:
    """The clip that a shard's media file is: all of it, as long as its record says."""
    kind = Kind.VIDEO if info.kind == Kind.VIDEO else Kind.IMAGE
    if kind == Kind.IMAGE or info.video is None:
        return Clip(key, kind, 0, 0, Fraction(1), 0, 0, 1)
    cut = record.get("cut")
    seconds = cut.get("seconds") if isinstance(cut, dict) else info.seconds
    if not isinstance(seconds, int | float) or not 0 < seconds < 86_400:
        raise MediaError(f"sample {key}: its length is {seconds!r} seconds.")
    base = info.video.time_base
    start = round(info.video.start_s / base)
    return Clip(key, kind, start, start + round(seconds / base), base, start, 0, 0)


def _pictures(path: Path, info: MediaInfo, clip: Clip, options: EncodeOptions) -> np.ndarray:
    """uint8 [F, height, width, 3] at options.fps: scaled to cover, cut in the middle."""
    assert info.video is not None
    height, width = options.height, options.width
    covering = max(height, int(np.ceil(width * info.video.height / info.video.width)))
    covering += covering % 2
    frames = clip_frames(path, info, clip, options.fps, covering)
    if frames.shape[2] < width:  # an odd width was rounded down
        frames = np.stack([cv2.resize(f, (width, frames.shape[1])) for f in frames])
    top, left = (frames.shape[1] - height) // 2, (frames.shape[2] - width) // 2
    return np.ascontiguousarray(frames[:, top : top + height, left : left + width])
