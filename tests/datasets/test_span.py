"""Random access: a span holds exactly what a decode of the whole file holds there."""

from __future__ import annotations

import numpy as np
import pytest
from tests.media import read_plain, smooth_noise, tone

from reelmill.datasets.media.decode import (
    clip_audio,
    clip_frames,
    clip_samples,
    decode,
    decode_audio,
    probe,
)
from reelmill.datasets.media.encode import write_video
from reelmill.datasets.media.picture import frames_between
from reelmill.datasets.sample import Clip, Kind


def video_clip(info, pts, first: int, last: int) -> Clip:
    base = info.video.time_base
    end = int(pts[last]) if last < len(pts) else int(2 * pts[-1] - pts[-2])
    return Clip("ab" * 32, Kind.VIDEO, int(pts[first]), end, base, int(pts[0]), first, last)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.mp4", {"preset": "medium", "gop": 12}),
        ("a.mp4", {"preset": "medium", "codec_options": {"x264-params": "open-gop=1:keyint=12"}}),
        ("a.mkv", {"gop": 30, "start_s": 3.0}),
        ("a.avi", {"codec": "mpeg4", "codec_options": {"bf": "2"}, "gop": 15}),
        ("a.mkv", {"codec": "libx265", "gop": 20}),
    ],
)
def test_spans_hold_the_frames_of_a_whole_decode(tmp_path, name, options):
    path = tmp_path / name
    write_video(path, smooth_noise(120), fps=25, **options)
    info = probe(path)
    summary = decode(path, info, lambda frame: None)
    plain = read_plain(path).rgb
    pts = summary.frame_pts
    assert len(pts) == 120
    for first, last in ((0, 3), (1, 2), (13, 40), (59, 61), (97, 120), (119, 120)):
        clip = video_clip(info, pts, first, last)
        found = list(frames_between(path, clip.start_pts, clip.end_pts))
        assert [p for p, _ in found] == pts[first:last].tolist()
        shown = np.stack([f.to_ndarray(format="rgb24") for _, f in found])
        np.testing.assert_array_equal(shown, plain[first:last])


def test_clip_frames_show_what_is_on_screen_at_each_tick(tmp_path):
    shades = [np.full((48, 64, 3), 10 + 4 * i, np.uint8) for i in range(50)]
    write_video(tmp_path / "a.mp4", shades, fps=25, crf=4)
    info = probe(tmp_path / "a.mp4")
    summary = decode(tmp_path / "a.mp4", info, lambda frame: None)
    clip = video_clip(info, summary.frame_pts, 5, 35)
    found = clip_frames(tmp_path / "a.mp4", info, clip, 10.0, 24)
    assert found.shape == (12, 24, 32, 3)
    want = [10 + 4 * (5 + int(k * 2.5)) for k in range(12)]
    np.testing.assert_allclose(found.mean(axis=(1, 2, 3)), want, atol=2)
    doubled = clip_frames(tmp_path / "a.mp4", info, clip, 50.0, 24)
    np.testing.assert_array_equal(doubled[::2], doubled[1::2])


@pytest.mark.parametrize(
    ("name", "codec"),
    [("a.mp4", "aac"), ("a.mov", "pcm_s16le"), ("a.mkv", "aac"), ("a.mkv", "flac")],
)
@pytest.mark.parametrize("rate", [44_100, 48_000])
def test_sound_of_a_span_equals_that_of_a_whole_decode(tmp_path, name, codec, rate):
    path = tmp_path / name
    t = np.arange(6 * rate) / rate  # chirps: AAC replaces noise by noise of its own
    wave = np.stack([0.4 * np.sin(2 * np.pi * (200 + f * t) * t) for f in (90, 150)])
    write_video(path, smooth_noise(60), fps=10, audio=wave, audio_rate=rate, audio_codec=codec)
    info = probe(path)
    whole = np.concatenate([b.samples for b in decode_audio(path, info)], axis=1)
    for first, last in ((0, 500), (1234, 40_000), (rate * 3 + 7, rate * 5), (rate * 5, rate * 6)):
        found, sounding = clip_samples(path, info, first, last)
        assert sounding == last - first
        np.testing.assert_allclose(found, whole[:, first:last], atol=0.02)  # one sample off: 0.1
    found, sounding = clip_samples(path, info, -1000, 1000)
    assert sounding == 1000
    assert np.abs(found[:, :1000]).max() == 0


def test_clip_audio_is_resampled_in_place_with_no_edge(tmp_path):
    path = tmp_path / "a.mp4"
    wave = tone(4.0, 44_100, 440.0)
    write_video(path, smooth_noise(100), fps=25, audio=wave, audio_rate=44_100)
    info = probe(path)
    summary = decode(path, info, lambda frame: None)
    clip = video_clip(info, summary.frame_pts, 30, 70)
    found = clip_audio(path, info, clip, 16_000)
    t = 30 / 25 + np.arange(len(found)) / 16_000
    assert len(found) == 16_000 * 40 // 25
    assert np.abs(found - 0.3 * np.sin(2 * np.pi * 440 * t)).max() < 0.02
