"""Writing media: the one place where frames and samples become files.

Same input, same bytes: encoders run on one thread, no time stamp or library version is written.
A file appears under its name whole or not at all.

Picture and sound stay together also for a plain loader, one that counts frames and samples from
zero and never looks at container start times. In mp4, mov and mkv the AAC encoder's priming
(1024 samples) is written as an edit list or codec delay, and every FFmpeg-based decoder drops it:
measured with flashes and beeps, the residual is below 0.1 ms for AAC, FLAC and PCM at 16, 44.1
and 48 kHz. AAC has one more trait: it decodes to whole packets, so such a loader reads up to 1023
samples of padding past the end, while the container states the true length. Where the sample
count must be exact, or a reader may ignore edit lists (it would be late by the priming, 21 ms at
48 kHz), use `audio_codec="flac"`, which mp4 and mkv carry, or PCM in mov.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.error
import cv2
import numpy as np
from av.codec.context import Flags

from reelmill.datasets.workspace import aside, writing
from reelmill.errors import MediaError

FORMATS = {
    ".mp4": "mp4",
    ".m4v": "mp4",
    ".m4a": "mp4",
    ".mov": "mov",
    ".mkv": "matroska",
    ".mka": "matroska",
    ".webm": "webm",
    ".avi": "avi",
    ".flac": "flac",
    ".wav": "wav",
    ".mp3": "mp3",
    ".ogg": "ogg",
}
QUICKTIME = frozenset({"mp4", "mov"})
RATE_CONTROLLED = frozenset({"libx264", "libx265"})
SAMPLE_FORMATS = {
    "aac": "fltp",
    "flac": "s16",
    "pcm_s16le": "s16",
    "pcm_f32le": "flt",
    "libmp3lame": "fltp",
    "libopus": "flt",
}
AUDIO_BLOCK = 1024
AVX_512F = 13  # OpenCV's CV_CPU_AVX_512F, which its Python module does not name
Picture = np.ndarray | av.VideoFrame


def write_video(
    path: Path | str,
    frames: Iterable[Picture],
    *,
    fps: Fraction | int | float | None = None,
    pts: Sequence[int] | None = None,
    time_base: Fraction = Fraction(1, 1000),
    own_pts: bool = False,
    audio: np.ndarray | None = None,
    audio_rate: int = 48_000,
    audio_codec: str | None = "aac",
    audio_bit_rate: int = 128_000,
    codec: str = "libx264",
    crf: float = 18,
    preset: str = "veryfast",
    gop: int | None = None,
    pixel_format: str = "yuv420p",
    start_s: float = 0.0,
    audio_start_s: float = 0.0,
    rotation: int = 0,
    sample_aspect: Fraction | None = None,
    container: str | None = None,
    container_options: Mapping[str, str] | None = None,
    codec_options: Mapping[str, str] | None = None,
    audio_options: Mapping[str, str] | None = None,
    metadata: Mapping[str, str] | None = None,
) -> int:
    """Encodes frames, and sound if given, into one file. Returns the number of frames written.

    frames:  uint8 RGB [height, width, 3] each (converted to BT.601 limited range, tagged so), or
             decoded av.VideoFrame, whose colour tags are kept. All of the size of the first. Taken
             one at a time, so an iterator never holds the whole clip.
    fps:     constant rate; or `pts`: one number per frame, rising, in ticks of `time_base`
             seconds, for variable rate. The last frame lasts as long as the one before it.
    own_pts: the pictures are av.VideoFrame that carry their own pts and duration in ticks of
             `time_base`; `fps` is then only the rate that the encoder plans with.
    audio:   [channels, samples] (1 or 2 channels), float in [-1, 1] or int16, at `audio_rate` Hz;
             clipped beyond. None, or audio_codec None: no sound.
    audio_codec: `aac`, `flac` or `pcm_s16le`; what the container can carry.
    crf, preset: of libx264 and libx265 only. gop: frames between key frames; None: the codec's.
    start_s, audio_start_s: where each stream starts on the container's clock. Above zero, AAC's
             priming is no longer hidden from a plain loader; such files are made to test readers.
    rotation: degrees counter-clockwise by which a player must turn the picture.
    container: format name; None: by the suffix.
    container_options, codec_options, audio_options: FFmpeg's own; an empty string takes a default
             of ours away. `audio_options={"aac_coder": "fast"}` makes AAC four times as fast.

    Raises ValueError for arguments that do not fit together, WorkspaceError when the disk refuses,
    MediaError (transient) when the encoder does.
    """
    path = Path(path)
    if (fps is None) == (pts is None):
        raise ValueError("write_video takes either fps or pts")
    if own_pts and fps is None:
        raise ValueError("write_video with own_pts takes fps as the rate to plan with")
    rate = _rate(fps) if fps is not None else None
    base = 1 / rate if rate is not None and not own_pts else time_base
    format_name = _format(path, container)
    sound = _channels(audio) if audio is not None and audio_codec is not None else None
    options = {"fflags": "+bitexact"}
    if format_name in QUICKTIME:
        # Lengths and edit lists are counted in ticks of the movie: the default, 1 ms, is coarse.
        options["movie_timescale"] = str(audio_rate if sound is not None else 90_000)
        options["movflags"] = "+faststart"
    options = {k: v for k, v in (options | dict(container_options or {})).items() if v}

    pictures = iter(frames)
    first = next(pictures, None)
    if first is None:
        raise ValueError(f"write_video: no frames for {path.name}")
    height, width = _size(first)
    if pixel_format == "yuv420p" and (height % 2 or width % 2):
        raise ValueError(
            f"write_video: {width}x{height} is odd and {pixel_format} needs even sides; "
            "crop the frames or use pixel_format='yuv444p'"
        )

    with _output(path, format_name, options) as output:
        for key, value in (metadata or {}).items():
            output.metadata[key] = value
        nominal = rate if rate is not None else _mean_rate(pts or (), time_base)
        stream: Any = output.add_stream(codec, rate=nominal)
        stream.width, stream.height, stream.pix_fmt = width, height, pixel_format
        context = stream.codec_context
        context.time_base = base
        context.thread_count = 1
        context.flags |= Flags.bitexact
        if gop is not None:
            context.gop_size = gop
        context.options = _codec_options(codec, crf, preset, codec_options or {})
        if sample_aspect is not None:
            context.sample_aspect_ratio = sample_aspect
        if rotation:
            stream.set_display_rotation(rotation)
        _tag_colour(context, first)

        voice = None
        if sound is not None and audio_codec is not None:
            voice = _Sound(
                output,
                sound,
                audio_rate,
                audio_codec,
                bit_rate=audio_bit_rate,
                start_s=audio_start_s,
                options=audio_options,
            )
        shift = round(Fraction(start_s).limit_denominator(1_000_000) / base)
        count = 0
        picture: Picture | None = first
        while picture is not None:
            if _size(picture) != (height, width):
                raise ValueError(
                    f"write_video: frame {count} is {_size(picture)}, the first {(height, width)}"
                )
            if pts is not None and count >= len(pts):
                raise ValueError(f"write_video: more frames than the {len(pts)} pts given")
            tick, duration = count, _duration(pts, count)
            if own_pts and isinstance(picture, av.VideoFrame):
                tick, duration = picture.pts or 0, picture.duration
            elif pts is not None:
                tick = pts[count]
            frame = _video_frame(picture, pixel_format)
            frame.pts, frame.time_base = tick + shift, base
            frame.duration = duration
            frame.pict_type = 0
            output.mux(stream.encode(frame))
            if voice is not None:
                voice.write_until(float(tick * base))
            count += 1
            picture = next(pictures, None)
        if pts is not None and count != len(pts):
            raise ValueError(f"write_video: {count} frames for {len(pts)} pts")
        output.mux(stream.encode(None))
        if voice is not None:
            voice.finish()
    return count


def write_audio(
    path: Path | str,
    samples: np.ndarray,
    rate: int,
    *,
    codec: str = "flac",
    bit_rate: int = 128_000,
    container: str | None = None,
    options: Mapping[str, str] | None = None,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Encodes sound alone: `samples` [channels, n] as in write_video, at `rate` Hz.

    codec: `flac`, `pcm_s16le`, `aac`, `libmp3lame`, `libopus`; options: FFmpeg's for it. Raises as
    write_video does.
    """
    path = Path(path)
    format_name = _format(path, container)
    muxing = {"fflags": "+bitexact"}
    if format_name in QUICKTIME:
        muxing |= {"movie_timescale": str(rate), "movflags": "+faststart"}
    with _output(path, format_name, muxing) as output:
        for key, value in (metadata or {}).items():
            output.metadata[key] = value
        _Sound(output, _channels(samples), rate, codec, bit_rate=bit_rate, options=options).finish()


