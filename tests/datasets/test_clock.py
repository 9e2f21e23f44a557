"""Picture and sound on one clock."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reelmill.datasets.media.clock import sound_span
from reelmill.datasets.media.decode import AudioInfo, MediaInfo
from reelmill.datasets.sample import Clip, Kind
from reelmill.errors import MediaError

INFO = MediaInfo(Kind.VIDEO, "mov", 4.0, 1, None, AudioInfo(48_000, 2, "aac", 0.0))
RATES = [8_000, 16_000, 22_050, 44_100, 48_000, 96_000]
BASES = [Fraction(1, 25), Fraction(1001, 30_000), Fraction(1, 90_000), Fraction(1, 1000)]


def clip(start: int, end: int, base: Fraction = Fraction(1, 25)) -> Clip:
    return Clip("ab" * 32, Kind.VIDEO, start, end, base, 0, 0, end - start)


def late(seconds: float) -> MediaInfo:
    return replace(INFO, audio=replace(INFO.audio, start_s=seconds))


def test_a_span_is_counted_from_the_first_sample_of_the_stream():
    assert sound_span(clip(25, 50), INFO) == (48_000, 96_000)
    assert sound_span(clip(25, 50), INFO, 16_000) == (16_000, 32_000)


def test_sound_that_starts_late_makes_the_first_sample_negative():
    assert sound_span(clip(0, 25), late(0.5)) == (-24_000, 24_000)
    assert sound_span(clip(25, 50), late(-0.25)) == (60_000, 108_000)


def test_sample_numbers_of_an_audio_clip_are_its_span_whatever_the_container_says():
    base = Fraction(1, 48_000)
    sound = Clip("ab" * 32, Kind.AUDIO, 100, 9_000, base, 0, 100, 9_000)
    assert sound_span(sound, late(0.025)) == (100, 9_000)


def test_no_sound_is_an_error():
    with pytest.raises(MediaError, match="no sound"):
        sound_span(clip(0, 25), replace(INFO, audio=None))


@given(
    st.lists(st.integers(0, 10**7), min_size=3, max_size=12, unique=True),
    st.sampled_from(BASES),
    st.sampled_from(RATES),
    st.floats(-5, 5),
)
def test_touching_clips_have_touching_spans_and_true_lengths(borders, base, rate, start_s):
    spans = [
        sound_span(clip(a, b, base), late(start_s), rate) for a, b in pairwise(sorted(borders))
    ]
    for (a, b), (first, last) in zip(pairwise(sorted(borders)), spans, strict=True):
        assert abs((last - first) - (b - a) * base * rate) <= 1
        assert abs(first - (a * base - Fraction(start_s)) * rate) <= Fraction(1, 2)
    assert all(before[1] == after[0] for before, after in pairwise(spans))
