"""Reading media safely: what a file holds, its frames, its sound.

`probe` looks, `decode` reads a whole file once for everybody, `clip_frames` and `clip_audio` read
a span. Formats, protocols and sizes are bounded (container.py); damage in the middle of a file is
counted and passed over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import av.error
import cv2
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from reelmill.datasets.media.container import (
    MAX_CHANNELS,
    MAX_FRAMES,
    MAX_PIXELS,
    MAX_RATE,
    NotMedia,
    describe,
    first_frames,
    looks_like_media,
    open_container,
    pick_streams,
    reason,
    sniff,
)
from reelmill.datasets.media.decoded import AudioBlock, DecodeSummary, Frame
from reelmill.datasets.media.image import read_header, read_rgb
from reelmill.datasets.media.picture import (
    FrameClock,
    Scaler,
    analysis_size,
    clockwise,
    full_luma,
)
from reelmill.datasets.media.sound import MonoResampler, SoundRow
from reelmill.datasets.media.span import clip_audio, clip_frames, clip_samples
from reelmill.datasets.media.tone_map import ToneMap, transfer_of
from reelmill.datasets.media.vectors import ask_for_vectors, coded_vectors
from reelmill.datasets.sample import Kind
from reelmill.errors import MediaError

__all__ = [
    "ANALYSIS_WIDTH",
    "AudioBlock",
    "AudioInfo",
    "DecodeSummary",
    "Frame",
    "MediaInfo",
    "NotMedia",
    "VideoInfo",
    "clip_audio",
    "clip_frames",
    "clip_samples",
    "decode",
    "decode_audio",
    "decode_frames",
    "probe",
]

ANALYSIS_WIDTH = 256
MONO_RATE = 16_000


@dataclass(frozen=True, slots=True)
class VideoInfo:
    """The video stream that is read. width, height: as displayed (rotation and SAR applied).

    rotation: degrees clockwise that set a decoded frame upright (0, 90, 180, 270).
    frames_expected: what the container says, None where it says nothing. start_s: pts of the first
    decoded frame, in seconds on the container's clock. transfer: `pq` or `hlg` where its frames are
    HDR (they are read as SDR ones, see tone_map.py), else "".
    """

    width: int
    height: int
    coded_width: int
    coded_height: int
    rotation: int
    sample_aspect: Fraction
    time_base: Fraction
    average_rate: Fraction | None
    frames_expected: int | None
    codec: str
    pixel_format: str
    start_s: float
    transfer: str = ""


@dataclass(frozen=True, slots=True)
class AudioInfo:
    """The audio stream that is read. start_s: its first pts, on the container's clock."""

    rate: int
    channels: int
    codec: str
    start_s: float


@dataclass(frozen=True, slots=True)
class MediaInfo:
    """What a file holds, found from its content and not from its name."""

    kind: Kind
    container: str
    seconds: float | None
    bytes: int
    video: VideoInfo | None
    audio: AudioInfo | None


def probe(path: Path) -> MediaInfo:
    """What a file holds, by its content: an image (JPEG, PNG, WebP, AVIF, BMP, GIF), else a
    container with picture and sound. The first picture and the first sound are decoded.

    Raises NotMedia for what never was media, MediaError for what is damaged or beyond bounds.
    """
    sniff(path)
    size = path.stat().st_size
    header = read_header(path)
    if header is not None:
        picture = VideoInfo(
            width=header.width,
            height=header.height,
            coded_width=header.coded_width,
            coded_height=header.coded_height,
            rotation=header.rotation,
            sample_aspect=Fraction(1),
            time_base=Fraction(1),
            average_rate=None,
            frames_expected=1,
            codec=header.format.lower(),
            pixel_format=header.mode,
            start_s=0.0,
        )
        return MediaInfo(Kind.IMAGE, header.format.lower(), None, size, picture, None)
    with open_container(path) as container:
        video_stream, audio_stream = pick_streams(container, path)
        if video_stream is None and audio_stream is None:
            kind = MediaError if looks_like_media(path) else NotMedia
            raise kind(f"{describe(path)} holds neither picture nor sound.")
        frame, sound = first_frames(container, video_stream, audio_stream, path)
        video = _video_info(video_stream, frame, path) if video_stream and frame else None
        audio = _audio_info(audio_stream, sound, path) if audio_stream and sound else None
        return MediaInfo(
            kind=Kind.VIDEO if video is not None else Kind.AUDIO,
            container=container.format.name.split(",")[0],
            seconds=container.duration / 1e6 if container.duration else None,
            bytes=size,
            video=video,
            audio=audio,
        )


