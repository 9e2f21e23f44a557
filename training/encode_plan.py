"""What an encoding would do, from the shards' records alone: no clip is decoded."""

from __future__ import annotations

import contextlib
import json
import math
from dataclasses import dataclass
from pathlib import Path

from reelmill.datasets.approval import manifest_digest
from reelmill.datasets.index import ShardIndex
from reelmill.datasets.latents import part_key, read_commit
from reelmill.errors import UsageError
from reelmill.training.encode_request import EncodeOptions
from reelmill.training.fitted_codecs import found_codecs


@dataclass(frozen=True)
class EncodePlan:
    """parts: shards, of which `there` are encoded already. clips: of the others; of them, short for
    every bucket and unread: their record is damaged. samples: that these clips
    will give, if all decode. held: samples of the parts that are there. to_fit: codecs that have to
    be fitted first, after which nothing is there.
    """

    output: Path
    parts: int
    there: int
    clips: int
    short: int
    unread: int
    samples: int
    held: int
    to_fit: tuple[str, ...]


def plan_encode(options: EncodeOptions) -> EncodePlan:
    """Raises DatasetError for shards that are missing or damaged, CheckpointError for a codec."""
    if not options.shards:
        raise UsageError("no shards to encode: name at least one folder of curated shards.")
    parts = there = held = clips = short = unread = samples = 0
    with contextlib.ExitStack() as stack:
        sources = [stack.enter_context(ShardIndex.read(folder)) for folder in options.shards]
        video, audio, text = found_codecs(
            options, {s.folder.name: manifest_digest(s.folder) for s in sources}
        )
        lacking = tuple(n for n, codec in (("video", video), ("audio", audio)) if codec is None)
        prints = [codec.fingerprint() for codec in (video, audio, text) if codec is not None]
        windows, settings = options.windows, options.decisive
        for source in sources:
            for shard in source.manifest:
                parts += 1
                name = options.part_of(source.folder.name, shard.file)
                commit = None
                if not lacking:
                    key = part_key(shard.sha256, settings, *prints)
                    commit = read_commit(options.output, name, key)
                if commit is not None:
                    there, held = there + 1, held + int(commit["samples"])
                    continue
                for key in source.keys_of(shard.file):
                    clips += 1
                    frames = _frames(source, key, options.fps)
                    if frames is None:
                        unread += 1
                        continue
                    sound = source.has(key, "flac")
                    if options.views is None:
                        found = len(options.windows_in(frames, sound=sound))
                    else:
                        found = sum(sum(window) <= frames for window in windows.get(key, ()))
                    short += not found
                    samples += found * (1 if sound else len(options.all_sizes))
    return EncodePlan(options.output, parts, there, clips, short, unread, samples, held, lacking)


def _frames(source: ShardIndex, key: str, fps: int) -> int | None:
    """Frames of a clip at a rate, as its record has its length; 0: none, None: not told."""
    if source.has(key, "jpg"):
        return 1
    sound = source.has(key, "flac")
    if not (sound or source.has(key, "mp4")):
        return 0
    try:
        seconds = json.loads(source.member(key, "json"))["cut"]["seconds"]
        if not 0 < seconds < 86_400:
            return None
        return int(seconds * fps + 1e-6) if sound else max(1, math.ceil(seconds * fps - 1e-6))
    except (ValueError, KeyError, TypeError):
        return None
