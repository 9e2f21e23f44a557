"""Short sounds of one class joined up to a length, with a map back to the source's samples.

Reads a set of audio shards and writes another: the first one stays as it is. Sounds lie end to end,
sample for sample as they were cut; nothing is faded, resampled or mixed. The paper keeps sound to
15 s and joins what is shorter (section 3.4). Beside the joined set `joining.json` says what it was
made of, so that it is made again only where that changed.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from reelmill.datasets.approval import manifest_digest
from reelmill.datasets.index import ShardIndex, read_manifest
from reelmill.datasets.media.decode import probe
from reelmill.datasets.media.encode import write_audio
from reelmill.datasets.media.sound import sound_between
from reelmill.datasets.shards import ShardSample, find_existing, write_shards
from reelmill.datasets.workspace import commit_bytes
from reelmill.errors import DatasetError, UsageError

PREFIX = "audio"
JOINED = "joined_"  # what the keys of joined samples begin with
NOTE = "joining.json"
MICRO = 1_000_000
MAX_NOTE_BYTES = 1 << 16


@dataclass(frozen=True)
class JoinOptions:
    """max_seconds: of a joined sample. by: the fact that its clips share."""

    max_seconds: float = 15.0
    by: str = "sound_class"
    shard_samples: int = 1000
    shard_bytes: int = 512_000_000

    def check(self) -> None:
        """Raises UsageError for a length that will not do."""
        if not 0 < self.max_seconds < 3600:
            raise UsageError(f"--max-seconds {self.max_seconds:g} must be above 0 and below 3600.")


@dataclass(frozen=True)
class Joined:
    """clips: read. joined: samples made of several; parts: clips in them. alone: as they were.

    seconds: of sound, before and after the same. longest: seconds of the longest sample. made:
    joined samples that were encoded now; the others were there.
    """

    output: Path
    clips: int
    joined: int
    parts: int
    alone: int
    seconds: float
    longest: float
    made: int = 0


@dataclass(frozen=True, slots=True)
class _Clip:
    key: str
    group: tuple[str, int, int]  # class, rate, channels
    samples: int
    cut_key: str


def pack(lengths: Sequence[int], most: int) -> list[list[int]]:
    """Which lengths to join: lists of their places, each summing to `most` at most.

    The longest first, each into the first list with room (first fit decreasing); what is longer
    than `most` is alone. In each list, and among lists by their first, the order is the given one.
    A tree of the most room among the lists finds the first in log n.
    """
    leaves = 1 << max(0, (len(lengths) - 1).bit_length())
    room = [most] * (2 * leaves)
    bins: list[list[int]] = []
    alone: list[list[int]] = []
    for place in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        length = lengths[place]
        if length > most:
            alone.append([place])
            continue
        node = 1
        while node < leaves:
            node = 2 * node if room[2 * node] >= length else 2 * node + 1
        number = node - leaves
        if number == len(bins):
            bins.append([])
        bins[number].append(place)
        room[node] -= length
        while node > 1:
            node //= 2
            room[node] = max(room[2 * node], room[2 * node + 1])
    return sorted(sorted(places) for places in (*bins, *alone))


def join_shards(
    source: Path,
    output: Path,
    options: JoinOptions | None = None,
    *,
    empty: bool = False,
    advance: Callable[[int], None] = lambda clips: None,
) -> Joined:
    """Joins the clips of audio shards whose fact `by`, rate and channels are the same.

    Clips for which that fact has no value stay alone. The record of a joined sample holds `joined`:
    for each part its clip, file and facts, its samples [first, last) in the joined sound and
    [source_first, source_last) in the source's. The same shards give the same bytes; what is there
    of them is not made again, and killed half-way the old set stays. empty: whether there may be
    no sound at all. Raises UsageError for a length or a folder that will not do, DatasetError for
    shards without sound.
    """
    options = options or JoinOptions()
    options.check()
    if output.resolve() == source.resolve():
        raise UsageError(f"{output} holds the shards that are read: name another folder.")
    digest = manifest_digest(source)
    if (there := _there(output, digest, options)) is not None:
        advance(there.clips)
        return there
    with ShardIndex.read(source) as index:
        groups = _groups(index, options.by)
        clips = sum(map(len, groups.values()))
        if not clips and not empty:
            raise DatasetError(f"{source} holds no clips of sound (flac members).")
        plan: dict[str, list[_Clip]] = {}
        for group, some in sorted(groups.items()):
            most = int(options.max_seconds * group[1]) if group[0] else 0
            for places in pack([clip.samples for clip in some], most):
                parts = [some[i] for i in places]
                plan[_key(parts)] = parts
        writer = _Writer(index, plan, options.by, output, advance)
        write_shards(
            writer.samples(),
            output,
            prefix=PREFIX,
            max_samples=options.shard_samples,
            max_bytes=options.shard_bytes,
        )
    several = [parts for parts in plan.values() if len(parts) > 1]
    lengths = [sum(c.samples for c in parts) / parts[0].group[1] for parts in plan.values()]
    found = Joined(
        output=output,
        clips=clips,
        joined=len(several),
        parts=sum(map(len, several)),
        alone=len(plan) - len(several),
        seconds=sum(lengths),
        longest=max(lengths, default=0.0),
    )
    note = {"source": digest, "options": asdict(options)}
    counts = {name: value for name, value in asdict(found).items() if name != "output"}
    data = json.dumps(note | {"counts": counts}, indent=1, sort_keys=True).encode() + b"\n"
    commit_bytes(output / NOTE, data)
    return replace(found, made=writer.made)


def join_again(output: Path, source: Path) -> Joined | None:
    """Joins as the set in `output` was joined, from its shards as they are now.

    None, and nothing done, where its note is not there or damaged: then nobody knows how.
    """
    note = _note(output)
    return None if note is None else join_shards(source, output, note[1], empty=True)


def _there(output: Path, digest: str, options: JoinOptions) -> Joined | None:
    """The joined set in `output`, where it is whole and of these shards and options."""
    note = _note(output)
    if note is None or note[:2] != (digest, options):
        return None
    manifest = read_manifest(output)
    whole = all(
        (output / shard.file).is_file() and (output / shard.file).stat().st_size == shard.bytes
        for shard in manifest
    )
    return replace(note[2], output=output) if manifest.index and whole else None


def _note(output: Path) -> tuple[str, JoinOptions, Joined] | None:
    path = output / NOTE
    try:
        if path.stat().st_size > MAX_NOTE_BYTES:
            return None
        data = json.loads(path.read_bytes())
        given, counts = data["options"], data["counts"]
        options = JoinOptions(
            float(given["max_seconds"]),
            str(given["by"]),
            int(given["shard_samples"]),
            int(given["shard_bytes"]),
        )
        options.check()
        whole = {name: int(counts[name]) for name in ("clips", "joined", "parts", "alone")}
        found = Joined(
            output=output,
            **whole,
            seconds=float(counts["seconds"]),
            longest=float(counts["longest"]),
        )
    except (OSError, ValueError, LookupError, TypeError, RecursionError, UsageError):
        return None
    return str(data["source"]), options, found


def _groups(index: ShardIndex, by: str) -> dict[tuple[str, int, int], list[_Clip]]:
    """Clips of each class, rate and number of channels, in the order of their keys."""
    found: dict[tuple[str, int, int], list[_Clip]] = {}
    for key in sorted(index.keys):
        if not index.has(key, "flac"):
            continue
        try:
            record = json.loads(index.member(key, "json"))
            cut, kind = record["cut"], record["facts"].get(by)
            rate, channels, samples = (
                int(cut[name]) for name in ("sample_rate", "channels", "samples")
            )
            int(record["start_us"])
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            where = f"the record of {key} in {index.folder}"
            raise DatasetError(f"{where} is damaged: {error!r}.") from error
        if rate < 1 or channels < 1 or samples < 1:
            raise DatasetError(f"{key} in {index.folder} has no sound by its record.")
        group = (kind if isinstance(kind, str) else "", rate, channels)
        clip = _Clip(key, group, samples, str(record.get("cut_key", "")))
        found.setdefault(group, []).append(clip)
    return found


def _key(parts: Sequence[_Clip]) -> str:
    return parts[0].key if len(parts) == 1 else f"{JOINED}{_name(parts)[:24]}"


def _name(parts: Sequence[_Clip]) -> str:
    """A digest of what is joined: the clips, and how they were cut."""
    names = "\n".join(f"{clip.key} {clip.cut_key}" for clip in parts)
    return hashlib.sha256(names.encode()).hexdigest()


@dataclass
class _Writer:
    index: ShardIndex
    plan: Mapping[str, Sequence[_Clip]]
    by: str
    output: Path
    advance: Callable[[int], None]
    made: int = 0

    def samples(self) -> Iterator[ShardSample]:
        existing = find_existing(self.output)
        with tempfile.TemporaryDirectory() as scratch:
            path = Path(scratch) / "sound.flac"
            for key in sorted(self.plan):
                parts = self.plan[key]
                if len(parts) > 1:
                    old = existing.get((key, _name(parts)[:32]))
                    yield self._joined(key, parts, path, old)
                else:
                    members = self.index.sample(key)
                    caption = members.get("txt")
                    yield ShardSample(
                        key,
                        ".flac",
                        members["flac"],
                        json.loads(members["json"]),
                        None if caption is None else caption.decode("utf-8"),
                    )
                self.advance(len(parts))

    def _joined(
        self, key: str, parts: Sequence[_Clip], path: Path, old: Callable[[], bytes] | None
    ) -> ShardSample:
        kind, rate, channels = parts[0].group
        total = sum(clip.samples for clip in parts)
        whole = None if old is not None else np.empty((channels, total), np.float32)
        map_, captions, at = [], [], 0
        for clip in parts:
            members = self.index.sample(clip.key)
            record = json.loads(members["json"])
            if whole is not None:
                whole[:, at : at + clip.samples] = self._sound(clip, members["flac"], path)
            first = round(int(record["start_us"]) * rate / MICRO)
            map_.append(
                {
                    "clip": clip.key,
                    "asset": record.get("asset", ""),
                    "file": record.get("file", ""),
                    "first": at,
                    "last": at + clip.samples,
                    "source_first": first,
                    "source_last": first + clip.samples,
                    "facts": record["facts"],
                }
            )
            if "txt" in members:
                captions.append(members["txt"].decode("utf-8").strip())
            at += clip.samples
        if whole is not None:
            write_audio(path, whole, rate, codec="flac")
            self.made += 1
        data = path.read_bytes() if old is None else old()
        cut = {
            "seconds": total / rate,
            "sample_rate": rate,
            "channels": channels,
            "samples": total,
            "audio_codec": "flac",
            "sha256": hashlib.sha256(data).hexdigest(),
        }
        record = {
            "id": key,
            "kind": "audio",
            "cut_key": _name(parts)[:32],
            "cut": cut,
            "facts": {self.by: kind},
            "joined": map_,
        }
        return ShardSample(key, ".flac", data, record, "\n".join(captions) or None)

    def _sound(self, clip: _Clip, data: bytes, path: Path) -> np.ndarray:
        _, rate, channels = clip.group
        path.write_bytes(data)
        info = probe(path).audio
        if info is None or (info.rate, info.channels) != (rate, channels):
            raise DatasetError(f"{clip.key} in {self.index.folder} is not the sound of its record.")
        sound, sounding = sound_between(path, rate, channels, info.start_s, 0, clip.samples)
        if sounding != clip.samples:
            raise DatasetError(
                f"{clip.key} in {self.index.folder}: {clip.samples} samples by its record, "
                f"{sounding} decoded."
            )
        return sound


def joined_clips(index: ShardIndex, key: str) -> list[tuple[str, str]]:
    """(clip, digest of its file) of all parts of a joined sample; none for another sample."""
    if not key.startswith(JOINED):
        return []
    try:
        parts = json.loads(index.member(key, "json"))["joined"]
        return [(str(part["clip"]), str(part["asset"])) for part in parts]
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        where = f"the record of {key} in {index.folder}"
        raise DatasetError(f"{where} is damaged: {error!r}.") from error
