"""MFCC: numbers of python_speech_features 0.6 on the same 16-bit sound."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reelmill.curation.models.mfcc import mfcc

PUBLISHED = {  # python_speech_features.mfcc(x, 16000) of `sound()`, by row
    0: "19.2134 3.0881 27.8357 9.0295 -0.0426 -7.5261 -12.1255 -23.0575 -22.5758 -18.2228 -18.3137 "
    "-13.5767 -11.9099",
    17: "20.9972 6.3221 2.2366 -33.0115 -29.4921 -7.2833 17.0977 25.3884 14.2503 -5.6555 -20.955 "
    "-16.3479 -4.9372",
    49: "22.8097 -12.6125 -38.3316 -7.9502 31.4365 3.9225 -30.6639 -5.6758 23.1473 4.8543 -21.9407 "
    "-7.9008 16.8012",
}


def sound() -> np.ndarray:
    n = np.arange(16_000 // 2 + 123)
    sweep = np.sin(2 * np.pi * (200 * n / 16_000 + 1500 * (n / 16_000) ** 2))
    return 0.4 * sweep * (1 + 0.5 * np.sin(n / 900)) + 0.01 * np.sin(n * n / 7)


def test_it_is_that_of_the_package():
    found = mfcc(sound())
    assert found.shape == (50, 13)
    for row, numbers in PUBLISHED.items():
        assert found[row] == pytest.approx([float(x) for x in numbers.split()], abs=2e-3)


@given(st.integers(0, 2000))
def test_every_window_that_touches_the_sound_has_a_row(samples):
    found = mfcc(np.zeros(samples, np.float32))
    assert len(found) == max(1, 1 + -(-(samples - 400) // 160))
    assert np.isfinite(found).all()
