"""Reading media: kinds by content, frames and sound on their clocks, damage, hostile files."""

from __future__ import annotations

import io
import warnings
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tests.media import (
    noise,
    noise_video,
    read_plain,
    rotten_copy,
    smooth_noise,
    sound_file,
    still,
    tone,
    truncated_copy,
)

from reelmill.datasets.media.decode import (
    NotMedia,
    decode,
    decode_frames,
    probe,
)
from reelmill.datasets.media.encode import write_video
from reelmill.datasets.sample import Kind
from reelmill.errors import MediaError


def everything(path: Path):
    """(info, frames, sound [channels, n], mono16k, summary)."""
    info = probe(path)
    frames, blocks = [], []
    summary = decode(path, info, frames.append, blocks.append)
    sound = np.concatenate([b.samples for b in blocks], axis=1) if blocks else None
    mono = np.concatenate([b.mono16k for b in blocks]) if blocks else None
    assert all(b.start == sum(x.samples.shape[1] for x in blocks[:i]) for i, b in enumerate(blocks))
    return info, frames, sound, mono, summary


# What a file is


def test_a_kind_is_told_by_content_and_not_by_name(tmp_path):
    video = noise_video(tmp_path / "picture.jpg", container="mp4")
    image = still(tmp_path / "clip.mp4", suffix=".jpg")
    sound = sound_file(tmp_path / "sound.png", tone(0.5), container="flac")
    assert [probe(p).kind for p in (video, image, sound)] == [Kind.VIDEO, Kind.IMAGE, Kind.AUDIO]