def _video_info(stream: VideoStream, frame: VideoFrame, path: Path) -> VideoInfo:
    width, height = frame.width, frame.height
    if not 0 < width * height <= MAX_PIXELS:
        raise MediaError(
            f"{describe(path)}: {width} x {height} pixels, at most {MAX_PIXELS} are read."
        )
    aspect = stream.sample_aspect_ratio or Fraction(1)
    if not Fraction(1, 16) <= aspect <= 16:
        aspect = Fraction(1)
    shown = (max(1, round(width * aspect)), height)
    turn = clockwise(frame)
    rate = stream.average_rate
    time_base = stream.time_base or Fraction(1, 90_000)
    return VideoInfo(
        width=shown[1] if turn in (90, 270) else shown[0],
        height=shown[0] if turn in (90, 270) else shown[1],
        coded_width=width,
        coded_height=height,
        rotation=turn,
        sample_aspect=aspect,
        time_base=time_base,
        average_rate=rate if rate and rate > 0 else None,
        frames_expected=stream.frames or None,
        codec=stream.codec_context.codec.canonical_name,
        pixel_format=frame.format.name,
        start_s=float((frame.pts or 0) * time_base),
        transfer=transfer_of(frame),
    )


def _audio_info(stream: AudioStream, frame: AudioFrame, path: Path) -> AudioInfo:
    channels = len(frame.layout.channels)
    if not (0 < frame.sample_rate <= MAX_RATE and 0 < channels <= MAX_CHANNELS):
        raise MediaError(
            f"{describe(path)}: sound of {frame.sample_rate} Hz and {channels} channels, at most "
            f"{MAX_RATE} Hz and {MAX_CHANNELS} are read."
        )
    start = (frame.pts or 0) * (stream.time_base or Fraction(1, frame.sample_rate))
    codec = stream.codec_context.codec.canonical_name
    return AudioInfo(frame.sample_rate, channels, codec, float(start))


@dataclass
class _Counts:
    """What a decode counts while it runs."""

    pts: list[int] = field(default_factory=list)
    last_ticks: int = 0
    packets: int = 0
    errors: int = 0
    samples: int = 0
    gap_samples: int = 0
    error: str = ""

    def summary(self) -> DecodeSummary:
        return DecodeSummary(
            frame_pts=np.array(self.pts, dtype=np.int64),
            last_frame_ticks=self.last_ticks,
            packets=self.packets,
            decode_errors=self.errors,
            samples=self.samples,
            error=self.error,
            gap_samples=self.gap_samples,
        )


def decode(
    path: Path,
    info: MediaInfo,
    on_frame: Callable[[Frame], None] | None = None,
    on_audio: Callable[[AudioBlock], None] | None = None,
    *,
    width: int = ANALYSIS_WIDTH,
    threads: int = 1,
    vectors: bool = False,
) -> DecodeSummary:
    """Reads a file once and hands every frame and every block of sound on, in order.

    A stream whose callback is None is not decoded. Damage is counted in the summary; MediaError
    is raised only when nothing at all can be decoded of what was asked for. More than one thread
    may conceal damage differently. vectors: whether frames bring the codec's motion vectors.
    """
    counts = _Counts()
    want_video, want_audio = on_frame is not None, on_audio is not None
    events = _events(path, info, counts, want_video, want_audio, width, threads, vectors)
    for event in events:
        if isinstance(event, Frame):
            if on_frame is not None:
                on_frame(event)
        elif on_audio is not None:
            on_audio(event)
    if want_video and info.video is not None and not counts.pts:
        raise MediaError(f"{describe(path)}: no picture could be decoded. {counts.error}".strip())
    if want_audio and info.kind == Kind.AUDIO and not counts.samples:
        raise MediaError(f"{describe(path)}: no sound could be decoded. {counts.error}".strip())
    return counts.summary()


def decode_frames(
    path: Path, info: MediaInfo, *, width: int = ANALYSIS_WIDTH, threads: int = 1
) -> Iterator[Frame]:
    """The frames that `decode` gives, as an iterator."""
    for event in _events(path, info, _Counts(), True, False, width, threads):
        assert isinstance(event, Frame)
        yield event


def decode_audio(path: Path, info: MediaInfo) -> Iterator[AudioBlock]:
    """The blocks of sound that `decode` gives, as an iterator."""
    for event in _events(path, info, _Counts(), False, True, ANALYSIS_WIDTH, 1):
        assert isinstance(event, AudioBlock)
        yield event


