"""A file with several sounds and a stream of data: one picture and one sound of it are read."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from tests.media import tone

from reelmill.curation.cut import CutSettings, cut
from reelmill.datasets.media.decode import decode_audio, decode_frames, probe
from reelmill.datasets.sample import Clip, Kind

RATE = 48_000
HZ = {1: 440.0, 2: 880.0}  # by channels


def write_many(path: Path) -> None:
    """MPEG-TS: data, a picture of 2 s, mono sound at 440 Hz, stereo sound at 880 Hz."""
    with av.open(str(path), "w", format="mpegts") as container:
        data = container.add_data_stream("klv")
        data.time_base = Fraction(1, 90_000)
        video = container.add_stream("libx264", rate=25)
        video.width, video.height, video.pix_fmt = 64, 64, "yuv420p"
        sounds = [
            container.add_stream("aac", rate=RATE, layout=layout) for layout in ("mono", "stereo")
        ]
        for index in range(50):
            picture = np.full((64, 64, 3), 4 * index, np.uint8)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, 25)
            container.mux(video.encode(frame))
            if index % 10 == 0:
                packet = av.Packet(bytes(range(64)))
                packet.stream, packet.time_base = data, data.time_base
                packet.pts = packet.dts = index * 3600
                container.mux(packet)
        container.mux(video.encode(None))
        for channels, stream in enumerate(sounds, 1):
            row = tone(2.0, RATE, hz=HZ[channels]).reshape(1, -1).astype(np.float32)
            frame = av.AudioFrame.from_ndarray(
                row.repeat(channels, 0), format="fltp", layout=("mono", "stereo")[channels - 1]
            )
            frame.rate, frame.pts = RATE, 0
            container.mux(stream.encode(frame))
            container.mux(stream.encode(None))


def pitch(samples: np.ndarray) -> float:
    spectrum = np.abs(np.fft.rfft(samples))
    return float(np.argmax(spectrum) * RATE / len(samples))


def test_one_sound_is_read_everywhere_and_data_is_passed_over(tmp_path: Path):
    source = tmp_path / "many.ts"
    write_many(source)
    info = probe(source)
    assert info.kind == Kind.VIDEO
    assert info.video is not None
    assert info.audio is not None
    channels = info.audio.channels
    frames = list(decode_frames(source, info))
    assert [round(float(f.gray.mean()) / 4) for f in frames[::7]] == list(range(0, 50, 7))
    heard = np.concatenate([block.samples for block in decode_audio(source, info)], axis=1)
    assert len(heard) == channels
    assert abs(pitch(heard[0]) - HZ[channels]) < 2
    clip = Clip(
        "b" * 64, Kind.VIDEO, frames[0].pts, frames[-1].pts + 3600, info.video.time_base,
        frames[0].pts, 0, 50,
    )  # fmt: skip
    made = cut(source, info, clip, tmp_path / "out.mp4", CutSettings())
    assert (made.frames, made.channels) == (50, channels)
    with av.open(str(made.path)) as container:
        assert [s.type for s in container.streams] == ["video", "audio"]
        kept = np.concatenate([f.to_ndarray() for f in container.decode(audio=0)], axis=1)
    assert abs(pitch(kept[0, RATE // 2 :]) - HZ[channels]) < 2
