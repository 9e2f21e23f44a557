"""Clipping: planted plateaus are counted, smooth peaks are not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import butter, sosfilt
from tests.curation.audio.sounds import (
    SUMMARY,
    facts_of,
    facts_of_file,
    info_of,
    span,
    tracks_of,
)
from tests.media import noise, tone

from reelmill.curation.audio.clipping import Clipping, clipped_samples, suspects
from reelmill.curation.audio.windows import Windows
from reelmill.curation.stage import NotApplicable
from reelmill.datasets.corpus.defects import clipped
from reelmill.datasets.media.decode import decode, probe
from reelmill.datasets.media.encode import write_audio


def ratio(samples: np.ndarray, rate: int = 48_000, **options) -> float:
    return facts_of(Clipping(), samples, rate, **options)["clipping_ratio"]


def sixteen_bit(samples: np.ndarray) -> np.ndarray:
    return (np.clip(np.round(samples * 32768), -32768, 32767) / 32768).astype(np.float32)


def music(seconds: float, rate: int, seed: int = 0) -> np.ndarray:
    """Noise below 3 kHz whose level changes: peaks, and no plateau, float32 [1, n]."""
    low = sosfilt(butter(4, min(3000, rate * 0.4), fs=rate, output="sos"), noise(seconds, rate, 1))
    swell = 1 + 0.5 * np.sin(2 * np.pi * 1.3 * np.arange(low.shape[1]) / rate)
    wave = low[:, :] * swell * (1 if seed == 0 else -1)
    return (wave / np.abs(wave).max()).astype(np.float32)


def over_full(samples: np.ndarray) -> float:
    """Planted truth: share of samples in runs of at least 3 at full scale of one sign."""
    count = 0
    for channel in samples:
        for sign in (1, -1):
            hot = np.concatenate(([0], (sign * channel >= 1).astype(np.int8), [0]))
            starts, ends = np.flatnonzero(np.diff(hot) == 1), np.flatnonzero(np.diff(hot) == -1)
            count += int((ends - starts)[ends - starts >= 3].sum())
    return count / samples.size


@pytest.mark.parametrize("share", [0.0, 0.003, 0.01, 0.03, 0.1, 0.3])
@pytest.mark.parametrize("rate", [8_000, 44_100, 192_000])
def test_ladder_of_planted_clipping(share, rate):
    wave = music(2, rate)
    loud = clipped(wave, share) if share else wave * 0.9
    truth = over_full(loud)
    assert ratio(sixteen_bit(loud), rate) == pytest.approx(truth, rel=0.1, abs=2e-4)


@pytest.mark.parametrize("gain", [0.9, 0.5, 0.1])
def test_clipping_is_found_after_the_sound_was_turned_down(gain):
    loud = clipped(music(2, 48_000), 0.05)
    assert ratio(sixteen_bit(loud * gain)) == pytest.approx(over_full(loud), rel=0.1)


@settings(max_examples=25)
@given(
    st.floats(20, 5_000), st.floats(0.02, 1.0), st.sampled_from([8_000, 44_100, 48_000, 192_000])
)
def test_a_pure_tone_is_never_clipped_however_low_or_loud(hz, amplitude, rate):
    hz = min(hz, rate * 0.4)
    assert ratio(sixteen_bit(tone(1.0, rate, hz, amplitude)), rate) == 0


def test_square_silence_and_noise():
    assert ratio(np.zeros((2, 48_000), np.float32)) == 0
    assert ratio(np.full((1, 48_000), 0.5, np.float32)) == 0  # a constant has no peaks to lose
    assert ratio(sixteen_bit(noise(2, amplitude=0.003))) == 0
    assert ratio(sixteen_bit(noise(2, amplitude=0.2))) == 0


def test_float_sound_above_full_scale_is_what_a_player_would_clip():
    over = tone(1.0, 48_000, 440, 1.5)
    assert ratio(over) == pytest.approx(over_full(np.clip(over, -1, 1)), rel=0.02)


def test_eight_bit_steps_are_no_plateaus():
    eight = (np.clip(np.round(tone(1, 8_000, 200, 0.99) * 128), -128, 127) / 128).astype(np.float32)
    assert ratio(eight, 8_000, codec="pcm_u8") == 0
    loud = tone(1, 8_000, 200, 2.0)
    eight = (np.clip(np.round(loud * 128), -128, 127) / 128).astype(np.float32)
    truth = over_full(np.clip(loud, -1, 1))
    assert ratio(eight, 8_000, codec="pcm_u8") == pytest.approx(truth, rel=0.05)


@settings(max_examples=20)
@given(st.integers(1, 90_000))
def test_blocks_do_not_matter(block):
    loud = sixteen_bit(clipped(np.concatenate([music(1, 48_000), noise(1)]), 0.05))
    whole = tracks_of(Clipping(), loud, 48_000, block=loud.shape[1])
    assert np.array_equal(
        tracks_of(Clipping(), loud, 48_000, block=block)["clipped"], whole["clipped"]
    )


@pytest.mark.parametrize(("share", "keeps"), [(0.006, True), (0.014, False)])
def test_bound_on_both_sides(tmp_path, share, keeps):
    path = tmp_path / "loud.flac"
    write_audio(path, clipped(music(2, 48_000), share), 48_000)
    stage = Clipping()
    found = facts_of_file(stage, path)["clipping_ratio"]
    assert found == pytest.approx(share, rel=0.3)
    assert stage.max_clipping_ratio.holds(np.array([found])).tolist() == [keeps]


def test_only_the_clips_own_sound_counts():
    wave = music(1, 48_000)
    both = np.concatenate([wave * 0.9, clipped(wave, 0.1)], axis=1)
    stage, info = Clipping(), info_of(both, 48_000)
    tracks = tracks_of(stage, both, 48_000)
    spans = (span(0, 48_000, 48_000), span(48_000, 96_000, 48_000), span(96_000, 99_000, 48_000))
    clean, loud, beyond = (stage.facts(tracks, s, info)["clipping_ratio"] for s in spans)
    assert clean == 0
    assert loud == pytest.approx(over_full(both[:, 48_000:]), rel=0.1)
    assert isinstance(beyond, NotApplicable)


def test_no_sound_is_not_applicable():
    mute = replace(info_of(np.zeros((1, 1)), 48_000), audio=None)
    stage = Clipping()
    found = stage.facts(stage.open(mute).finish(SUMMARY), span(0, 48_000, 48_000), mute)
    assert isinstance(found["clipping_ratio"], NotApplicable)


@pytest.mark.media
def test_real_sound_turned_up_until_it_clips(media):
    for name in ("audio/lj001_0001.wav", "audio/music_guitar.mp3", "audio/sfx_rain_60s.mp3"):
        blocks: list[np.ndarray] = []
        decode(media / name, probe(media / name), on_audio=lambda b: blocks.append(b.samples))  # noqa: B023
        samples = np.concatenate(blocks, axis=1)[:, : 15 * 22_050]
        assert ratio(sixteen_bit(samples), 44_100) < 1e-4, name
        loud = clipped(samples, 0.05)
        found = ratio(sixteen_bit(loud), 44_100)
        assert found == pytest.approx(over_full(loud), rel=0.15), name


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([0.02, 0.3, 1.5]), st.floats(0.0, 0.4))
def test_windows_that_are_passed_over_hold_no_plateau(seed, gain, offset):
    """Runs at the top of some windows, on their borders too: looked for everywhere, and as is."""
    draw = np.random.default_rng(seed)
    wave = sixteen_bit(draw.normal(0, 0.3, 4_000) * gain + offset)
    for start in draw.integers(0, 3_990, 6):
        wave[start : start + draw.integers(2, 9)] = draw.choice([-1, 1]) * draw.uniform(0.2, 1)
    edges = np.arange(0, 4_001, 400)
    full, drop = 1 - 1 / 32768, 12 / 32768
    everywhere = clipped_samples(wave, edges, full, drop)
    found = np.zeros_like(everywhere)
    for low, high in suspects(Windows(wave[None], edges), 0, full):
        first, last = edges[low], edges[high]
        part = clipped_samples(wave[first:last], edges[low : high + 1] - first, full, drop)
        found[low:high] += part
    assert np.array_equal(found, everywhere)
