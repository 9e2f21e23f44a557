"""Metrics against planted truth and independent implementations."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import torchaudio
from hypothesis import given
from hypothesis import strategies as st
from nltk.metrics.distance import edit_distance as nltk_distance
from tests.evaluation.footage import FPS, RATE, bouncing, hopping, panning, prompt, seen, write
from tests.media import noise, shots_video, tone

from reelmill.curation.audio import loudness as curation_loudness
from reelmill.datasets.media.encode import write_audio, write_image
from reelmill.errors import MediaError
from reelmill.evaluation.clip import ClipMedia, read_clip
from reelmill.evaluation.damage import Footage
from reelmill.evaluation.metric import Better, NotApplicable, NotMeasured, NoValue, goodness
from reelmill.evaluation.metrics.loudness import (
    Clipping,
    Loudness,
    LoudnessSpread,
    Silence,
    TruePeak,
    k_weighting,
)
from reelmill.evaluation.metrics.motion import DuplicateFrames, Flicker, Jerk, MotionDegree
from reelmill.evaluation.metrics.picture import ColourDrift, Exposure, Sharpness
from reelmill.evaluation.metrics.shots import CutTiming, ShotCount
from reelmill.evaluation.metrics.spectrum import Bandwidth, SignalToNoise, StereoWidth
from reelmill.evaluation.metrics.sync import AVAlign, OnsetLag, matched, sound_events
from reelmill.evaluation.metrics.words import (
    CharacterErrorRate,
    TextHit,
    WordErrorRate,
    edit_distance,
    spoken_form,
)
from reelmill.evaluation.suite import weight_free
from reelmill.evaluation.taxonomy import dimension_of

SILENT = np.zeros((1, 0), np.float32)


def sounding(samples: np.ndarray, rate: int = 48_000) -> ClipMedia:
    """A clip of sound alone, as if it had been read."""
    return ClipMedia(
        path=Path("sound.flac"),
        info=None,  # type: ignore[arg-type] - metrics of sound do not look at it
        times=np.zeros(0),
        end=0.0,
        gray=np.zeros((0, 0, 0), np.uint8),
        colour=np.zeros((0, 3), np.float32),
        stills=np.zeros((0, 0, 0, 3), np.uint8),
        cuts=(),
        samples=np.atleast_2d(samples).astype(np.float32),
        rate=rate,
        sound_start=0.0,
    )


def still_picture(frames: int = 24) -> Footage:
    return Footage(np.repeat(panning(seconds=0.2).frames[:1], frames, axis=0), FPS, SILENT, RATE)


# the suite as a whole


def test_every_metric_says_what_it_means():
    suite = weight_free()
    assert len({m.name for m in suite}) == len(suite)
    for metric in suite:
        assert dimension_of(metric.part)
        assert metric.low < metric.high
        assert metric.identity["version"] >= 1
    assert {dimension_of(m.part) for m in suite} == {
        "instruction_following",
        "audio_visual_sync",
        "visual_quality",
        "motion_quality",
        "audio_quality",
    }


def test_goodness_follows_the_direction():
    assert goodness(Better.HIGHER, 2.0) > goodness(Better.HIGHER, 1.0)
    assert goodness(Better.LOWER, 1.0) > goodness(Better.LOWER, 2.0)
    assert goodness(Better.ZERO, -0.1) > goodness(Better.ZERO, 0.5)
    assert goodness(Better.NEITHER, 1.0) is None


def test_values_stay_in_their_range_and_absent_streams_give_no_number(tmp_path: Path):
    clip = read_clip(write(tmp_path / "both.mkv", bouncing()), prompt())
    mute = read_clip(write(tmp_path / "mute.mkv", seen(bouncing())), prompt())
    write_audio(tmp_path / "sound.flac", tone(1.0), 48_000)
    dark = read_clip(tmp_path / "sound.flac")
    for metric in weight_free():
        value = metric.measure(clip)
        assert isinstance(value, NoValue) or metric.low <= value <= metric.high, metric.name
        if metric.stream != "video":
            assert isinstance(metric.measure(mute), NoValue), metric.name
        if metric.stream != "audio":
            assert isinstance(metric.measure(dark), NoValue), metric.name


def test_a_picture_and_a_long_clip_are_refused(tmp_path: Path):
    write_image(tmp_path / "a.png", np.zeros((32, 32, 3), np.uint8))
    with pytest.raises(MediaError, match="is a picture"):
        read_clip(tmp_path / "a.png")
    write_audio(tmp_path / "long.flac", np.zeros((1, 130 * 8000), np.float32), 8000)
    with pytest.raises(MediaError, match="at most 120 s"):
        read_clip(tmp_path / "long.flac")


# loudness


@pytest.mark.parametrize("rate", [16_000, 44_100, 48_000])
def test_a_sine_at_minus_23_has_minus_23_lufs(rate: int):
    """EBU Tech 3341, case 1: 1 kHz, -23 dBFS per channel, in stereo."""
    wave = tone(5.0, rate, hz=1000, amplitude=10 ** (-23 / 20))
    assert Loudness().measure(sounding(np.repeat(wave, 2, axis=0), rate)) == pytest.approx(
        -23.0, abs=0.1
    )


def test_loudness_agrees_with_torchaudio_and_with_curation():
    samples = np.concatenate(
        [noise(2.0, amplitude=0.2), noise(2.0, amplitude=0.02, seed=1)], axis=1
    )
    samples = np.concatenate([samples, 0.5 * samples])
    ours = Loudness().measure(sounding(samples))
    theirs = torchaudio.functional.loudness(torch.from_numpy(samples), 48_000).item()
    assert ours == pytest.approx(theirs, abs=0.1)
    for rate in (16_000, 32_000, 48_000):
        assert np.allclose(k_weighting(rate), curation_loudness.k_weighting(rate), atol=1e-9)


def test_silence_has_no_loudness():
    assert isinstance(Loudness().measure(sounding(np.zeros((2, 48_000)))), NotApplicable)
    assert Silence().measure(sounding(np.zeros((2, 48_000)))) == 1.0
    half = np.concatenate([noise(1.0), np.zeros((1, 48_000))], axis=1)
    assert Silence().measure(sounding(half)) == pytest.approx(0.5)


def test_true_peak_finds_what_lies_between_samples():
    """A quarter of the rate, 45 degrees off: samples at 0.707, the wave at 1."""
    n = np.arange(4800)
    wave = np.sin(np.pi / 2 * n + np.pi / 4) * np.hanning(4800)
    assert np.abs(wave).max() < 0.708
    assert TruePeak().measure(sounding(wave)) == pytest.approx(0.0, abs=0.1)


def test_clipping_is_the_share_at_full_scale():
    wave = np.clip(tone(1.0, amplitude=2.0), -1, 1)
    assert Clipping().measure(sounding(wave)) == pytest.approx(2 / 3, abs=0.02)
    assert Clipping().measure(sounding(tone(1.0, amplitude=0.9))) == 0.0
    lonely = np.zeros((1, 48_000))
    lonely[0, ::100] = 1.0
    assert Clipping().measure(sounding(lonely)) == 0.0


def test_spread_is_the_step_between_two_levels():
    quiet = tone(4.0, amplitude=0.01)
    both = np.concatenate([quiet, 10 * quiet], axis=1)
    assert LoudnessSpread().measure(sounding(both)) == pytest.approx(20.0, abs=0.3)
    assert LoudnessSpread().measure(sounding(quiet)) == pytest.approx(0.0, abs=0.1)


# spectrum


@pytest.mark.parametrize("hz", [2000, 7000, 15_000])
def test_bandwidth_is_where_the_sound_ends(hz: int):
    spectrum = np.fft.rfft(noise(2.0)[0])
    spectrum[int(hz * 2.0) :] = 0
    wave = np.fft.irfft(spectrum)
    assert Bandwidth().measure(sounding(wave)) == pytest.approx(hz, abs=250)


@pytest.mark.parametrize("db", [10, 20, 30])
def test_signal_to_noise_of_bursts_over_a_floor(db: int):
    floor = noise(4.0, amplitude=0.01)
    burst = np.repeat(np.arange(8) % 2, 24_000)[None]
    wave = floor + burst * noise(4.0, amplitude=0.01 * 10 ** (db / 20), seed=1)
    assert SignalToNoise().measure(sounding(wave)) == pytest.approx(db, abs=1.5)


def test_stereo_width_from_mono_to_opposite():
    left, right = noise(1.0, seed=1), noise(1.0, seed=2)
    width = StereoWidth()
    assert width.measure(sounding(np.concatenate([left, left]))) == 0.0
    assert width.measure(sounding(np.concatenate([left, -left]))) == 1.0
    assert width.measure(sounding(np.concatenate([left, right]))) == pytest.approx(0.5, abs=0.02)
    assert isinstance(width.measure(sounding(left)), NotApplicable)


# sync


def most_pairs(first: list[float], second: list[float], tolerance: float) -> int:
    """By trying everything."""
    if not first:
        return 0
    best = most_pairs(first[1:], second, tolerance)
    for i, other in enumerate(second):
        if abs(first[0] - other) <= tolerance:
            rest = second[:i] + second[i + 1 :]
            best = max(best, 1 + most_pairs(first[1:], rest, tolerance))
    return best


TIMES = st.lists(st.integers(0, 30), max_size=6).map(sorted)


@given(TIMES, TIMES, st.integers(0, 6))
def test_peaks_are_matched_one_to_one_and_as_many_as_can_be(first, second, tolerance):
    found = matched(np.array(first, float), np.array(second, float), float(tolerance))
    assert len(found) == most_pairs(first, second, tolerance)
    assert all(abs(first[i] - second[j]) <= tolerance for i, j in found)
    for side in zip(*found, strict=True):
        assert len(set(side)) == len(side)


def test_sound_events_are_where_they_were_planted(tmp_path: Path):
    times = [0.5, 1.3, 1.9, 2.8, 3.3]
    clip = read_clip(write(tmp_path / "a.mkv", hopping(times)))
    assert sound_events(clip) == pytest.approx(times, abs=0.03)


@pytest.mark.parametrize("late", [-0.2, 0.0, 0.3])
def test_lag_has_the_size_and_the_sign_that_was_planted(late: float, tmp_path: Path):
    clip = read_clip(write(tmp_path / "a.mkv", hopping([0.5, 1.3, 1.9, 2.8, 3.3], late=late)))
    assert OnsetLag().measure(clip) == pytest.approx(late, abs=0.04)


def test_sound_that_starts_later_in_the_container_is_late(tmp_path: Path):
    path = write(tmp_path / "a.mkv", hopping([0.5, 1.3, 1.9, 2.8]), audio_start_s=0.25)
    assert OnsetLag().measure(read_clip(path)) == pytest.approx(0.25, abs=0.04)


def test_sync_is_not_judged_without_events(tmp_path: Path):
    hum = replace(still_picture(64), samples=tone(4.0, RATE))
    clip = read_clip(write(tmp_path / "a.mkv", hum))
    assert isinstance(AVAlign().measure(clip), NotApplicable)
    assert isinstance(OnsetLag().measure(clip), NotApplicable)


# motion and picture


def test_a_still_picture_is_no_bad_motion(tmp_path: Path):
    clip = read_clip(write(tmp_path / "a.mkv", still_picture()))
    assert isinstance(Jerk().measure(clip), NotApplicable)
    assert isinstance(DuplicateFrames().measure(clip), NotApplicable)
    assert MotionDegree().measure(clip) < 0.01
    assert Flicker().measure(clip) < 0.1


def test_duplicates_are_counted_and_gaps_in_time_too(tmp_path: Path):
    frames = panning(seconds=2.0).frames
    order = np.arange(32)
    order[[5, 6, 20]] = 4, 4, 19
    clip = read_clip(write(tmp_path / "a.mkv", Footage(frames[order], FPS, SILENT, RATE)))
    assert DuplicateFrames().measure(clip) == pytest.approx(3 / 31)
    late = replace(clip, times=clip.times + (np.arange(32) >= 10) * 2 / FPS)
    assert DuplicateFrames().measure(late) == pytest.approx((3 + 2) / 33)


def test_speed_is_in_widths_a_second(tmp_path: Path):
    wide = panning(seconds=0.1, size=(384, 256)).frames[0]
    frames = np.stack([wide[:, 2 * i : 2 * i + 192] for i in range(32)])
    clip = read_clip(write(tmp_path / "a.mkv", Footage(frames, FPS, SILENT, RATE)))
    assert MotionDegree().measure(clip) == pytest.approx(2 * FPS / 192, rel=0.1)


def test_flicker_is_not_measured_across_a_cut_and_drift_is_per_shot(tmp_path: Path):
    path = tmp_path / "a.mkv"
    assert shots_video(path, [16, 16], fps=16) == [16]
    clip = read_clip(path)
    assert clip.cuts == (16,)
    whole = replace(clip, cuts=())
    assert Flicker().measure(clip) < Flicker().measure(whole)
    assert ColourDrift().measure(clip) < ColourDrift().measure(whole) / 3


def test_exposure_is_the_share_of_pixels_without_detail(tmp_path: Path):
    frames = np.full((8, 64, 64, 3), 128, np.uint8)
    frames[:, :16] = 255
    frames[:, 16:24] = 0
    clip = read_clip(write(tmp_path / "a.mkv", Footage(frames, FPS, SILENT, RATE), crf=1))
    assert Exposure().measure(clip) == pytest.approx(24 / 64, abs=0.03)
    flat = read_clip(
        write(tmp_path / "b.mkv", Footage(np.full_like(frames, 90), FPS, SILENT, RATE))
    )
    assert isinstance(Sharpness().measure(flat), NotApplicable)


# shots


def test_cuts_are_counted_and_timed_against_the_prompt(tmp_path: Path):
    path = tmp_path / "a.mkv"
    shots_video(path, [24, 24, 16], fps=16)
    asked = prompt(seconds=4.0, cuts=(1.5, 2.5))
    clip = read_clip(path, asked)
    assert clip.cuts == (24, 48)
    assert ShotCount().measure(clip) == 0
    assert CutTiming().measure(clip) == pytest.approx((0 + 0.5) / 2)
    assert ShotCount().measure(replace(clip, prompt=prompt())) == 2
    assert isinstance(CutTiming().measure(replace(clip, prompt=prompt())), NotApplicable)
    assert isinstance(ShotCount().measure(replace(clip, prompt=None)), NotApplicable)
    missing = replace(clip, prompt=prompt(cuts=(1.5, 3.0, 3.5)))
    assert CutTiming().measure(missing) == pytest.approx((0 + 0 + 0.5 + 0.5) / 3, abs=0.2)


# words


@given(st.text("abc", max_size=9), st.text("abc", max_size=9))
def test_edit_distance_agrees_with_nltk(first: str, second: str):
    assert edit_distance(first, second) == nltk_distance(first, second)


def test_spoken_form_drops_what_is_not_spoken():
    assert spoken_form("“Don’t!”  she SAID\u3000— twice.") == "don't she said twice"
    assert spoken_form("１２ 个、苹果。") == "12 个 苹果"
    assert spoken_form("'quoted'") == "quoted"


def spoken(asked: str, heard: str | None, language: str = "en") -> ClipMedia:
    text = f"Someone says: <dialogue>{asked}</dialogue>"
    wanted = prompt(sound="speech", language=language, text=text)
    return replace(sounding(SILENT), prompt=wanted, transcript=heard)


def test_word_errors_in_english_and_character_errors_in_chinese():
    wer, cer = WordErrorRate(), CharacterErrorRate()
    assert wer.measure(spoken("One, two, three, four.", "one too three")) == 0.5
    assert wer.measure(spoken("One two", "")) == 1.0
    assert wer.measure(spoken("Hi", "well hi there you")) == 3.0
    assert cer.measure(spoken("走，去看海。", "走去看山", "zh")) == 0.25
    assert isinstance(cer.measure(spoken("Hi there", "hi")), NotApplicable)
    assert isinstance(wer.measure(spoken("走，去看海。", "走", "zh")), NotApplicable)


def test_no_transcript_is_not_measured_and_no_dialogue_does_not_apply():
    assert isinstance(WordErrorRate().measure(spoken("One", None)), NotMeasured)
    silent = replace(sounding(SILENT), prompt=prompt(), transcript="hello")
    assert isinstance(WordErrorRate().measure(silent), NotApplicable)


def test_text_is_hit_where_it_was_read_nearly_right():
    wanted = prompt(
        text="A sign <text>FRESH TODAY</text> and <text>立即下单</text>. <sfx>bell</sfx>"
    )
    clip = replace(sounding(SILENT), prompt=wanted)
    hit = TextHit()
    assert isinstance(hit.measure(clip), NotMeasured)
    assert hit.measure(replace(clip, seen_text=())) == 0.0
    assert hit.measure(replace(clip, seen_text=("so fresh t0day!",))) == 0.5
    assert hit.measure(replace(clip, seen_text=("FRE5H TODAY", "立即下单"))) == 1.0
    assert isinstance(hit.measure(replace(clip, prompt=prompt())), NotApplicable)


def test_writing_in_the_picture_is_read(tmp_path: Path):
    frames = np.full((16, 256, 456, 3), 90, np.uint8)
    for frame in frames:
        cv2.putText(frame, "FRESH TODAY", (60, 120), 0, 1.2, (255, 255, 255), 2)
    path = write(tmp_path / "a.mkv", Footage(frames, FPS, SILENT, RATE))
    asks = "A sign reads <text>Fresh today</text> and <text>Closed</text>. <sfx>bell</sfx>"
    assert TextHit().measure(read_clip(path, prompt(text=asks))) == 0.5