def _events(
    path: Path,
    info: MediaInfo,
    counts: _Counts,
    want_video: bool,
    want_audio: bool,
    width: int,
    threads: int,
    vectors: bool = False,
) -> Iterator[Frame | AudioBlock]:
    if info.kind == Kind.IMAGE:
        if want_video:
            yield _image_frame(path, info, width)
            counts.pts, counts.packets = [0], 1
        return
    with open_container(path) as container:
        video, audio = pick_streams(container, path)
        video = video if want_video and info.video is not None else None
        audio = audio if want_audio and info.audio is not None else None
        streams = [s for s in (video, audio) if s is not None]
        if not streams:
            return
        if vectors and video is not None:
            ask_for_vectors(video)
        pictures = _Pictures(container, video, info, counts, width, threads) if video else None
        sound = _Sound(info, audio, counts) if audio else None
        packets = container.demux(*streams)
        while True:
            try:
                packet = next(packets)
            except StopIteration:
                break
            except av.error.FFmpegError as error:
                counts.error = f"reading stopped: {reason(error)}"
                counts.errors += 1
                break
            is_video = video is not None and packet.stream_index == video.index
            counts.packets += is_video and packet.size > 0
            try:
                frames = packet.decode()
            except av.error.FFmpegError:
                counts.errors += 1
                continue
            for frame in frames:
                if pictures is not None and isinstance(frame, VideoFrame):
                    shown = pictures.push(frame)
                    if shown is not None:
                        yield shown
                elif sound is not None and isinstance(frame, AudioFrame):
                    yield from sound.push(frame)
            if len(counts.pts) > MAX_FRAMES:
                counts.error = f"more than {MAX_FRAMES} frames"
                break
        if sound is not None:
            yield from sound.finish()


def _image_frame(path: Path, info: MediaInfo, width: int) -> Frame:
    assert info.video is not None
    size = analysis_size(info.video.width, info.video.height, width)
    rgb = read_rgb(path, least=size)
    bgr = cv2.resize(rgb[..., ::-1], size, interpolation=cv2.INTER_AREA)
    gray = cv2.cvtColor(bgr, cv2.COLOR_BGR2GRAY)
    return Frame(
        index=0,
        pts=0,
        seconds=0.0,
        gray=gray,
        colour=lambda: bgr,
        luma=lambda: cv2.cvtColor(read_rgb(path), cv2.COLOR_RGB2GRAY),
    )


class _Pictures:
    def __init__(
        self,
        container: InputContainer,
        stream: VideoStream,
        info: MediaInfo,
        counts: _Counts,
        width: int,
        threads: int,
    ):
        assert info.video is not None
        stream.codec_context.thread_count = threads
        if threads != 1:
            stream.thread_type = "AUTO"
        self._clock = FrameClock(container, stream)
        self._time_base = float(info.video.time_base)
        self._turn = info.video.rotation
        self._size = analysis_size(info.video.width, info.video.height, width)
        self._scaler, self._sdr = Scaler(), ToneMap()
        self._counts = counts

    def push(self, frame: VideoFrame) -> Frame | None:
        counts = self._counts
        counts.errors += frame.is_corrupt
        pts = self._clock.pts(frame)
        if pts is None:
            counts.errors += 1
            return None
        index = len(counts.pts)
        before = pts - counts.pts[-1] if counts.pts else self._clock.nominal
        counts.last_ticks = frame.duration if frame.duration > 0 else before
        counts.pts.append(pts)
        seconds = (pts - counts.pts[0]) * self._time_base
        shown = self._sdr(frame)
        gray, colour = self._scaler.small(shown, *self._size, self._turn)
        luma, vectors = partial(full_luma, shown), partial(coded_vectors, frame)
        return Frame(index, pts, seconds, gray, colour, luma, vectors)


class _Sound:
    def __init__(self, info: MediaInfo, stream: AudioStream, counts: _Counts):
        assert info.audio is not None
        self._row = SoundRow.of(info.audio.rate, info.audio.channels, info.audio.start_s, stream)
        self._mono = MonoResampler(info.audio.rate, MONO_RATE)
        self._mixed = 0  # samples that were resampled
        self._shared: dict[str, Any] = {}
        self._counts = counts

    def push(self, frame: AudioFrame) -> Iterable[AudioBlock]:
        done = self._row.push(frame)  # nothing, but for one frame of a hundred
        return (AudioBlock(at, s, partial(self._mix, at, s), self._shared) for at, s in done)

    def finish(self) -> Iterator[AudioBlock]:
        counts, row = self._counts, self._row
        rest = list(row.flush()) or [(row.count, np.empty((row.channels, 0), np.float32))]
        counts.samples, counts.gap_samples = row.count, row.gap_samples
        counts.errors += row.errors
        if row.count:
            ((start, samples),) = rest
            mono = partial(self._mix, start, samples, last=True)
            yield AudioBlock(start, samples, mono, self._shared)

    def _mix(self, start: int, samples: np.ndarray, *, last: bool = False) -> np.ndarray:
        if start != self._mixed:
            raise RuntimeError(f"mono16k of sample {start} was asked for after {self._mixed}")
        self._mixed += samples.shape[1]
        mono = self._mono.push(mix(samples))
        return np.concatenate((mono, self._mono.flush())) if last else mono


def mix(samples: np.ndarray) -> np.ndarray:
    """float32 [n], the mean of float32 [channels, n]."""
    return samples[0] if len(samples) == 1 else samples.mean(axis=0)