def write_image(
    path: Path | str, rgb: np.ndarray, *, quality: int = 92, suffix: str | None = None
) -> None:
    """Encodes one uint8 RGB picture [height, width, 3] as jpg, png or webp, by the suffix.

    quality: 1 to 100, for jpg and webp. suffix: the format where the name says another or none.
    Raises ValueError for another format or shape, WorkspaceError when the disk refuses.
    """
    path = Path(path)
    kind = (suffix or path.suffix).lower()
    flags = {
        ".jpg": cv2.IMWRITE_JPEG_QUALITY,
        ".jpeg": cv2.IMWRITE_JPEG_QUALITY,
        ".webp": cv2.IMWRITE_WEBP_QUALITY,
        ".png": None,
    }
    if kind not in flags:
        raise ValueError(f"write_image: {path.name}: use one of {', '.join(flags)}")
    height, width = _size(rgb)
    flag = flags[kind]
    coded, data = cv2.imencode(
        kind, cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), [flag, quality] if flag is not None else []
    )
    if not coded:
        raise MediaError(f"cannot encode a {width}x{height} picture as {kind}", cause="transient")
    with _whole(path) as temporary, writing(path):
        temporary.write_bytes(data.tobytes())


class _Sound:
    """The audio stream of an output: fed in step with the picture, so that packets interleave."""

    def __init__(
        self,
        output: Any,
        samples: np.ndarray,
        rate: int,
        codec: str,
        *,
        bit_rate: int,
        start_s: float = 0.0,
        options: Mapping[str, str] | None = None,
    ):
        if codec not in SAMPLE_FORMATS:
            raise ValueError(f"audio codec {codec!r}: use one of {', '.join(SAMPLE_FORMATS)}")
        self.output, self.rate, self.position = output, rate, 0
        self.start = round(start_s * rate)
        self.format = SAMPLE_FORMATS[codec]
        self.samples = _converted(samples, self.format)
        self.layout = "mono" if len(samples) == 1 else "stereo"
        self.stream = output.add_stream(codec, rate=rate, layout=self.layout)
        context = self.stream.codec_context
        context.format = self.format
        context.options = dict(options or {})
        context.flags |= Flags.bitexact
        context.thread_count = 1
        if codec in ("aac", "libmp3lame", "libopus"):
            context.bit_rate = bit_rate
        context.open()
        self.block = context.frame_size or AUDIO_BLOCK

    def write_until(self, seconds: float) -> None:
        limit = min(round(seconds * self.rate), self.samples.shape[1])
        while self.position < limit:
            self._write_block()

    def finish(self) -> None:
        while self.position < self.samples.shape[1]:
            self._write_block()
        self.output.mux(self.stream.encode(None))

    def _write_block(self) -> None:
        part = self.samples[:, self.position : self.position + self.block]
        planar = self.format.endswith("p")
        layout = part if planar else part.T.reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(
            np.ascontiguousarray(layout), format=self.format, layout=self.layout
        )
        frame.sample_rate = self.rate
        frame.pts, frame.time_base = self.position + self.start, Fraction(1, self.rate)
        self.output.mux(self.stream.encode(frame))
        self.position += part.shape[1]


