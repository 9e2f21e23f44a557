"""Clips to train a SyncNet on: one mouth and the sound that belongs to it."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from reelmill.curation.lips.av_sync import RATE, moved
from reelmill.curation.lips.people import frames_of, people_of
from reelmill.curation.lips.talking import LIPS
from reelmill.curation.lips.track import AREA
from reelmill.curation.measure import LazyMedia
from reelmill.curation.media_table import summary_tracks, whole_clip
from reelmill.curation.models.mouth_sync import mouths
from reelmill.curation.models.yunet import YuNet
from reelmill.datasets.index import MANIFEST, ShardIndex
from reelmill.datasets.media.decode import decode, probe
from reelmill.datasets.sample import Kind
from reelmill.errors import MediaError, UsageError

LEAST_FRAMES = 50


@dataclass(frozen=True)
class Example:
    """name: of the clip. asset: of the file it comes from; clips of one are kept together.

    mouths: uint8 [frames, 48, 48] at 25 a second. sound: float32 [frames * 640] at 16 kHz.
    """

    name: str
    asset: str
    mouths: np.ndarray
    sound: np.ndarray

    @property
    def frames(self) -> int:
        return len(self.mouths)


@dataclass
class Examples:
    """skipped: why clips gave no example, by name."""

    found: list[Example] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)


def read_examples(
    sources: Sequence[Path], find: YuNet, advance: Callable[[str], None] = lambda name: None
) -> Examples:
    """Examples of folders of curated shards, and of video files or folders of them, in order.

    Of shards, only clips whose sound is routed to lips, or was not routed. Raises UsageError for a
    source that is neither; what cannot be read, or shows no face long enough, is skipped by name.
    """
    examples = Examples()
    for source in sources:
        if not source.exists():
            raise UsageError(f"{source} does not exist. Name shards, videos or folders of them.")
        clips = _shard(source) if (source / MANIFEST).is_file() else _files(source)
        for name, asset, path, why in clips:
            advance(name)
            try:
                example = why or _example(name, asset, path, find)
            except MediaError as error:
                example = str(error)
            if isinstance(example, str):
                examples.skipped[name] = example
            else:
                examples.found.append(example)
    return examples


def _files(source: Path) -> Iterator[tuple[str, str, Path, str]]:
    """(name, asset, path, why it is skipped)."""
    if source.is_file():
        yield source.name, source.name, source, ""
    for path in sorted(source.rglob("*")):
        if path.is_file():
            name = path.relative_to(source).as_posix()
            yield name, name, path, ""


def _shard(folder: Path) -> Iterator[tuple[str, str, Path, str]]:
    with ShardIndex.read(folder) as index, tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "clip.mp4"
        for key in index.keys:
            sample = index.sample(key)
            if "mp4" not in sample:
                continue
            record: Mapping = json.loads(sample["json"])
            route = record.get("facts", {}).get("route")
            why = f"route {route}" if isinstance(route, str) and route != LIPS else ""
            path.write_bytes(sample["mp4"])
            yield key, str(record.get("asset", key)), path, why


def _example(name: str, asset: str, path: Path, find: YuNet) -> Example | str:
    """An example, or why there is none. Raises MediaError."""
    info = probe(path)
    if info.kind != Kind.VIDEO or info.audio is None:
        return "no picture or no sound"
    clip = whole_clip("0" * 64, info, summary_tracks(decode(path, info, lambda frame: None)))
    media = LazyMedia(clip, info, {}, path)
    frames = frames_of(media, AREA)
    if frames is None:
        return "too long"
    person = next(people_of(frames, find, LEAST_FRAMES), None)
    if person is None:
        return f"no face for {LEAST_FRAMES} frames"
    sound = moved(media.audio(RATE), person.first, person.frames, 0)
    return Example(name, asset, mouths(person.faces), sound)
