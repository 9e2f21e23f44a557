"""Opening media files that nobody vouches for: local files only, known formats only, bounded."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, overload

import av
import av.error
import av.logging
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from reelmill.errors import MediaError

MAX_PIXELS = 8192 * 8192
MAX_FRAMES = 4_000_000
MAX_CHANNELS = 64
MAX_RATE = 768_000
MAX_STREAMS = 64
PROBE_PACKETS = 500

# Demuxers that hold their media themselves. Playlists (hls, dash, concat), image sequences,
# devices and text formats are left out, so that no file can name another file or host.
DEMUXERS = (
    "3gp,aac,ac3,aiff,amr,amrnb,amrwb,ape,asf,au,avi,caf,eac3,f4v,flac,flv,h264,hevc,ivf,m4a,"
    "m4v,matroska,mj2,mov,mp3,mp4,mpeg,mpegts,mpegvideo,mxf,nut,obu,ogg,rm,tta,w64,wav,webm,"
    "wv,3g2,matroska,webm,mov,mp4,m4a,3gp,3g2,mj2"
)
OPTIONS = {
    "protocol_whitelist": "file",
    "format_whitelist": DEMUXERS,
    "max_streams": str(MAX_STREAMS),
    "max_pixels": str(MAX_PIXELS),
    "probesize": str(8 << 20),
    "analyzeduration": str(10_000_000),
}

# FFmpeg looks through the first 2,500 packets of a WAV for DTS; one of 64 kB tells.
WAV_OPTIONS = {"max_size": str(1 << 16), "max_probe_packets": "1"}

# First bytes, and where they stand, of the formats above: tells damaged media from no media.
_SIGNATURES = (
    (4, b"ftyp moov mdat free wide skip pnot uuid moof styp".split()),
    (0, [b"\x1aE\xdf\xa3", b"RIFF", b"RF64", b"riff", b"FORM", b"fLaC", b"OggS", b"FLV\x01"]),
    (0, [b"ID3", b"\xff\xfb", b"\xff\xf3", b"\xff\xf2", b"\xff\xf1", b"\xff\xf9", b"\x0b\x77"]),
    (0, [b"#!AMR", b"caff", b".snd", b"MAC ", b"wvpk", b"TTA1", b".RMF", b"DKIF", b"nut/"]),
    (0, [b"\x30\x26\xb2\x75", b"\x00\x00\x01\xba", b"\x00\x00\x01\xb3", b"\x06\x0e\x2b\x34"]),
    (0, [b"\x00\x00\x01\x67", b"\x00\x00\x00\x01", b"\x47\x40"]),
    (0, [b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"BM"]),
)
_STILL_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1", b"msf1"}

av.logging.set_level(None)  # our errors say it; FFmpeg's own lines on stderr only confuse


class NotMedia(MediaError):  # noqa: N818 - a kind of file, not a fault
    """The file never was media that is read: a text, a playlist, another format."""

    not_media = True


def describe(path: Path | str) -> str:
    return os.fsencode(path).decode("utf-8", errors="backslashreplace")


def sniff(path: Path) -> None:
    """Refuses what is no media by its first bytes: empty files, text, playlists, HEIF stills.

    Raises NotMedia for what never was media, MediaError for what is damaged.
    """
    try:
        with path.open("rb") as file:
            head = file.read(4096)
    except OSError as error:
        raise MediaError(
            f"{describe(path)} cannot be read: {error.strerror or error!r}.", cause="transient"
        ) from error
    if not head:
        raise MediaError(f"{describe(path)} is empty: 0 bytes.")
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    if text.startswith((b"#EXTM3U", b"ffconcat", b"<MPD", b"[playlist]")) or b"<MPD" in text[:512]:
        raise NotMedia(
            f"{describe(path)} is a playlist, which names other files: not media itself."
        )
    if head[4:8] == b"ftyp" and head[8:12] in _STILL_BRANDS:
        raise NotMedia(
            f"{describe(path)} is a HEIF still picture, which is not read. Convert it to JPEG, "
            "PNG, WebP or AVIF."
        )


def looks_like_media(path: Path) -> bool:
    with path.open("rb") as file:
        head = file.read(64)
    return any(head[at : at + len(mark)] == mark for at, marks in _SIGNATURES for mark in marks)


def _is_wav(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            head = file.read(12)
    except OSError:
        return False  # what is wrong, FFmpeg's own opening says
    return head[:4] in (b"RIFF", b"RF64") and head[8:] == b"WAVE"


@contextmanager
def open_container(path: Path) -> Iterator[InputContainer]:
    """An FFmpeg container over a local file. Raises MediaError when it cannot be opened."""
    options = OPTIONS | (WAV_OPTIONS if _is_wav(path) else {})
    try:
        container = av.open("file:" + os.fspath(path), options=options, metadata_errors="replace")
    except (av.error.FFmpegError, ValueError, OverflowError, MemoryError) as error:
        if isinstance(error, OSError) and not path.exists():
            raise MediaError(f"{describe(path)} is gone.", cause="transient") from error
        if looks_like_media(path):
            raise MediaError(
                f"{describe(path)} cannot be opened: its header is damaged, encrypted or cut off "
                f"({reason(error)})."
            ) from error
        raise NotMedia(
            f"{describe(path)} is no media that Reelmill reads: no known image, video or audio "
            "format begins like this."
        ) from error
    try:
        yield container
    finally:
        container.close()


def reason(error: BaseException) -> str:
    """FFmpeg's words for an error, without the path."""
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def pick_streams(
    container: InputContainer, path: Path
) -> tuple[VideoStream | None, AudioStream | None]:
    """The picture and the sound that are read: FFmpeg's best of each; cover art is no picture.

    Raises MediaError when a stream of a kind is there but no decoder can read any of that kind.
    """
    cover = int(av.stream.Disposition.attached_pic)
    videos = [s for s in container.streams.video if not int(s.disposition) & cover]
    audios = list(container.streams.audio)
    readable_videos = [s for s in videos if s.codec_context is not None]
    readable_audios = [s for s in audios if s.codec_context is not None]
    for kind, found, readable in (
        ("video", videos, readable_videos),
        ("audio", audios, readable_audios),
    ):
        if found and not readable:
            raise MediaError(
                f"{describe(path)}: the codec of its {kind} stream is unknown or not described."
            )
    return _best(container, "video", readable_videos), _best(container, "audio", readable_audios)