@contextlib.contextmanager
def _whole(path: Path) -> Iterator[Path]:
    """A temporary name beside `path` that takes its place if the body succeeds."""
    temporary = aside(path)
    try:
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with writing(path):
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def _output(path: Path, format_name: str, options: dict[str, str]) -> Iterator[Any]:
    with _whole(path) as temporary, writing(path):
        try:
            with av.open(
                "file:" + os.fspath(temporary), "w", format=format_name, options=options
            ) as output:
                yield output
        except av.error.FFmpegError as error:
            if isinstance(error, OSError) and error.errno and error.errno > 0:
                raise OSError(error.errno, os.strerror(error.errno), str(path)) from error
            raise MediaError(
                f"{path.name}: the encoder refused: {error.strerror}", cause="transient"
            ) from error


def _format(path: Path, container: str | None) -> str:
    if container is not None:
        return container
    if path.suffix.lower() not in FORMATS:
        raise ValueError(f"{path.name}: unknown suffix; use one of {', '.join(FORMATS)}")
    return FORMATS[path.suffix.lower()]


def _codec_options(codec: str, crf: float, preset: str, own: Mapping[str, str]) -> dict[str, str]:
    if codec not in RATE_CONTROLLED:
        return dict(own)
    options = {"crf": str(crf), "preset": preset} | dict(own)
    fixed = []
    if codec == "libx265":
        fixed = ["log-level=error:pools=none:frame-threads=1"]
    elif cv2.checkHardwareSupport(AVX_512F):
        # With x264's AVX-512 code the same input now and then gave other bytes (seen at widths of
        # 6, 7, 9, 10, 20 and 22 macroblocks, never with AVX2 or mbtree=0). AVX2 was as fast.
        fixed = ["asm=avx2"]
    key = f"{codec.removeprefix('lib')}-params"
    params = ":".join(filter(None, [*fixed, options.pop(key, "")]))
    return options | ({key: params} if params else {})


