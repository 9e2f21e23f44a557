"""Short sounds of one class joined up to a length, with a map back to the source's samples.

Reads a set of audio shards and writes another: the first one stays as it is. Sounds lie end to end,
sample for sample as they were cut; nothing is faded, resampled or mixed. The paper keeps sound to
15 s and joins what is shorter (section 3.4).
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from reelmill.datasets.index import ShardIndex
from reelmill.datasets.media.decode import probe
from reelmill.datasets.media.encode import write_audio
from reelmill.datasets.media.sound import sound_between
from reelmill.datasets.shards import ShardSample, write_shards
from reelmill.errors import DatasetError, UsageError

PREFIX = "audio"
MICRO = 1_000_000


@dataclass(frozen=True)
class Joined:
    """clips: read. joined: samples made of several; parts: clips in them. alone: as they were.

    seconds: of sound, before and after the same. longest: seconds of the longest sample.
    """

    output: Path
    clips: int
    joined: int
    parts: int
    alone: int
    seconds: float
    longest: float


@dataclass(frozen=True)
class _Clip:
    key: str
    group: tuple[str, int, int]  # class, rate, channels
    samples: int
    record: Mapping[str, Any]


def pack(lengths: Sequence[int], most: int) -> list[list[int]]:
    """Which lengths to join: lists of their places, each summing to `most` at most.

    The longest first, each into the first list with room (first fit decreasing); what is longer
    than `most` is alone. In each list, and among lists by their first, the order is the given one.
    """
    bins: list[tuple[int, list[int]]] = []
    for place in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        for number, (full, places) in enumerate(bins):
            if full + lengths[place] <= most:
                bins[number] = (full + lengths[place], [*places, place])
                break
        else:
            bins.append((lengths[place], [place]))
    return sorted(sorted(places) for _, places in bins)


def join_shards(
    source: Path, output: Path, *, max_seconds: float = 15.0, by: str = "sound_class"
) -> Joined:
    """Joins the clips of audio shards whose fact `by`, rate and channels are the same.

    Clips for which that fact has no value stay alone. The record of a joined sample holds `joined`:
    for each part its clip, file and facts, its samples [first, last) in the joined sound and
    [source_first, source_last) in the source's. The same shards give the same bytes. Raises
    UsageError for a length or a folder that will not do, DatasetError for shards without sound.
    """
    if not 0 < max_seconds < 3600:
        raise UsageError(f"--max-seconds {max_seconds:g} must be above 0 and below 3600.")
    if output.resolve() == source.resolve():
        raise UsageError(f"{output} holds the shards that are read: name another folder.")
    with ShardIndex.read(source) as index:
        clips = _clips(index, by)
        if not clips:
            raise DatasetError(f"{source} holds no clips of sound (flac members).")
        plan: dict[str, list[_Clip]] = {}
        for group in sorted({clip.group for clip in clips}):
            some = [clip for clip in clips if clip.group == group]
            lengths = [clip.samples for clip in some]
            most = int(max_seconds * group[1]) if group[0] else 0
            for places in pack(lengths, most):
                parts = [some[i] for i in places]
                plan[_key(parts)] = parts
        write_shards(
            _samples(index, plan, by),
            output,
            prefix=PREFIX,
            max_samples=1000,
            max_bytes=512_000_000,
        )
    several = [parts for parts in plan.values() if len(parts) > 1]
    lengths_s = [sum(c.samples for c in parts) / parts[0].group[1] for parts in plan.values()]
    return Joined(
        output=output,
        clips=len(clips),
        joined=len(several),
        parts=sum(map(len, several)),
        alone=len(plan) - len(several),
        seconds=sum(lengths_s),
        longest=max(lengths_s),
    )


def _clips(index: ShardIndex, by: str) -> list[_Clip]:
    found = []
    for key in sorted(index.keys):
        members = index.sample(key)
        if "flac" not in members:
            continue
        try:
            record = json.loads(members["json"])
            cut, kind = record["cut"], record["facts"].get(by)
            rate, channels, samples = (
                int(cut[name]) for name in ("sample_rate", "channels", "samples")
            )
            int(record["start_us"])
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            where = f"the record of {key} in {index.folder}"
            raise DatasetError(f"{where} is damaged: {error!r}.") from error
        if rate < 1 or channels < 1 or samples < 1:
            raise DatasetError(f"{key} in {index.folder} has no sound by its record.")
        named = kind if isinstance(kind, str) else ""
        found.append(_Clip(key, (named, rate, channels), samples, record))
    return found


def _key(parts: Sequence[_Clip]) -> str:
    if len(parts) == 1:
        return parts[0].key
    names = "\n".join(clip.key for clip in parts)
    return f"joined_{hashlib.sha256(names.encode()).hexdigest()[:24]}"


def _samples(
    index: ShardIndex, plan: Mapping[str, Sequence[_Clip]], by: str
) -> Iterator[ShardSample]:
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "sound.flac"
        for key in sorted(plan):
            parts = plan[key]
            if len(parts) > 1:
                yield _joined(index, key, parts, by, path)
                continue
            members = index.sample(key)
            caption = members.get("txt")
            yield ShardSample(
                key,
                ".flac",
                members["flac"],
                parts[0].record,
                None if caption is None else caption.decode("utf-8"),
            )


def _joined(
    index: ShardIndex, key: str, parts: Sequence[_Clip], by: str, path: Path
) -> ShardSample:
    kind, rate, channels = parts[0].group
    total = sum(clip.samples for clip in parts)
    whole = np.empty((channels, total), np.float32)
    map_, captions, at = [], [], 0
    for clip in parts:
        members = index.sample(clip.key)
        path.write_bytes(members["flac"])
        info = probe(path).audio
        if info is None or (info.rate, info.channels) != (rate, channels):
            raise DatasetError(f"{clip.key} in {index.folder} is not the sound of its record.")
        sound, sounding = sound_between(path, rate, channels, info.start_s, 0, clip.samples)
        if sounding != clip.samples:
            raise DatasetError(
                f"{clip.key} in {index.folder}: {clip.samples} samples by its record, {sounding} "
                "decoded."
            )
        whole[:, at : at + clip.samples] = sound
        first = round(int(clip.record["start_us"]) * rate / MICRO)
        map_.append(
            {
                "clip": clip.key,
                "asset": clip.record.get("asset", ""),
                "file": clip.record.get("file", ""),
                "first": at,
                "last": at + clip.samples,
                "source_first": first,
                "source_last": first + clip.samples,
                "facts": clip.record["facts"],
            }
        )
        if "txt" in members:
            captions.append(members["txt"].decode("utf-8").strip())
        at += clip.samples
    write_audio(path, whole, rate, codec="flac")
    data = path.read_bytes()
    sha256 = hashlib.sha256(data).hexdigest()
    cut = {
        "seconds": total / rate,
        "sample_rate": rate,
        "channels": channels,
        "samples": total,
        "audio_codec": "flac",
        "sha256": sha256,
    }
    record = {
        "id": key,
        "kind": "audio",
        "cut_key": sha256[:32],
        "cut": cut,
        "facts": {by: kind},
        "joined": map_,
    }
    return ShardSample(key, ".flac", data, record, "\n".join(captions) or None)