def test_a_video_is_described(tmp_path):
    info = probe(noise_video(tmp_path / "a.mp4", fps=16, seconds=2.0))
    assert (info.container, info.seconds) == ("mov", pytest.approx(2.0, abs=0.07))
    assert (info.video.width, info.video.height, info.video.rotation) == (128, 96, 0)
    assert (info.video.frames_expected, info.video.codec) == (32, "h264")
    assert info.video.average_rate == 16
    assert (info.audio.rate, info.audio.channels, info.audio.codec) == (16_000, 1, "aac")


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "avif", "bmp", "gif"])
def test_images_of_every_format_are_videos_of_one_frame(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    picture = np.zeros((60, 100, 3), np.uint8)
    picture[:, 50:] = (250, 10, 10)
    Image.fromarray(picture).save(path)
    info, frames, sound, _, summary = everything(path)
    assert (info.kind, info.video.width, info.video.height) == (Kind.IMAGE, 100, 60)
    assert info.audio is None
    assert sound is None
    assert (len(frames), summary.frame_pts.tolist(), summary.error) == (1, [0], "")
    assert frames[0].bgr[30, 80].tolist() == pytest.approx([10, 10, 250], abs=12)
    assert frames[0].gray.shape == frames[0].bgr.shape[:2] == (60, 100)


def test_alpha_lies_over_white_and_sixteen_bits_become_eight(tmp_path):
    Image.new("RGBA", (8, 8), (0, 0, 0, 0)).save(tmp_path / "a.png")
    Image.fromarray(np.full((8, 8), 32_768, np.uint16)).save(tmp_path / "b.png")
    for name, value in (("a", 255), ("b", 128)):
        frame = next(decode_frames(tmp_path / f"{name}.png", probe(tmp_path / f"{name}.png")))
        assert frame.bgr.min() == frame.bgr.max() == value


@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_stand_upright(tmp_path, orientation):
    upright = np.zeros((32, 64, 3), np.uint8)
    upright[:16, :32] = 255  # the top left corner is white
    undo = {5: 5, 6: 8, 7: 7, 8: 6}.get(orientation, orientation)
    stored = Image.fromarray(upright)
    exif = Image.Exif()
    exif[0x0112] = undo
    from PIL import ImageOps

    buffer = io.BytesIO()
    stored.save(buffer, "png", exif=exif)
    stored = ImageOps.exif_transpose(Image.open(buffer))
    exif[0x0112] = orientation
    stored.save(tmp_path / "a.jpg", exif=exif, quality=95)
    info = probe(tmp_path / "a.jpg")
    frame = next(decode_frames(tmp_path / "a.jpg", info))
    assert (info.video.width, info.video.height) == (64, 32)
    assert frame.gray[4:12, 4:28].min() > 200
    assert frame.gray[20:, :].max() < 60


def test_cover_art_is_no_picture(tmp_path):
    path = tmp_path / "song.mp3"
    cover = io.BytesIO()
    Image.new("RGB", (64, 64), "red").save(cover, "JPEG")
    picture = b"\0image/jpeg\0\x03\0" + cover.getvalue()
    body = b"APIC" + len(picture).to_bytes(4, "big") + b"\0\0" + picture
    size = bytes((len(body) >> shift) & 0x7F for shift in (21, 14, 7, 0))
    sound_file(path, tone(0.5), codec="libmp3lame")
    path.write_bytes(b"ID3\x03\0\0" + size + body + path.read_bytes())
    with av.open(str(path)) as container:
        assert container.streams.video  # FFmpeg does see one
    info = probe(path)
    assert (info.kind, info.video) == (Kind.AUDIO, None)


@pytest.mark.parametrize("turn", [0, 90, -90, 180])
def test_turned_videos_stand_upright(tmp_path, turn):
    upright = np.zeros((64, 96, 3), np.uint8)
    upright[:32, :48] = 255
    stored = np.ascontiguousarray(np.rot90(upright, -turn // 90))
    write_video(tmp_path / "a.mp4", [stored] * 3, fps=10, rotation=turn)
    info, frames, *_ = everything(tmp_path / "a.mp4")
    assert (info.video.width, info.video.height) == (96, 64)
    for frame in frames:
        assert frame.gray.shape == (64, 96)
        assert frame.gray[4:28, 4:44].min() > 230
        assert frame.gray[36:].max() < 25


def test_sample_aspect_widens_the_picture(tmp_path):
    write_video(tmp_path / "a.mp4", smooth_noise(3), fps=10, sample_aspect=Fraction(3, 2))
    info, frames, *_ = everything(tmp_path / "a.mp4")
    assert (info.video.width, info.video.coded_width) == (192, 128)
    assert frames[0].bgr.shape == (96, 192, 3)


# Refusals


@pytest.mark.parametrize(
    "text",
    [
        b"just some words\n" * 20,
        b'{"a": 1}',
        b"#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n",
        b"ffconcat version 1.0\nfile 'other.mp4'\n",
        b'<?xml version="1.0"?><MPD type="static"></MPD>',
        b"1\n00:00:01,000 --> 00:00:02,000\nhello\n",
        b"%PDF-1.4 nothing",
        b"\x7fELF\x02\x01\x01" + bytes(200),
        b"PK\x03\x04" + bytes(100),
        b"\0" * 5000,
    ],
)
@pytest.mark.parametrize("name", ["a.mp4", "a.m3u8", "a.jpg"])
def test_what_was_never_media_is_told_apart(tmp_path, text, name):
    path = tmp_path / name
    path.write_bytes(text)
    with pytest.raises(NotMedia):
        probe(path)


def test_damaged_and_empty_media_are_corrupt_and_not_something_else(tmp_path):
    video = noise_video(tmp_path / "a.mp4")
    data = video.read_bytes()
    image = still(tmp_path / "a.jpg").read_bytes()
    for name, content in (
        ("empty.mp4", b""),
        ("head.mp4", data[:200]),
        ("cut.jpg", image[:30]),
        ("magic.png", b"\x89PNG\r\n\x1a\n" + b"junk" * 20),
    ):
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(MediaError) as caught:
            probe(path)
        assert not isinstance(caught.value, NotMedia)
        assert caught.value.cause == "corrupt"
        assert name in str(caught.value)


def test_a_truncated_image_is_refused_when_it_is_decoded(tmp_path):
    path = tmp_path / "a.png"
    still(path)
    path.write_bytes(path.read_bytes()[:-2000])
    info = probe(path)
    with pytest.raises(MediaError, match="damaged PNG"):
        decode(path, info, lambda frame: None)


def test_decompression_bombs_are_refused(tmp_path):
    import struct
    import zlib

    def chunk(name: bytes, data: bytes) -> bytes:
        crc = struct.pack(">I", zlib.crc32(name + data))
        return struct.pack(">I", len(data)) + name + data + crc

    for side in (12_000, 60_000):
        header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
        body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
        (tmp_path / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + body)
        with pytest.raises(MediaError, match=r"large|pixels"):
            probe(tmp_path / "bomb.png")


def test_a_missing_file_is_no_fault_of_its_bytes(tmp_path):
    with pytest.raises(MediaError) as caught:
        probe(tmp_path / "gone.mp4")
    assert caught.value.cause == "transient"


# Frames


def test_frames_are_small_upright_full_range_and_like_a_plain_resize(tmp_path):
    ramp = np.tile(np.linspace(0, 255, 640).astype(np.uint8), (360, 1))
    picture = np.stack([ramp, ramp[::-1], 255 - ramp], axis=2)
    path = tmp_path / "a.mp4"
    write_video(path, [picture] * 5, fps=25, crf=6)
    _, frames, *_ = everything(path)
    want = cv2.resize(read_plain(path).rgb[0][..., ::-1], (256, 144))
    assert frames[0].bgr.shape == (144, 256, 3)
    assert np.abs(frames[0].bgr.astype(int) - want).mean() < 2
    gray = cv2.cvtColor(want, cv2.COLOR_BGR2GRAY)
    assert np.abs(frames[0].gray.astype(int) - gray).mean() < 2


@pytest.mark.parametrize(
    ("size", "expected"),
    [((360, 640), (144, 256)), ((640, 360), (256, 144)), ((2, 2), (2, 2)), ((96, 128), (96, 128))],
)
def test_analysis_size_keeps_the_aspect_and_is_even(tmp_path, size, expected):
    write_video(tmp_path / "a.mp4", [np.zeros((*size, 3), np.uint8)] * 2, fps=5)
    _, frames, *_ = everything(tmp_path / "a.mp4")
    assert frames[0].gray.shape == expected


def test_variable_rate_delayed_start_and_last_frame_are_on_the_pts_grid(tmp_path):
    pts = [0, 40, 100, 110, 300, 333]
    write_video(tmp_path / "a.mkv", smooth_noise(6), pts=pts, start_s=2.0)
    info, frames, _, _, summary = everything(tmp_path / "a.mkv")
    assert info.video.start_s == pytest.approx(2.0, abs=1e-6)
    assert [round(f.seconds * 1000) for f in frames] == pts
    assert [f.index for f in frames] == list(range(6))
    assert summary.frame_pts.tolist() == [f.pts for f in frames] == [2000 + p for p in pts]
    assert (summary.decode_errors, summary.packets) == (0, 6)


def test_avi_frames_come_in_the_order_of_display(tmp_path):
    shades = [np.full((64, 64, 3), 10 + 8 * i, np.uint8) for i in range(25)]
    write_video(tmp_path / "a.avi", shades, fps=25, codec="mpeg4", codec_options={"bf": "2"})
    _, frames, _, _, summary = everything(tmp_path / "a.avi")
    values = [float(f.gray.mean()) for f in frames]
    assert values == sorted(values)
    assert len(frames) == 25
    assert np.all(np.diff(summary.frame_pts) > 0)


def test_more_threads_give_the_same_frames(tmp_path):
    path = noise_video(tmp_path / "a.mp4", seconds=3.0)
    info = probe(path)
    one, four = ([f.bgr.copy() for f in decode_frames(path, info, threads=n)] for n in (1, 4))
    np.testing.assert_array_equal(one, four)


def test_a_callback_that_is_none_costs_nothing_and_an_error_in_one_passes_through(tmp_path):
    path = noise_video(tmp_path / "a.mp4")
    summary = decode(path, probe(path), on_audio=lambda block: None)
    assert len(summary.frame_pts) == 0
    assert summary.samples > 0

    def broken(frame):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        decode(path, probe(path), broken)


def test_a_truncated_video_gives_what_is_there_and_is_seen_to_be_short(tmp_path):
    whole = noise_video(tmp_path / "a.mp4", seconds=4.0)
    path = truncated_copy(whole, tmp_path / "cut.mp4", 0.5)
    info, frames, _, _, summary = everything(path)
    assert 0 < len(frames) < info.video.frames_expected
    assert len(frames) == len(summary.frame_pts)


def test_damage_in_the_middle_is_counted_and_passed_over(tmp_path):
    whole = noise_video(tmp_path / "a.mp4", seconds=4.0, gop=8, sound=False)
    path = rotten_copy(whole, tmp_path / "b.mp4", flips=60)
    _, frames, _, _, summary = everything(path)
    assert summary.decode_errors > 0
    assert 20 < len(frames) <= 64


@settings(max_examples=40)
@given(seed=st.integers(0, 10**6), flips=st.integers(1, 300))
def test_rotten_files_give_a_summary_or_a_media_error(tmp_path_factory, seed, flips):
    folder = tmp_path_factory.mktemp("rot")
    whole = noise_video(folder / "a.mp4", seconds=0.5, size=(32, 48))
    data = bytearray(whole.read_bytes())
    rng = np.random.default_rng(seed)
    for at in rng.integers(0, len(data), flips):
        data[at] = rng.integers(256)
    whole.write_bytes(bytes(data))
    try:
        _, frames, _, _, summary = everything(whole)
    except MediaError:
        return
    assert np.all(np.diff(summary.frame_pts) > 0)
    assert len(frames) == len(summary.frame_pts)


# Sound


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.wav", {"codec": "pcm_s16le"}),
        ("a.flac", {}),
        ("a.mka", {"codec": "pcm_f32le"}),
    ],
)
@pytest.mark.parametrize("rate", [8_000, 44_100, 48_000])
def test_lossless_sound_comes_back_to_the_sample(tmp_path, name, options, rate):
    wave = np.round(np.vstack([noise(1.3, rate, seed=s) for s in (1, 2)]) * 2**15) / 2**15
    path = sound_file(tmp_path / name, wave.astype(np.float32), rate, **options)
    info, _, sound, mono, summary = everything(path)
    assert (info.audio.rate, info.audio.channels) == (rate, 2)
    np.testing.assert_allclose(sound, wave, atol=1e-6)
    assert (summary.samples, summary.gap_samples) == (wave.shape[1], 0)
    assert abs(len(mono) - wave.shape[1] * 16_000 / rate) <= 1


def test_mono16k_is_the_mean_of_the_channels_in_place(tmp_path):
    low, high = tone(2.0, 48_000, 300.0), tone(2.0, 48_000, 12_000.0)
    path = sound_file(tmp_path / "a.flac", np.vstack([low, high]))
    *_, mono, _ = everything(path)
    t = np.arange(len(mono)) / 16_000
    want = 0.15 * np.sin(2 * np.pi * 300 * t)
    assert np.abs(mono - want)[200:-200].max() < 2e-3  # 12 kHz is gone, 300 Hz has not moved


def test_a_gap_in_the_timestamps_becomes_counted_silence(tmp_path):
    path = tmp_path / "a.mkv"
    rate, block = 48_000, 1200
    with av.open(str(path), "w", format="matroska") as container:
        stream = container.add_stream("pcm_s16le", rate=rate, layout="mono")
        for i in range(40):
            frame = av.AudioFrame.from_ndarray(np.full((1, block), 8192, np.int16), "s16", "mono")
            frame.sample_rate, frame.time_base = rate, Fraction(1, rate)
            frame.pts = i * block + (24_000 if i >= 20 else 0)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    _, _, sound, _, summary = everything(path)
    assert abs(summary.gap_samples - 24_000) <= 48
    assert abs(summary.samples - 40 * block - 24_000) <= 48
    assert sound[0, 20 * block - 100] == 0.25
    assert np.abs(sound[0, 20 * block + 100 : 20 * block + 23_900]).max() == 0
    assert sound[0, 20 * block + 24_100] == 0.25


def test_values_beyond_reason_are_tamed_and_counted(tmp_path):
    wave = tone(0.5)
    path = sound_file(tmp_path / "a.wav", wave, codec="pcm_f32le")
    data = bytearray(path.read_bytes())
    data[-4000:-3996] = np.float32(np.nan).tobytes()
    data[-2000:-1996] = np.float32(np.inf).tobytes()
    path.write_bytes(bytes(data))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _, _, sound, mono, summary = everything(path)
    assert np.isfinite(sound).all()
    assert np.isfinite(mono).all()
    assert summary.decode_errors > 0


def test_sound_that_starts_late_says_so(tmp_path):
    write_video(
        tmp_path / "a.mkv",
        smooth_noise(50),
        fps=25,
        audio=tone(1.0),
        audio_codec="flac",
        audio_start_s=0.7,
    )
    info = probe(tmp_path / "a.mkv")
    assert info.audio.start_s == pytest.approx(0.7, abs=1e-3)
    assert info.video.start_s == 0


@pytest.mark.media
def test_every_real_clip_is_read_or_refused_by_name(media):
    refused = set()
    for path in sorted(media.glob("*/*")):
        try:
            info = probe(path)
            if path.stat().st_size > 300_000:
                continue
            summary = decode(path, info, (lambda f: None) if info.video else None)
        except MediaError:
            refused.add(f"{path.parent.name}/{path.name}")
            continue
        if path.parent.name != "broken" and info.kind == Kind.VIDEO:
            assert len(summary.frame_pts) > 0
            assert summary.decode_errors == 0
    assert {r for r in refused if not r.startswith("broken/")} == {"general/fmt_encrypted_cenc.mp4"}
    assert len(refused) >= 18