def _rate(fps: Fraction | int | float) -> Fraction:
    rate = Fraction(fps).limit_denominator(1001)
    if rate <= 0:
        raise ValueError(f"fps must be above 0, not {fps}")
    return rate


def _mean_rate(pts: Sequence[int], time_base: Fraction) -> Fraction:
    if any(b <= a for a, b in itertools.pairwise(pts)):
        raise ValueError("write_video: pts must rise from frame to frame")
    if len(pts) < 2:
        return Fraction(25)
    return Fraction(len(pts) - 1, pts[-1] - pts[0]).limit_denominator(100_000) / time_base


def _duration(pts: Sequence[int] | None, index: int) -> int:
    if pts is None or len(pts) < 2:
        return 1
    index = min(index, len(pts) - 2)
    return pts[index + 1] - pts[index]


def _size(picture: Picture) -> tuple[int, int]:
    if isinstance(picture, av.VideoFrame):
        return picture.height, picture.width
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
        raise ValueError(
            f"a picture is uint8 [height, width, 3], not {picture.dtype} {list(picture.shape)}"
        )
    return picture.shape[0], picture.shape[1]


def _video_frame(picture: Picture, pixel_format: str) -> av.VideoFrame:
    if isinstance(picture, av.VideoFrame):
        return picture.reformat(format=pixel_format)
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
    if pixel_format.startswith(("rgb", "gbr")):
        return frame.reformat(format=pixel_format)
    return frame.reformat(format=pixel_format, dst_colorspace="ITU601", dst_color_range="MPEG")


def _tag_colour(context: Any, first: Picture) -> None:
    if isinstance(first, av.VideoFrame):
        context.color_primaries = first.color_primaries
        context.color_trc = first.color_trc
        context.colorspace = first.colorspace
        context.color_range = first.color_range
    else:
        smpte170m, limited = 6, 1
        context.color_primaries = context.color_trc = context.colorspace = smpte170m
        context.color_range = limited


def _channels(samples: np.ndarray) -> np.ndarray:
    if samples.ndim != 2 or samples.shape[0] not in (1, 2):
        raise ValueError(f"sound is [1 or 2 channels, samples], not {list(samples.shape)}")
    if samples.dtype != np.int16 and not np.issubdtype(samples.dtype, np.floating):
        raise ValueError(f"sound is float in [-1, 1] or int16, not {samples.dtype}")
    return samples


def _converted(samples: np.ndarray, sample_format: str) -> np.ndarray:
    if sample_format.startswith("s16"):
        if samples.dtype == np.int16:
            return samples
        return np.clip(np.rint(samples * 32768.0), -32768, 32767).astype(np.int16)
    if samples.dtype == np.int16:
        return samples.astype(np.float32) / 32768.0
    return np.clip(samples, -1.0, 1.0).astype(np.float32)
