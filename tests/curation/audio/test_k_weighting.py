"""BlockFilter: against scipy's sosfilt in float64, whatever the blocks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import sosfilt

from reelmill.curation.audio.k_weighting import BlockFilter, scan
from reelmill.curation.audio.loudness import k_weighting


@pytest.mark.parametrize("rate", [8_000, 44_100, 192_000])
@pytest.mark.parametrize("offset", [0.0, 0.5])
def test_as_sosfilt_has_it_but_for_85_db(rate, offset):
    """An offset at full level is what a high-pass near 0 Hz is worst at."""
    wave = np.random.default_rng(rate).normal(0, 0.1, (2, 3 * rate)) + offset
    filtered = BlockFilter(k_weighting(rate), 2)(wave.astype(np.float32)).astype(np.float64)
    truth = sosfilt(k_weighting(rate), wave.astype(np.float32).astype(np.float64))
    wrong = np.abs(filtered - truth).max()
    assert 0 < wrong < 5e-5 * np.abs(wave).max()


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 3_000), min_size=1, max_size=8).filter(sum), st.integers(1, 3))
def test_a_stream_in_pieces_is_the_stream(lengths, channels):
    sos = k_weighting(48_000)
    wave = np.random.default_rng(sum(lengths)).normal(0, 0.1, (channels, sum(lengths)))
    wave = wave.astype(np.float32)
    one = BlockFilter(sos, channels)
    pieces = np.split(wave, np.cumsum(lengths)[:-1], axis=1)
    found = np.concatenate([one(piece).copy() for piece in pieces], axis=1)
    np.testing.assert_allclose(found, sosfilt(sos, wave.astype(np.float64)), atol=2e-6)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 700), st.integers(1, 4))
def test_a_scan_in_groups_is_the_scan(count, size):
    draw = np.random.default_rng(count)
    carry = draw.normal(size=(size, size)) / (2 * size)
    gains, state = draw.normal(size=(2, count, size)), draw.normal(size=(2, size))
    found = scan(carry, gains, state)
    assert np.array_equal(found[:, 0], state)
    for i in range(count):
        state = state @ carry + gains[:, i]
        np.testing.assert_allclose(found[:, i + 1], state, atol=1e-12)