def _best(container: InputContainer, kind: Literal["video", "audio"], among: list):
    if not among:
        return None
    best = container.streams.best(kind)
    return best if any(s.index == getattr(best, "index", -1) for s in among) else among[0]


def first_frames(
    container: InputContainer,
    video: VideoStream | None,
    audio: AudioStream | None,
    path: Path,
) -> tuple[VideoFrame | None, AudioFrame | None]:
    """The first frame of each stream. A sound stream without one packet counts as no sound.

    Raises MediaError when a stream has packets of which none can be decoded.
    """
    wanted = {s.index: s for s in (video, audio) if s is not None}
    found: dict[int, VideoFrame | AudioFrame] = {}
    tried = dict.fromkeys(wanted, 0)
    failure = ""
    packets = container.demux(*wanted.values())
    while len(found) < len(wanted):
        try:
            packet = next(packets)
        except StopIteration:
            break
        except av.error.FFmpegError as error:
            failure = reason(error)
            break
        index = packet.stream.index
        if index in found or tried[index] > PROBE_PACKETS:
            continue
        tried[index] += bool(packet.size)
        try:
            frames = packet.decode()
        except av.error.FFmpegError as error:
            failure = reason(error)
            continue
        if frames:
            found[index] = frames[0]  # type: ignore[assignment]
    for stream in wanted.values():
        if stream.index not in found and (stream is video or tried[stream.index] or video is None):
            what = "picture" if stream is video else "sound"
            detail = failure or f"{tried[stream.index]} packets read"
            raise MediaError(f"{describe(path)}: no {what} could be decoded ({detail}).")
    first = found.get(video.index) if video else None
    sound = found.get(audio.index) if audio else None
    return first, sound  # type: ignore[return-value]


@overload
def decoded(container: InputContainer, stream: VideoStream) -> Iterator[VideoFrame]: ...
@overload
def decoded(container: InputContainer, stream: AudioStream) -> Iterator[AudioFrame]: ...
def decoded(
    container: InputContainer, stream: VideoStream | AudioStream
) -> Iterator[VideoFrame] | Iterator[AudioFrame]:
    """Frames of one stream from here on; what cannot be decoded is passed over."""
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets)
        except (StopIteration, av.error.FFmpegError):
            return
        try:
            frames = packet.decode()
        except av.error.FFmpegError:
            continue
        yield from frames  # type: ignore[misc]
