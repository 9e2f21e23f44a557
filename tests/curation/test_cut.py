"""The cut: exact frames, exact samples, together to the millisecond for a plain loader."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from tests.media import (
    flash_beep_clip,
    flash_beep_offsets,
    noise,
    read_plain,
    smooth_noise,
    sound_file,
    still,
)

from reelmill.curation.cut import CutSettings, cut, cut_key
from reelmill.curation.frame_shape import crop_box
from reelmill.datasets.media.decode import decode, probe
from reelmill.datasets.media.encode import write_audio, write_image, write_video
from reelmill.datasets.media.image import read_rgb
from reelmill.datasets.sample import Clip, Kind
from reelmill.errors import MediaError

SETTINGS = CutSettings(preset="ultrafast")
CUT_TIMES = (0.0, 0.13, 0.37, 0.71, 1.01, 1.29, 1.77, 2.23)
CUT_SECONDS = 1.3
VARIABLE = [0, *np.cumsum(np.random.default_rng(0).integers(20, 60, 102)).tolist()]
SOURCES = {
    "h264_aac.mp4": {"fps": 25},
    "pcm.mov": {"fps": 25, "audio_codec": "pcm_s16le"},
    "variable.mp4": {"pts": VARIABLE},
    "variable.mkv": {"pts": VARIABLE, "rate": 44_100},
    "late_sound.mp4": {"fps": 25, "audio_start_s": 0.2, "sound_shift_s": -0.2},
    "late_start.mp4": {"fps": 25, "start_s": 1.52, "audio_start_s": 1.32, "sound_shift_s": 0.2},
    "29.97.mp4": {"fps": Fraction(30_000, 1001), "rate": 44_100},
    "60.mp4": {"fps": 60},
}


def whole(path: Path):
    info = probe(path)
    summary = decode(path, info, lambda frame: None)
    assert summary.decode_errors == 0
    return info, summary.frame_pts


def span(info, pts, first: int, last: int, asset: str = "ab" * 32) -> Clip:
    end = int(pts[last]) if last < len(pts) else int(2 * pts[-1] - pts[-2])
    base = info.video.time_base
    return Clip(asset, Kind.VIDEO, int(pts[first]), end, base, int(pts[0]), first, last)


def luma(path: Path, number: int) -> np.ndarray:
    """float [height, width], 0 to 255: the stored luma of one frame, before any conversion."""
    with av.open(str(path)) as container:
        frame = list(container.decode(video=0))[number]
        deep = "10" in frame.format.name
        plane = np.frombuffer(memoryview(frame.planes[0]), np.uint16 if deep else np.uint8)
        rows = plane.reshape(frame.planes[0].height, -1)[: frame.height, : frame.width]
        return rows / (4.0 if deep else 1.0)


@pytest.mark.parametrize("name", SOURCES)
def test_flash_and_beep_stay_together_at_every_cut(tmp_path, name):
    source = tmp_path / name
    flash_beep_clip(source, seconds=4.0, gop=30, **SOURCES[name])
    info, pts = whole(source)
    times = (pts - pts[0]) * float(info.video.time_base)
    for number, start in enumerate(CUT_TIMES):
        first, last = np.searchsorted(times, [start, start + CUT_SECONDS]).tolist()
        clip = span(info, pts, first, last)
        found = cut(source, info, clip, tmp_path / f"{number}.mp4", SETTINGS)
        plain = read_plain(found.path)
        assert np.abs(flash_beep_offsets(found.path)).max() <= 0.001
        assert len(plain.pts) == found.frames == last - first
        assert abs(found.samples - clip.seconds * plain.rate) <= 1  # touching spans touch
        assert found.samples <= plain.samples.shape[1] < found.samples + 1024
        assert abs(found.av_offset_ms) <= 0.012
        np.testing.assert_allclose(plain.seconds, times[first:last] - times[first], atol=2e-3)


def test_frames_are_the_ones_that_were_asked_for(tmp_path):
    source = tmp_path / "in.mp4"
    shades = [np.full((64, 96, 3), 20 + 3 * i, np.uint8) for i in range(70)]
    write_video(source, shades, fps=30, gop=12, preset="medium")  # B-frames between key frames
    info, pts = whole(source)
    original = read_plain(source).rgb.mean(axis=(1, 2, 3))
    for first, last in ((0, 5), (11, 14), (12, 13), (23, 70), (69, 70), (0, 70)):
        found = cut(source, info, span(info, pts, first, last), tmp_path / "out.mp4", SETTINGS)
        shown = read_plain(found.path).rgb.mean(axis=(1, 2, 3))
        np.testing.assert_allclose(shown, original[first:last], atol=1.0)


def test_the_same_clip_gives_the_same_bytes(tmp_path):
    source = tmp_path / "in.mkv"
    flash_beep_clip(source, seconds=2.0, fps=24)
    info, pts = whole(source)
    clip = span(info, pts, 5, 40)
    one, two = (cut(source, info, clip, tmp_path / f"{n}.mp4", SETTINGS) for n in "ab")
    assert one.sha256 == two.sha256 == hashlib.sha256(two.path.read_bytes()).hexdigest()
    assert one.bytes == two.path.stat().st_size


def test_silence_is_put_in_where_the_source_has_none_and_said(tmp_path):
    source = tmp_path / "in.mp4"
    tone = np.ones((1, 24_000), np.float32) * 0.5
    write_video(source, smooth_noise(50), fps=25, audio=tone, audio_codec="flac")
    info, pts = whole(source)
    found = cut(source, info, span(info, pts, 0, 50), tmp_path / "out.mp4", SETTINGS)
    heard = read_plain(found.path).samples[0]
    assert found.samples == 96_000
    assert found.silence_samples == 96_000 - 24_000
    assert np.abs(heard[30_000:]).max() < 1e-3
    assert heard[2_000:22_000].mean() > 0.4


def test_flac_sound_is_kept_bit_for_bit(tmp_path):
    source = tmp_path / "in.mov"
    wave = noise(2.0, seed=3)
    write_video(source, smooth_noise(50), fps=25, audio=wave, audio_codec="pcm_s16le")
    info, pts = whole(source)
    settings = replace(SETTINGS, audio_codec="flac")
    found = cut(source, info, span(info, pts, 10, 40), tmp_path / "out.mp4", settings)
    original = read_plain(source).samples[:, 10 * 1920 : 40 * 1920]
    np.testing.assert_array_equal(read_plain(found.path).samples, original)


@pytest.mark.parametrize(
    ("options", "size", "expected"),
    [
        ({"pixel_format": "yuv444p"}, (75, 101), (74, 100)),
        ({"rotation": -90}, (64, 96), (96, 64)),
        ({"sample_aspect": Fraction(4, 3)}, (96, 96), (96, 128)),
        ({}, (240, 320), (120, 160)),
        ({"codec": "libx265", "pixel_format": "yuv420p10le"}, (96, 128), (96, 128)),
    ],
)
def test_odd_turned_stretched_large_and_ten_bit_pictures(tmp_path, options, size, expected):
    source = tmp_path / "in.mp4"
    write_video(source, smooth_noise(6, size), fps=25, **options)
    info, pts = whole(source)
    settings = replace(SETTINGS, max_height=120, crf=6.0)
    found = cut(source, info, span(info, pts, 1, 5), tmp_path / "out.mp4", settings)
    assert (found.height, found.width) == expected
    assert read_plain(found.path).rgb.shape == (4, *expected, 3)
    shown, original = luma(found.path, 0), luma(source, 1)
    if "rotation" in options:
        original = np.rot90(original, -1)  # -90 counter-clockwise is 90 clockwise
    if size[0] < 120 and "sample_aspect" not in options:  # nothing was scaled
        assert np.abs(shown - original[: expected[0], : expected[1]]).mean() < 2
    assert abs(shown.mean() - original.mean()) < 2


def test_a_clip_with_missing_frames_is_an_error_and_leaves_no_file(tmp_path):
    source = tmp_path / "in.mp4"
    write_video(source, smooth_noise(30), fps=25)
    info, pts = whole(source)
    clip = replace(span(info, pts, 0, 20), end_frame=21)
    with pytest.raises(MediaError, match="21 frames asked, 20 decoded"):
        cut(source, info, clip, tmp_path / "out.mp4", SETTINGS)
    beyond = replace(clip, start_pts=10**8, end_pts=10**8 + 10)
    with pytest.raises(MediaError, match="no frame"):
        cut(source, info, beyond, tmp_path / "out.mp4", SETTINGS)
    assert [p.name for p in tmp_path.iterdir()] == ["in.mp4"]


def test_an_upright_srgb_jpeg_keeps_its_bytes_others_become_jpeg(tmp_path):
    clip = Clip("ab" * 32, Kind.IMAGE, 0, 0, Fraction(1), 0, 0, 1)
    jpg, png = still(tmp_path / "a.jpg"), still(tmp_path / "b.png", size=(101, 77))
    kept = cut(jpg, probe(jpg), clip, tmp_path / "out.jpg", SETTINGS)
    assert kept.path.read_bytes() == jpg.read_bytes()
    assert (kept.frames, kept.width, kept.height) == (1, 320, 256)
    made = cut(png, probe(png), clip, tmp_path / "out2.jpg", SETTINGS)
    assert (made.width, made.height) == (77, 101)
    small = cut(jpg, probe(jpg), clip, tmp_path / "s.jpg", replace(SETTINGS, max_height=64))
    assert (small.width, small.height) == (80, 64)


def test_a_turned_jpeg_is_set_upright(tmp_path):
    from PIL import Image

    picture = np.zeros((40, 80, 3), np.uint8)
    picture[:, :40] = 255
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(picture).save(tmp_path / "a.jpg", exif=exif, quality=95)
    clip = Clip("ab" * 32, Kind.IMAGE, 0, 0, Fraction(1), 0, 0, 1)
    path = tmp_path / "a.jpg"
    found = cut(path, probe(path), clip, tmp_path / "out.jpg", SETTINGS)
    shown = np.asarray(Image.open(found.path))
    assert shown.shape == (80, 40, 3)
    assert shown[:30].mean() > 250  # turned 90 degrees clockwise: left became top
    assert shown[-30:].mean() < 5


def test_sound_becomes_flac_to_the_sample(tmp_path):
    wave = np.vstack([noise(3.0, 44_100, seed=1), noise(3.0, 44_100, seed=2)])
    source = sound_file(tmp_path / "in.wav", wave, 44_100, codec="pcm_s16le")
    base = Fraction(1, 44_100)
    clip = Clip("ab" * 32, Kind.AUDIO, 70_001, 120_003, base, 0, 70_001, 120_003)
    found = cut(source, probe(source), clip, tmp_path / "out.flac", SETTINGS)
    assert (found.samples, found.sample_rate, found.channels) == (50_002, 44_100, 2)
    original = read_plain(source).samples[:, 70_001:120_003]
    np.testing.assert_array_equal(read_plain(found.path).samples, original)
    too_long = replace(clip, end_pts=200_000, end_frame=200_000)
    with pytest.raises(MediaError, match="samples asked"):
        cut(source, probe(source), too_long, tmp_path / "no.flac", SETTINGS)


def test_the_key_follows_the_span_the_bytes_and_the_settings():
    clip = Clip("ab" * 32, Kind.VIDEO, 0, 100, Fraction(1, 25), 0, 0, 100)
    keys = {
        cut_key(clip, SETTINGS),
        cut_key(replace(clip, end_pts=99), SETTINGS),
        cut_key(replace(clip, asset="cd" * 32), SETTINGS),
        cut_key(clip, replace(SETTINGS, crf=19.0)),
    }
    assert len(keys) == 4
    assert cut_key(clip, CutSettings(preset="ultrafast")) in keys


def test_the_suffix_must_be_that_of_the_kind(tmp_path):
    path = tmp_path / "a.wav"
    write_audio(path, noise(0.1), 48_000, codec="pcm_s16le")
    write_image(tmp_path / "b.png", np.zeros((8, 8, 3), np.uint8))
    clip = Clip("ab" * 32, Kind.AUDIO, 0, 10, Fraction(1, 48_000), 0, 0, 10)
    with pytest.raises(ValueError, match="flac"):
        cut(path, probe(path), clip, tmp_path / "out.wav", SETTINGS)


BOXES = [
    ((64, 96), (0, 8, 96, 48), {}, (96, 48)),
    ((64, 96), (7, 0, 81, 64), {}, (80, 64)),
    ((65, 97), (0, 9, 97, 47), {"pixel_format": "yuv444p"}, (96, 46)),
    ((64, 96), (8, 0, 48, 96), {"rotation": -90}, (48, 96)),
    ((240, 320), (0, 30, 320, 180), {}, (214, 120)),
]


@pytest.mark.parametrize(("size", "box", "options", "expected"), BOXES)
def test_a_box_is_what_is_left_of_the_picture(tmp_path, size, box, options, expected):
    """Only what lies in the box is shown, nothing of the black around it."""
    source = tmp_path / "in.mp4"
    x, y, w, h = box
    turned = "rotation" in options
    upright = size[::-1] if turned else size
    frames = np.zeros((6, *upright, 3), np.uint8)
    frames[:, y : y + h, x : x + w] = 200
    frames[:, y + h // 3 : y + 2 * h // 3, x : x + w] = 90
    stored = np.rot90(frames, 1, axes=(1, 2)) if turned else frames  # 90 clockwise sets it upright
    write_video(source, np.ascontiguousarray(stored), fps=25, crf=4.0, **options)
    info, pts = whole(source)
    settings = replace(SETTINGS, max_height=120, crf=4.0)
    found = cut(source, info, span(info, pts, 1, 5), tmp_path / "out.mp4", settings, box)
    assert (found.width, found.height) == expected
    assert found.box == box
    shown = read_plain(found.path).gray.mean(axis=0)
    assert shown.shape == expected[::-1]
    assert shown[2:-2, 2:-2].min() > 80
    rows = shown.mean(axis=1)
    assert rows[: expected[1] // 3 - 2].min() > 180
    assert rows[expected[1] // 3 + 2 : 2 * expected[1] // 3 - 2].max() < 110
    assert cut_key(span(info, pts, 1, 5), settings, box) != cut_key(
        span(info, pts, 1, 5), settings, None
    )


def test_an_image_is_cropped_to_its_box(tmp_path):
    picture = np.zeros((100, 200, 3), np.uint8)
    picture[:, 31:150] = 180
    write_image(tmp_path / "a.jpg", picture)
    info = probe(tmp_path / "a.jpg")
    clip = Clip("ab" * 32, Kind.IMAGE, 0, 0, Fraction(1), 0, 0, 1)
    found = cut(tmp_path / "a.jpg", info, clip, tmp_path / "out.jpg", SETTINGS, (32, 0, 117, 100))
    assert (found.width, found.height, found.box) == (117, 100, (32, 0, 117, 100))
    assert read_rgb(found.path).min() > 150


@pytest.mark.parametrize(
    ("box", "size", "cropped"),
    [
        ((0, 0, 640, 360), (640, 360), None),
        ((0, 40, 640, 280), (640, 360), (0, 42, 640, 276)),
        ((80, 0, 480, 360), (640, 360), (82, 0, 476, 360)),
        ((0, 90, 640, 180), (640, 360), None),  # half of it is left
        ((100, 0, 1000, 1080), (1920, 1080), None),
        ((0, 100, 1920, 880), (1920, 1080), (0, 104, 1920, 872)),
    ],
)
def test_bars_are_cropped_where_sixty_percent_are_left(box, size, cropped):
    assert crop_box(box, *size) == cropped
