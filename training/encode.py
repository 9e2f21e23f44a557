"""Curated shards to latent shards: pictures, sound and captions become tensors, once.

A clip gives one sample per window of a bucket's length: windows start every `stride` frames, so a
long clip is seen at many phases. Sound covers a window to the sample, from its first frame on.
Each source shard becomes one part, committed on its own: a killed run goes on at the next part.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F

from reelmill.datasets.approval import manifest_digest
from reelmill.datasets.index import ShardIndex
from reelmill.datasets.latents import (
    CODECS,
    LatentManifest,
    LatentSample,
    PartWriter,
    finish,
    part_key,
    read_commit,
)
from reelmill.datasets.media.decode import MediaInfo, probe
from reelmill.datasets.media.span import clip_audio, clip_frames
from reelmill.datasets.sample import Clip, Kind
from reelmill.datasets.views import windows_of
from reelmill.datasets.workspace import commit_bytes, writing
from reelmill.errors import DatasetError, MediaError, UsageError
from reelmill.model.codecs.codec import AudioCodec, VideoCodec, to_pixels
from reelmill.model.codecs.load import load_audio_codec, load_video_codec
from reelmill.model.codecs.mel_pca import MelPCAAudio
from reelmill.model.codecs.patch_pca import PatchPCAVideo
from reelmill.model.codecs.pca import Components
from reelmill.model.encoders.encoder import PromptEncoder
from reelmill.model.encoders.hash_text import HashTextEncoder
from reelmill.model.encoders.load import load_encoder
from reelmill.training.config import Progress, silent

log = logging.getLogger(__name__)
FIT_VERSION = 1
FIT_CLIPS = 96  # clips that a codec is fitted to, spread evenly over the shards
_PARTS = {"mp4": Kind.VIDEO, "jpg": Kind.IMAGE}


@dataclass(frozen=True)
class EncodeOptions:
    """shards: folders of curated shards; sound alone is not encoded. output: of latent shards.

    fps, height, width: what pictures are resampled and centre-cropped to. frames: lengths of the
    buckets, 1 + 4k each; a clip takes the longest that it fills. stride: frames between the starts
    of a clip's windows. video_codec, audio_codec, encoder: folders of saved ones; where None, the
    PCA codecs are fitted to these very shards, and captions are hashed. channels: of a fitted video
    codec; a token's width, channels times the cells of a patch, should stay below the model's, or
    it cannot carry the noise that it is to take away. dtype: of stored latents. low: how many times
    smaller a clip is encoded once more, at half the rate, for the Refiner; 0 is not at all. Buckets
    are then 1 + 8k frames. views: a file of `reelmill views`; then its views of this size and rate
    are the windows, and `frames` and `stride` say nothing.
    """

    shards: tuple[Path, ...]
    output: Path
    fps: int = 16
    height: int = 64
    width: int = 64
    frames: tuple[int, ...] = (33, 17)
    stride: int = 8
    video_codec: Path | None = None
    audio_codec: Path | None = None
    encoder: Path | None = None
    channels: int = 4
    dtype: str = "float16"
    low: int = 0
    views: Path | None = None

    def __post_init__(self) -> None:
        if any(n < 1 or (n - 1) % 4 for n in self.frames) or not self.frames:
            raise UsageError(f"frames {self.frames}: each must be 1 more than a multiple of 4.")
        if self.low and (
            any((n - 1) % 8 for n in self.frames)
            or self.height % (16 * self.low)
            or self.width % (16 * self.low)
        ):
            raise UsageError(
                f"frames {self.frames} of {self.width} x {self.height} with --low {self.low}: 1 + "
                f"a multiple of 8 frames, and sides of multiples of {16 * self.low}, are wanted."
            )
        if self.height % 16 or self.width % 16 or min(self.height, self.width) < 16:
            raise UsageError(f"size {self.width} x {self.height}: multiples of 16 are wanted.")
        if min(self.stride, self.fps, self.channels) < 1 or self.dtype not in (
            "float16",
            "float32",
        ):
            raise UsageError(
                f"stride {self.stride}, fps {self.fps}, channels {self.channels}, {self.dtype!r}?"
            )

    @property
    def windows(self) -> dict[str, list[tuple[int, int]]]:
        size = (self.height, self.width)
        return windows_of(self.views, size, self.fps) if self.views is not None else {}


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


@dataclass(frozen=True)
class _Decoded:
    """A clip as the codecs want it. frames: uint8 [F, H, W, 3]; sound: float32 [n] or None."""

    frames: np.ndarray
    sound: np.ndarray | None
    record: Mapping[str, Any]
    caption: str


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
        video, audio, encoder = _codecs(options, sources, digests, progress)
        run = _Run(options, video, audio, encoder)
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
    manifest = finish(
        options.output,
        run.parts,
        video=video.fingerprint(),
        audio=audio.fingerprint(),
        text=encoder.fingerprint(),
        sources=digests,
        options={
            **_settings(options),
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


def _settings(options: EncodeOptions) -> dict[str, Any]:
    """The options that decide what a latent holds, as JSON values."""
    fields = {k: v for k, v in asdict(options).items() if k in _DECISIVE}
    fields |= {"windows": options.windows} if options.views is not None else {}
    return json.loads(json.dumps(fields))


_DECISIVE = ("channels", "fps", "height", "width", "frames", "stride", "dtype", "low")


class _Run:
    """One encode run: codecs, counts, and the parts written so far."""

    def __init__(
        self, options: EncodeOptions, video: VideoCodec, audio: AudioCodec, text: PromptEncoder
    ):
        self.options, self.video, self.audio, self.text = options, video, audio, text
        self.parts: list[str] = []
        self.failed: dict[str, str] = {}
        self.samples = self.clips = self.short = self.reused = 0
        self.buckets: set[int] = set()
        self.wanted, self.settings = options.windows, _settings(options)

    def part(self, source: ShardIndex, file: str, sha256: str) -> None:
        """Encodes one source shard, unless its part is there already."""
        name = f"{source.folder.name}-{file.removesuffix('.tar')}"
        prints = (codec.fingerprint() for codec in (self.video, self.audio, self.text))
        key = part_key(sha256, self.settings, *prints)
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
        seen = options.views is None or key in self.wanted
        if not seen or (clip := _read_clip(source, key, options)) is None:
            return
        text = self.text.encode([clip.caption]).tokens[0].numpy()
        for length, start in self._windows(key, len(clip.frames)):
            frames = clip.frames[start : start + length]
            with torch.no_grad():
                latents = self.video.encode(to_pixels(frames))[0]
                low = self._low(frames)
                sound = self._sound(clip, start, length)
            meta = {
                "clip": key,
                "caption": clip.caption,
                "fps": options.fps,
                "frames": length,
                "height": options.height,
                "width": options.width,
                "start_frame": start,
                "has_audio": sound is not None,
                "source": source.folder.name,
            }
            yield LatentSample(
                key=f"{key}_{length}_{start}",
                asset=str(clip.record.get("asset") or key.split("_")[0]),
                video=latents.numpy().astype(options.dtype),
                audio=None if sound is None else sound.numpy().astype(options.dtype),
                text=text,
                meta=meta,
                low=low,
            )

    def _windows(self, key: str, frames: int) -> list[tuple[int, int]]:
        """(length, start) of the windows of a clip, in order."""
        if self.options.views is None:
            return _windows(frames, self.options)
        return [window for window in self.wanted[key] if sum(window) <= frames]

    def _low(self, frames: np.ndarray) -> np.ndarray | None:
        """Latents of every second frame, `low` times smaller."""
        factor = self.options.low
        if not factor:
            return None
        pixels = to_pixels(frames[::2])[0].transpose(0, 1)
        size = (self.options.height // factor, self.options.width // factor)
        small = F.interpolate(pixels, size, mode="bicubic", antialias=True).clamp(-1, 1)
        latents = self.video.encode(small.transpose(0, 1)[None])[0]
        return latents.numpy().astype(self.options.dtype)

    def _sound(self, clip: _Decoded, start: int, length: int) -> torch.Tensor | None:
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
            black = np.zeros((frames, options.height, options.width, 3), np.uint8)
            name = f"black.{frames}x{options.height}x{options.width}"
            out[name] = self.video.encode(to_pixels(black))[0].numpy()
        return out


def _windows(frames: int, options: EncodeOptions) -> list[tuple[int, int]]:
    """(length, start) of the windows of a clip with this many frames."""
    fitting = [n for n in options.frames if n <= frames]
    if frames == 1:
        return [(1, 0)]
    if not fitting or max(fitting) == 1:
        return []
    length = max(fitting)
    return [(length, start) for start in range(0, frames - length + 1, options.stride)]


def _read_clip(source: ShardIndex, key: str, options: EncodeOptions) -> _Decoded | None:
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
    return _Decoded(frames, sound, record, caption)


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


def _codecs(
    options: EncodeOptions,
    sources: Sequence[ShardIndex],
    digests: Mapping[str, str],
    progress: Progress,
) -> tuple[VideoCodec, AudioCodec, PromptEncoder]:
    """The codecs that were named, else those fitted to the shards; saved beside the latents."""
    encoder = load_encoder(options.encoder) if options.encoder else HashTextEncoder()
    folders = [options.output / name for name in ("video_codec", "audio_codec", "text_encoder")]
    key = hashlib.sha256(
        json.dumps([FIT_VERSION, dict(digests), _settings(options)], sort_keys=True).encode()
    ).hexdigest()
    mark = options.output / CODECS
    fitted = _fitted_for(mark) == key
    video: VideoCodec | None = (
        load_video_codec(options.video_codec) if options.video_codec else None
    )
    audio: AudioCodec | None = (
        load_audio_codec(options.audio_codec) if options.audio_codec else None
    )
    if fitted:
        video = video or load_video_codec(folders[0])
        audio = audio or load_audio_codec(folders[1])
    if video is None or audio is None:
        progress(0, None, "fit codecs")
        clips = list(_fit_clips(sources, options))
        if video is None:
            fitted_video = PatchPCAVideo.fit((c.frames for c in clips), options.channels)
            first, rest = (_tempered(c) for c in (fitted_video.first, fitted_video.rest))
            video = replace(fitted_video, first=first, rest=rest)
        if audio is None:
            fitted_audio = MelPCAAudio.fit(c.sound for c in clips if c.sound is not None)
            audio = replace(fitted_audio, components=_tempered(fitted_audio.components))
    if not fitted:
        with writing(options.output):
            mark.unlink(missing_ok=True)
            video.save(folders[0])
            audio.save(folders[1])
            encoder.save(folders[2])
        names = {"video": options.video_codec, "audio": options.audio_codec}
        own = [name for name, given in names.items() if not given]
        commit_bytes(mark, json.dumps({"fitted_for": key, "fitted": own}).encode())
    return video, audio, encoder


def _tempered(components: Components) -> Components:
    """Half-way between principal components as they are and whitened ones, at unit mean square.

    Whitened, the many faint channels that hold a room's noise or a texture weigh as much in the
    loss as the few that hold what happens, and synchronisation is learned late or never.
    """
    scale = components.scale
    return replace(components, scale=(scale * scale.mean()).sqrt())


def _fitted_for(mark: Path) -> str:
    try:
        return str(json.loads(mark.read_text())["fitted_for"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _fit_clips(sources: Sequence[ShardIndex], options: EncodeOptions) -> Iterator[_Decoded]:
    """At most FIT_CLIPS clips, spread evenly over all shards; those that fail are left out."""
    names = [(source, key) for source in sources for key in source.keys]
    step = max(1, -(-len(names) // FIT_CLIPS))
    for source, key in names[::step]:
        with contextlib.suppress(MediaError):
            clip = _read_clip(source, key, options)
            if clip is not None:
                yield clip
