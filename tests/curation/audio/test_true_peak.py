"""True peak: against closed forms and a sixteenfold oversampling by scipy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import resample_poly
from tests.curation.audio.sounds import facts_of, info_of, span, tracks_of
from tests.media import noise

from reelmill.curation.audio.true_peak import TAPS, TruePeak, phases, reach


def peak(samples: np.ndarray, rate: int = 48_000) -> float:
    return facts_of(TruePeak(), samples.astype(np.float32), rate)["true_peak"]


@pytest.mark.parametrize("rate", [32_000, 44_100, 48_000])
@pytest.mark.parametrize("share", [8, 6, 4.01])
def test_a_tone_between_its_samples(rate, share):
    """A tone at a quarter of the rate, at 45 degrees: its samples stand at -3 dB."""
    n = np.arange(rate)
    fade = np.minimum(1, np.minimum(n, n[::-1]) / 2_000)  # no hard start, which would overshoot
    wave = 0.5 * fade * np.sin(2 * np.pi * n / share + np.pi / 4)
    assert peak(wave[None], rate) == pytest.approx(-6.02, abs=0.35)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 1_000), st.integers(500, 60_000))
def test_as_a_sixteenfold_oversampling_has_it(seed, block):
    wave = np.random.default_rng(seed).standard_normal((2, 20_000))
    low = resample_poly(wave, 1, 4, axis=1)
    smooth = resample_poly(low, 4, 1, axis=1)[:, 100:-100] * 0.2  # up to a quarter of the rate
    padded = np.pad(smooth, ((0, 0), (200, 200))).astype(np.float32)
    truth = 20 * np.log10(np.abs(resample_poly(padded, 16, 1, axis=1)).max())
    found = facts_of(TruePeak(), padded, 48_000, block=block)["true_peak"]
    assert found == pytest.approx(truth, abs=0.3)


def test_never_below_the_samples_and_constant_stays():
    wave = noise(1)
    assert peak(wave) >= 20 * np.log10(np.abs(wave).max()) - 1e-6
    at = tracks_of(TruePeak(), np.full((1, 48_000), 0.5, np.float32), 48_000)["peak"]
    assert at[3] == pytest.approx(0.5, rel=1e-5)


def test_blocks_and_clip_borders():
    wave = noise(2)
    wave[:, 48_000:] *= 0.1
    stage, info = TruePeak(), info_of(wave, 48_000)
    one, other = (tracks_of(stage, wave, 48_000, block=b) for b in (96_000, 1_234))
    assert np.array_equal(one["peak"], other["peak"])
    loud, soft = (
        stage.facts(one, span(a, a + 40_000, 48_000), info)["true_peak"] for a in (0, 56_000)
    )
    assert loud - soft == pytest.approx(20, abs=2)


def made(kind: str, rate: int) -> np.ndarray:
    """float32 [1, 2 s]."""
    wave = noise(2, rate, seed=rate)[0]
    if kind == "smooth":
        wave = np.convolve(wave, np.hanning(24), "same")
    elif kind == "clicks":  # between samples they rise highest where all is still else
        wave = 0.01 * np.convolve(wave, np.hanning(24), "same")
        wave[np.random.default_rng(rate).integers(0, len(wave), 40)] += 0.5
    elif kind == "square":
        wave = np.sign(np.sin(2 * np.pi * 997 * np.arange(len(wave)) / rate)) * 0.5
    return wave[None].astype(np.float32)


@pytest.mark.parametrize("kind", ["noise", "smooth", "clicks", "square"])
@pytest.mark.parametrize("rate", [8_000, 16_000, 22_050, 44_100, 48_000, 96_000])
def test_all_ways_are_the_filter_itself(kind, rate):
    """By products of blocks, and only where a peak can be: both are a plain correlation."""
    wave = made(kind, rate)
    found = tracks_of(TruePeak(), wave, rate)["peak"]
    padded = np.pad(wave[0].astype(np.float64), (TAPS - 1, TAPS // 2))
    taps = phases(min(4, -(-176_400 // rate))).astype(np.float64)
    between = np.abs([np.correlate(padded, row, "valid") for row in taps]).max(axis=0)
    for window in range(20):
        low, high = (edge * rate // 10 for edge in (window, window + 1))
        peak = max(np.abs(wave[0, low:high]).max(), between[low:high].max())
        assert found[window] == pytest.approx(peak, rel=1e-5)


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([2, 3, 4]),
    st.lists(st.sampled_from([-1.0, -0.3, 0.0, 0.5, 1.0]), min_size=TAPS, max_size=TAPS),
)
def test_no_place_rises_further_than_its_reach(factor, samples):
    """Above the nearer sample, in the largest steps between samples."""
    row, taps = np.array(samples), phases(factor).astype(np.float64)
    most = reach(phases(factor)) * np.abs(np.diff(row)).max(initial=0)
    for number, height in enumerate(np.abs(taps @ row), 1):
        nearer = row[TAPS // 2 - (2 * number <= factor)]
        assert height <= abs(nearer) + most + 1e-6
