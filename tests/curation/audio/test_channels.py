"""Channels: dual mono, inversion and offset as planted."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.curation.audio.sounds import facts_of, facts_of_file, info_of, span, tracks_of
from tests.media import noise

from reelmill.curation.audio.channels import Channels
from reelmill.curation.stage import NotApplicable


def found(samples: np.ndarray) -> dict:
    return dict(facts_of(Channels(), samples.astype(np.float32), 48_000))


def test_dual_mono_and_inverted():
    one = noise(1)[:1]
    same, against = found(np.concatenate([one, one])), found(np.concatenate([one, -one]))
    assert same["channel_correlation"] == pytest.approx(1)
    assert same["side_level"] == -91
    assert against["channel_correlation"] == pytest.approx(-1)
    assert against["side_level"] == pytest.approx(10 * np.log10(4), abs=0.01)


@settings(max_examples=25)
@given(st.floats(-0.99, 0.99), st.floats(-0.2, 0.2), st.floats(0.1, 1.0))
def test_planted_correlation_whatever_offset_and_gain(alike, offset, gain):
    a, b = np.random.default_rng(0).standard_normal((2, 96_000)) * 0.1
    right = gain * (alike * a + np.sqrt(1 - alike**2) * b)
    both = np.stack([a, right + offset]).astype(np.float32)
    facts = found(both)
    assert facts["channel_correlation"] == pytest.approx(np.corrcoef(both)[0, 1], abs=2e-3)
    assert facts["dc_offset"] == pytest.approx(np.abs(both.mean(axis=1)).max(), abs=1e-4)


def test_one_channel_silence_and_one_silent_channel():
    mono = found(noise(1)[:1])
    assert isinstance(mono["channel_correlation"], NotApplicable)
    assert isinstance(mono["dc_offset"], float)
    silent = found(np.zeros((2, 48_000)))
    assert isinstance(silent["side_level"], NotApplicable)
    half = found(np.concatenate([noise(1)[:1], np.zeros((1, 48_000))]))
    assert half["channel_correlation"] == 0


def test_only_the_clips_own_sound_counts():
    one = noise(2)[:1]
    both = np.concatenate([np.concatenate([one, one]), np.concatenate([one, -one])], axis=1)
    stage, info = Channels(), info_of(both, 48_000)
    tracks = tracks_of(stage, both, 48_000, block=7_777)
    values = [stage.facts(tracks, span(a * 96_000, (a + 1) * 96_000, 48_000), info) for a in (0, 1)]
    assert [round(v["channel_correlation"]) for v in values] == [1, -1]


def test_bounds_on_both_sides():
    stage = Channels()
    assert stage.min_correlation.holds(np.array([-0.81, -0.8, np.nan])).tolist() == [False, 1, 1]
    assert stage.max_dc_offset.holds(np.array([0.0201, 0.02])).tolist() == [False, True]


@pytest.mark.media
def test_real_music_with_a_dc_offset(media):
    assert facts_of_file(Channels(), media / "audio/music_dcoffset.wav")["dc_offset"] > 0.1
    assert facts_of_file(Channels(), media / "audio/music_electro_1.mp3")["dc_offset"] < 0.01
    twins = facts_of_file(Channels(), media / "talking/lrs3_ted_00018.mp4")
    assert twins["side_level"] < -60  # one microphone in both channels
