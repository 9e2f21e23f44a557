"""Curated shards to latent shards: pictures, sound and captions become tensors, once.

A clip gives one sample per window of a bucket's length: windows start every `stride` frames, so a
long clip is seen at many phases. Sound covers a window to the sample, from its first frame on.
Each source shard becomes one part, committed on its own: a killed run goes on at the next part.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from reelmill.datasets.approval import manifest_digest
from reelmill.datasets.index import ShardIndex
from reelmill.datasets.latents import (
    LatentManifest,
    LatentSample,
    PartWriter,
    finish,
    part_key,
    read_commit,
)
from reelmill.errors import DatasetError, MediaError, UsageError
from reelmill.model.codecs.codec import to_pixels
from reelmill.training.config import Progress, silent
from reelmill.training.decoded_clip import DecodedClip, read_clip
from reelmill.training.encode_request import EncodeOptions, Size
from reelmill.training.fitted_codecs import Codecs, codecs_for

__all__ = ["EncodeOptions", "EncodeResult", "encode"]
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class EncodeResult:
    """clips: read from the shards; short: of them, too short for any bucket; failed: by key."""

    output: Path
    manifest: LatentManifest
    samples: int
    clips: int
    short: int
    failed: Mapping[str, str]
    parts: int
    reused: int


def encode(options: EncodeOptions, progress: Progress = silent) -> EncodeResult:
    """Writes latent shards, going on where an earlier run stopped.

    Raises DatasetError for shards that are missing or damaged and when no clip is long enough,
    CheckpointError for a codec folder that is none, WorkspaceError when the disk is full.
    """
    if not options.shards:
        raise UsageError("no shards to encode: name at least one folder of curated shards.")
    with contextlib.ExitStack() as stack:
        sources = [stack.enter_context(ShardIndex.read(folder)) for folder in options.shards]
        digests = {s.folder.name: manifest_digest(s.folder) for s in sources}
        codecs = codecs_for(options, sources, digests, progress)
        run = _Run(options, codecs)
        done, total = 0, sum(len(source.manifest) for source in sources)
        for source in sources:
            for shard in source.manifest:
                run.part(source, shard.file, shard.sha256)
                done += 1
                progress(done, total, f"encode {source.folder.name}: {run.samples} samples")
    if not run.samples:
        raise DatasetError(
            f"no clip in {', '.join(map(str, options.shards))} is as long as {min(options.frames)} "
            f"frames at {options.fps} fps: {run.clips} were read, {len(run.failed)} failed."
        )
    video, audio, text = codecs.fingerprints
    manifest = finish(
        options.output,
        run.parts,
        video=video,
        audio=audio,
        text=text,
        sources=digests,
        options={
            **options.decisive,
            "shards": {s.folder.name: os.path.relpath(s.folder, options.output) for s in sources},
        },
        constants=run.constants(),
    )
    return EncodeResult(
        output=options.output,
        manifest=manifest,
        samples=run.samples,
        clips=run.clips,
        short=run.short,
        failed=run.failed,
        parts=len(run.parts),
        reused=run.reused,
    )


class _Run:
    """One encode run: codecs, counts, and the parts written so far."""

    def __init__(self, options: EncodeOptions, codecs: Codecs):
        self.options, self.prints = options, codecs.fingerprints
        self.video, self.audio, self.text = codecs
        self.parts: list[str] = []
        self.failed: dict[str, str] = {}
        self.samples = self.clips = self.short = self.reused = 0
        self.buckets: set[int] = set()
        self.wanted, self.settings = options.windows, options.decisive

    def part(self, source: ShardIndex, file: str, sha256: str) -> None:
        """Encodes one source shard, unless its part is there already."""
        name = self.options.part_of(source.folder.name, file)
        key = part_key(sha256, self.settings, *self.prints)
        self.parts.append(name)
        counts = read_commit(self.options.output, name, key)
        if counts is not None:
            self.reused += 1
        else:
            writer = PartWriter(self.options.output, name, key)
            counts = {"clips": 0, "short": 0, "failed": {}}
            for sample_key in source.keys_of(file):
                counts["clips"] += 1
                try:
                    found = list(self._clip(source, sample_key))
                except MediaError as error:
                    counts["failed"][sample_key] = str(error)
                    log.warning("clip %s cannot be encoded: %s", sample_key, error)
                    continue
                counts["short"] += not found
                for sample in found:
                    writer.add(sample)
            counts = writer.commit(counts)
        self.samples += counts["samples"]
        self.clips += counts["clips"]
        self.short += counts["short"]
        self.failed |= counts["failed"]
        self.buckets |= set(counts["frames"])

    def _clip(self, source: ShardIndex, key: str) -> Iterator[LatentSample]:
        """The samples of one clip: none when it is shorter than every bucket."""
        options = self.options
        if options.views is not None and key not in self.wanted:
            return
        clip = read_clip(source, key, options.fps, options.all_sizes)
        text = self.text.encode([clip.caption]).tokens[0].numpy()
        for length, start in self._windows(key, clip):
            with torch.no_grad():
                sound = self._sound(clip, start, length)
            for height, width in clip.pictures or [(0, 0)]:
                name = f"{key}_{length}_{start}"
                if (height, width) != (options.height, options.width) and clip.pictures:
                    name += f"_{height}x{width}"
                with torch.no_grad():
                    latents, low = self._pictures(clip, (height, width), start, length)
                meta = {
                    "clip": key,
                    "caption": clip.caption,
                    "fps": options.fps,
                    "frames": length,
                    "height": height,
                    "width": width,
                    "start_frame": start,
                    "has_audio": sound is not None,
                    "source": source.folder.name,
                }
                yield LatentSample(
                    key=name,
                    asset=str(clip.record.get("asset") or key.split("_")[0]),
                    video=latents,
                    audio=None if sound is None else sound.numpy().astype(options.dtype),
                    text=text,
                    meta=meta,
                    low=low,
                )

    def _windows(self, key: str, clip: DecodedClip) -> list[tuple[int, int]]:
        """(length, start) of the windows of a clip, in order."""
        if self.options.views is None:
            return self.options.windows_in(clip.frames, sound=not clip.pictures)
        return [window for window in self.wanted[key] if sum(window) <= clip.frames]

    def _pictures(
        self, clip: DecodedClip, size: Size, start: int, length: int
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Latents of a window, and of every second frame of it, `low` times smaller.

        Of sound alone, latents of no size, as many as its clock wants.
        """
        options = self.options
        if not clip.pictures:
            latents = 1 + (length - 1) // self.video.stride[0]
            return np.zeros((self.video.channels, latents, 0, 0), options.dtype), None
        frames = clip.pictures[size][start : start + length]
        whole = self.video.encode(to_pixels(frames))[0].numpy().astype(options.dtype)
        if not options.low:
            return whole, None
        pixels = to_pixels(frames[::2])[0].transpose(0, 1)
        small = (size[0] // options.low, size[1] // options.low)
        scaled = F.interpolate(pixels, small, mode="bicubic", antialias=True).clamp(-1, 1)
        low = self.video.encode(scaled.transpose(0, 1)[None])[0]
        return whole, low.numpy().astype(options.dtype)

    def _sound(self, clip: DecodedClip, start: int, length: int) -> torch.Tensor | None:
        """Latents of a window's sound [C, L], L = floor(seconds * rate / hop)."""
        if clip.sound is None or length == 1:
            return None
        rate, hop = self.audio.rate, self.audio.hop
        first = round(start * rate / self.options.fps)
        count = int(Fraction(length * rate, self.options.fps * hop)) * hop
        samples = clip.sound[first : first + count]
        samples = np.pad(samples, (0, count - len(samples)))
        return self.audio.encode(torch.from_numpy(samples)[None])[0]

    def constants(self) -> dict[str, np.ndarray]:
        """What stands for an empty caption and for a black picture."""
        options = self.options
        out = {"null_text": self.text.encode([""]).tokens[0].numpy()}
        for frames in sorted(self.buckets):
            for height, width in options.all_sizes:
                black = np.zeros((frames, height, width, 3), np.uint8)
                name = f"black.{frames}x{height}x{width}"
                out[name] = self.video.encode(to_pixels(black))[0].numpy()
        return out
