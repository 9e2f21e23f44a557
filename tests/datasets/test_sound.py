"""Sound of frames that no sound encoder would write."""

from __future__ import annotations

from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reelmill.datasets.media.sound import SoundRow


@pytest.mark.parametrize("planes", [0, 1, 2, 47, 48, 60])
def test_planes_that_are_not_the_channels_are_an_error_of_that_frame(planes):
    """A rotted AAC stream of one channel was decoded to frames of 48 channels and 60 planes."""
    frame = SimpleNamespace(
        format=SimpleNamespace(name="fltp"),
        samples=64,
        sample_rate=16_000,
        pts=0,
        layout=SimpleNamespace(nb_channels=48),
        planes=[np.full(64, 0.25, np.float32).tobytes()] * planes,
    )
    row = SoundRow(16_000, 2, Fraction(0), Fraction(1, 16_000))
    assert list(row.push(frame)) == []
    ((start, samples),) = row.flush()
    assert start == 0
    assert row.errors == (planes != 2)
    assert samples.shape == (2, 64)
    np.testing.assert_array_equal(samples, 0.25 if planes else 0.0)


@given(
    st.sampled_from([8_000, 22_050, 44_100, 48_000]),
    st.sampled_from([Fraction(1, 44_100), Fraction(1, 1_000), Fraction(1, 90_000), Fraction(3, 7)]),
    st.integers(-(2**40), 2**40),
    st.integers(-(2**33), 2**40),
)
def test_a_timestamp_s_sample_is_the_nearest(rate, time_base, start, pts):
    """In whole numbers as in fractions, halves to the even one."""
    row = SoundRow(rate, 1, start * time_base, time_base)
    assert row.index(pts) == round((pts - start) * time_base * rate)
