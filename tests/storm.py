"""Broken, truncated, exotic and hostile files, each with the bins that it may end in.

Every file is made of its own media, so that none is a near duplicate of a good one.
"""

from __future__ import annotations

import io
import os
import struct
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tests.media import noise, noise_video, rotten_copy, truncated_copy

from reelmill.datasets.media.encode import write_audio

CORRUPT = frozenset({("failed", "corrupt")})
NOT_MEDIA = frozenset({("rejected", "not_media")})
REFUSED = CORRUPT | NOT_MEDIA


@dataclass(frozen=True)
class Canary:
    """A file and a host that nothing may touch."""

    file: Path
    url: str


Bins = dict[str, frozenset[tuple[str, str]] | None]


def make_storm(folder: Path, scratch: Path, canary: Canary, *, large: bool) -> Bins:
    """Writes the files; returns the allowed (outcome, reason) by name, None for any."""
    folder.mkdir(parents=True)
    scratch.mkdir()
    bins: Bins = {}
    for name, data, allowed in _hostile(canary):
        (folder / name).write_bytes(data)
        bins[name] = allowed
    first = noise_video(scratch / "v.mp4", seconds=2.0, seed=100)
    offsets = (0.05, 0.3, 0.7) if not large else np.linspace(0.02, 0.95, 60)
    for i, share in enumerate(offsets):
        truncated_copy(first, folder / f"cut-{i}.mp4", float(share))
        bins[f"cut-{i}.mp4"] = REFUSED
    for i in range(2 if not large else 60):
        source = noise_video(scratch / f"r{i}.mp4", seconds=1.5, seed=200 + i)
        rotten_copy(source, folder / f"rot-{i}.mp4", flips=40 + 20 * i, seed=i)
        bins[f"rot-{i}.mp4"] = CORRUPT
    for i in range(2 if not large else 50):
        container = ("mkv", "avi", "mov")[i % 3]
        source = noise_video(scratch / f"x{i}.{container}", seconds=1.5, seed=300 + i)
        rotten_copy(source, folder / f"head-{i}.{container}", flips=30, seed=i, spare=0)
        bins[f"head-{i}.{container}"] = REFUSED
    write_audio(scratch / "s.flac", noise(3.0, seed=400), 48_000)
    truncated_copy(scratch / "s.flac", folder / "sound-cut.flac", 0.4)
    bins["sound-cut.flac"] = None
    (folder / "moved.mp4").write_bytes(_elsewhere(first.read_bytes(), canary.file))
    bins["moved.mp4"] = None
    for name in _names():
        (folder / name).write_bytes(b"# a text with a name")
        bins[name] = NOT_MEDIA
    return bins


def _hostile(canary: Canary) -> Iterator[tuple[str, bytes, frozenset[tuple[str, str]] | None]]:
    path, url = str(canary.file), canary.url
    hls = "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{}\n#EXT-X-ENDLIST\n"
    yield "hls-file.mp4", hls.format(f"file://{path}").encode(), NOT_MEDIA
    yield "hls-http.m3u8", hls.format(f"{url}/a.ts").encode(), NOT_MEDIA
    yield "hls-blank.mp4", b"\n\n " + hls.format(path).encode(), NOT_MEDIA
    yield "concat.mp4", f"ffconcat version 1.0\nfile '{path}'\n".encode(), NOT_MEDIA
    yield "concat.txt.mp4", f"file '{path}'\n".encode(), NOT_MEDIA
    dash = f"<?xml version='1.0'?><MPD><BaseURL>{url}/</BaseURL></MPD>"
    yield "dash.mpd", dash.encode(), NOT_MEDIA
    sdp = "v=0\no=- 0 0 IN IP4 127.0.0.1\nc=IN IP4 127.0.0.1\nm=video 9 RTP/AVP 96\n"
    yield "stream.sdp", sdp.encode(), NOT_MEDIA
    svg = f"<svg xmlns='http://www.w3.org/2000/svg'><image href='file://{path}'/></svg>"
    yield "picture.svg", svg.encode(), NOT_MEDIA
    yield "page.mp4", f"<html><img src='{url}/x.png'><script>1</script>".encode(), NOT_MEDIA
    yield "empty.mp4", b"", CORRUPT
    yield "zeros.mp4", bytes(100_000), NOT_MEDIA
    yield "noise.mp4", np.random.default_rng(0).bytes(50_000), REFUSED
    yield "huge.png", _png(100_000, 100_000), REFUSED
    yield "bomb.png", _png(9_000, 9_000, rows=9_000), REFUSED
    yield "bomb.zip.mp4", _zip_bomb(), NOT_MEDIA
    yield "deep.mp4", _deep(5000), REFUSED
    yield (
        "giant-atom.mp4",
        b"\x00\x00\x00\x18ftypmp42" + bytes(12) + b"\xff\xff\xff\xf0moov",
        REFUSED,
    )
    yield "channels.wav", _wav(channels=65_535, rate=48_000), REFUSED
    yield "rate.wav", _wav(channels=1, rate=2_000_000_000), REFUSED
    yield "endless.gif", _gif(), None
    yield "jpeg-head.jpg", b"\xff\xd8\xff\xe0" + bytes(40), REFUSED
    yield "pickle.mp4", b"\x80\x04\x95cos\nsystem\n(S'false'\ntR.", NOT_MEDIA
    yield "yaml.mp4", b"!!python/object/apply:os.system ['false']", NOT_MEDIA


def _names() -> list[str]:
    """Names that break terminals, pages, paths and encodings."""
    names = [
        "<img src=x onerror=alert(1)>.md", "'; drop table clips; --.md", "line\nbreak.md",
        "\x1b[31mred.md", "e\u0301\u202egnp.md", "\U0001f3ac.md", "a" * 240 + ".md", "-rf.md",
        "{0}%s$HOME.md", "con:.md",
    ]  # fmt: skip
    return [*names, os.fsdecode(b"broken-\xff\xfe.md")]


def _png(width: int, height: int, *, rows: int = 1) -> bytes:
    """A grey picture that says it is that large, and holds that many rows."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    pack = zlib.compressobj(9)
    data = b"".join(pack.compress(bytes(1 + width)) for _ in range(rows)) + pack.flush()
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def _zip_bomb() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros", bytes(20_000_000))
    return buffer.getvalue()


def _deep(levels: int) -> bytes:
    """Boxes in boxes."""
    data = b""
    for _ in range(levels):
        data = struct.pack(">I", len(data) + 8) + b"moov" + data
    return b"\x00\x00\x00\x18ftypmp42\x00\x00\x00\x00mp42isom" + data


def _wav(*, channels: int, rate: int) -> bytes:
    head = struct.pack("<HHIIHH", 1, channels, rate, rate & 0xFFFFFFFF, channels * 2 & 0xFFFF, 16)
    body = b"WAVEfmt " + struct.pack("<I", 16) + head + b"data" + struct.pack("<I", 2000)
    return b"RIFF" + struct.pack("<I", len(body) + 2000) + body + bytes(2000)


def _gif() -> bytes:
    """A picture that asks to be shown for ever."""
    from PIL import Image

    frames = [Image.new("P", (64, 64), i) for i in range(3)]
    buffer = io.BytesIO()
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:], loop=0, duration=10)
    return buffer.getvalue()


def _elsewhere(data: bytes, path: Path) -> bytes:
    """An mp4 whose tracks say that their media lie in another file."""
    old = b"\x00\x00\x00\x0curl \x00\x00\x00\x01"
    assert old in data
    return data.replace(old, b"\x00\x00\x00\x0curl \x00\x00\x00\x00")
