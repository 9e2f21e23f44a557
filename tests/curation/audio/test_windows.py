"""The grid of windows: nothing lost, nothing twice, whatever the rate and the blocks."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from reelmill.curation.audio.windows import Grid, WindowCutter
from reelmill.datasets.media.sound import block_ms

RATES = st.sampled_from([8_000, 11_025, 16_000, 22_050, 44_100, 48_000, 192_000])
WIDTHS = st.sampled_from([32, 100])


@given(RATES, WIDTHS, st.integers(0, 10_000_000))
def test_each_sample_is_in_the_window_that_says_so(rate, width, sample):
    grid = Grid(rate, width)
    window = grid.at(sample)
    low, high = grid.edges(window, window + 1)
    assert low <= sample < high
    assert low == window * rate * width // 1000


@given(RATES, WIDTHS, st.integers(0, 60_000), st.integers(-5_000, 60_000), st.integers(0, 60_000))
def test_shares_add_up_to_what_the_span_and_the_sound_have_in_common(
    rate, width, total, first, length
):
    grid = Grid(rate, width)
    windows, shares = grid.shares(first, first + length, total)
    sounding = np.zeros(70_000, bool)
    sounding[max(0, first) : max(0, min(first + length, total))] = True
    at = [grid.at(sample) for sample in np.flatnonzero(sounding)[[0, -1]]] if sounding.any() else []
    assert shares.sum() == sounding.sum()
    assert (windows.start, windows.stop) == ((at[0], at[1] + 1) if at else (0, 0))
    edges = grid.edges(windows.start, windows.stop)
    assert shares.tolist() == [int(sounding[low:high].sum()) for low, high in pairwise(edges)]


@given(RATES, WIDTHS, st.lists(st.integers(0, 30_000), max_size=12))
def test_cut_windows_are_the_stream_again(rate, width, lengths):
    stream = np.arange(2 * sum(lengths), dtype=np.float32).reshape(2, -1)
    grid = Grid(rate, width)
    cutter = WindowCutter(grid)
    blocks = np.split(stream, np.cumsum(lengths), axis=1)
    cut = [part for block in blocks for part in cutter.push(block)] + list(cutter.flush())
    assert cutter.total == stream.shape[1]
    assert all(len(edges) - 1 <= block_ms(rate) // width for _, edges in cut)
    if cut:
        assert np.array_equal(np.concatenate([samples for samples, _ in cut], axis=1), stream)
    found = np.concatenate([np.diff(edges) for _, edges in cut]) if cut else np.zeros(0)
    whole = grid.at(stream.shape[1])
    assert np.array_equal(found[:whole], np.diff(grid.edges(0, whole)))
    assert len(found) - whole in (0, 1)
