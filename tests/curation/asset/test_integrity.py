"""Integrity fails what is damaged, and only that."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from tests.frames import broken, measured, moving
from tests.media import noise, rotten_copy, truncated_copy

from reelmill.curation.asset.integrity import Integrity
from reelmill.datasets.media.decode import probe
from reelmill.datasets.media.encode import write_video
from reelmill.errors import MediaError


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("integrity") / "whole.mp4"
    write_video(path, moving(96), fps=24, audio=noise(4.0), gop=24)
    return path


def test_a_whole_file(whole):
    integrity = measured(Integrity(), whole)
    assert integrity.facts["frames_expected"] == integrity.facts["frames_decoded"] == 96
    assert integrity.facts["missing_ratio"] == integrity.facts["decode_errors"] == 0
    assert integrity.facts["av_seconds_gap"] < 0.05


@pytest.mark.parametrize(
    ("suffix", "share"),
    [(".mp4", s) for s in (0.3, 0.5, 0.7, 0.9, 0.97)] + [(".mkv", s) for s in (0.3, 0.6, 0.9)],
)
def test_a_file_that_ends_early_fails(tmp_path, whole, suffix, share):
    source = whole
    if suffix == ".mkv":
        source = tmp_path / "whole.mkv"
        write_video(source, moving(96), fps=24, audio=noise(4.0), gop=24)
    cut = truncated_copy(source, tmp_path / f"cut{suffix}", share)
    with pytest.raises(MediaError) as caught:
        _ = measured(Integrity(), cut).facts
    assert caught.value.cause == "corrupt"


def test_says_how_much_is_missing(tmp_path, whole):
    cut = truncated_copy(whole, tmp_path / "cut.mp4", 0.5)
    with pytest.raises(MediaError, match=r"promises 96 frames and 4\.\d\d s, and holds \d+ frames"):
        _ = measured(Integrity(), cut).facts


@pytest.mark.parametrize("seed", range(4))
def test_rotten_bytes_fail(tmp_path, whole, seed):
    bad = rotten_copy(whole, tmp_path / "bad.mp4", flips=400, seed=seed, spare=8192)
    with pytest.raises(MediaError):
        _ = measured(Integrity(), bad).facts


def test_odd_but_healthy_files_pass(tmp_path):
    frames = moving(48)
    gaps = np.random.default_rng(0).choice([20, 40, 90], size=48)
    pts = [0, *np.cumsum(gaps)[:-1].tolist()]
    write_video(tmp_path / "vfr.mkv", frames, pts=pts, time_base=Fraction(1, 1000))
    write_video(tmp_path / "late.mp4", frames, fps=24, audio=noise(2.0), start_s=1.0)
    write_video(tmp_path / "late_sound.mkv", frames, fps=24, audio=noise(1.0), audio_start_s=0.9)
    write_video(tmp_path / "long_sound.mp4", frames, fps=24, audio=noise(5.0))
    write_video(tmp_path / "short_sound.mp4", frames, fps=24, audio=noise(0.5))
    write_video(tmp_path / "one.mp4", frames[:1], fps=24)
    for path in sorted(tmp_path.iterdir()):
        facts = measured(Integrity(), path).facts
        assert facts["missing_ratio"] == 0, path.name


def test_gap_between_the_ends_of_picture_and_sound(tmp_path):
    write_video(tmp_path / "a.mp4", moving(48), fps=24, audio=noise(3.0))
    integrity = measured(Integrity(), tmp_path / "a.mp4")
    assert integrity.facts["av_seconds_gap"] == pytest.approx(1.0, abs=0.06)
    assert not broken(integrity.stage, integrity.facts)
    assert not broken(integrity.stage.with_field("max_av_seconds_gap", 1.1), integrity.facts)
    strict = integrity.stage.with_field("max_av_seconds_gap", 0.9)
    assert broken(strict, integrity.facts) == ["av_lengths_differ"]


def verdict(path: Path) -> str:
    try:
        if probe(path).kind != "video":
            return "not video"
        return "healthy" if measured(Integrity(), path).facts else ""
    except MediaError:
        return "failed"


@pytest.mark.media
def test_broken_videos_fail(media):
    healthy = {"decord_unordered.mov", "katna_codec_error.mp4", "mdat_too_long.mp4"} | {
        "no_duration.webm"
    }
    videos = [p for p in sorted((media / "broken").iterdir()) if p.suffix in (".mp4", ".webm")]
    found = {p.name: verdict(p) for p in videos}
    assert {n for n, v in found.items() if v == "healthy"} == healthy & set(found)
    assert found["truncated_header_only.mp4"] == found["decord_corrupted.mp4"] == "failed"


@pytest.mark.media
@pytest.mark.parametrize(
    "name", ["general/cotracker_bear.mp4", "general/panda_whales.mp4", "general/fmt_flv.flv"]
)
def test_no_damaged_copy_of_a_real_clip_is_accepted(media, tmp_path, name):
    """Cut off at 10 places, and rotten at 10 places in 10 ways."""
    source = media / name
    assert verdict(source) == "healthy"
    copy = tmp_path / f"copy{source.suffix}"
    for share in np.linspace(0.05, 0.98, 10):
        assert verdict(truncated_copy(source, copy, float(share))) == "failed", share
    for seed in range(10):
        assert verdict(rotten_copy(source, copy, flips=10, seed=seed, spare=8192)) == "failed", seed


@pytest.mark.media
@pytest.mark.parametrize(
    "name",
    [
        "mmaction_armwrestling.mp4",
        "fmt_vfr_slowmotion.mp4",
        "fmt_avi_mpeg4.avi",
        "fmt_flv.flv",
        "fmt_shorter_audio.mp4",
        "fmt_nasa_multistream.mp4",
        "fmt_phone_rot90_a.mp4",
        "dover_fireworks.mp4",
        "dover_dark_lowres.mp4",
        "decord_pancake.mkv",
    ],
)
def test_odd_real_files_pass(media, name):
    assert verdict(media / "general" / name) == "healthy"
