"""Noise: planted ratios are found in speech and in tones, and none where none can be known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import butter, sosfilt
from scipy.stats import spearmanr
from tests.curation.audio.sounds import (
    facts_of,
    facts_of_file,
    info_of,
    read_mono,
    span,
    tracks_of,
)
from tests.media import noise, tone

from reelmill.curation.audio.noise import Noise
from reelmill.curation.models.silero import SpeechProbability, speech_spans
from reelmill.curation.stage import NotApplicable
from reelmill.datasets.corpus.defects import noisy

LADDER = (-5, 0, 5, 10, 15, 20, 30)


def beeps(seconds: float, rate: int, every: float = 0.5) -> np.ndarray:
    """A tone that dies away, every half second, float32 [1, n]."""
    t = np.arange(round(seconds * rate)) / rate
    return (0.5 * np.exp(-(t % every) / 0.08) * np.sin(2 * np.pi * 440 * t))[None].astype("f4")


def snr(samples: np.ndarray, rate: int = 48_000):
    return facts_of(Noise(), samples, rate)["snr"]


@pytest.mark.parametrize("rate", [8_000, 44_100, 48_000])
@pytest.mark.parametrize("ratio", [0, 5, 10, 20])
def test_planted_ratio_under_beeps(rate, ratio):
    """The truth is that of the whole; what stands out sounds for part of the time."""
    mixed = noisy(beeps(6, rate), ratio, seed=1)
    found = snr(mixed, rate)
    assert ratio - 1 <= found <= ratio + 4


def test_level_of_the_floor():
    mixed = beeps(6, 48_000) + noise(6, amplitude=0.01)[:1]
    truth = 10 * np.log10(np.mean(np.square(noise(6, amplitude=0.01)[:1], dtype=np.float64)))
    found = facts_of(Noise(), mixed, 48_000)["noise_floor"]
    assert truth - 0.5 <= found <= truth + 2.5  # the ends of the beeps reach into its windows


def test_sound_without_pauses_and_steady_sound_have_no_ratio():
    held = sum(tone(5, 48_000, hz, 0.1) for hz in (220, 277, 330, 440, 554))
    assert isinstance(snr(held), NotApplicable)
    assert isinstance(snr(noise(5, amplitude=0.1)), NotApplicable)
    assert isinstance(facts_of(Noise(), noise(5, amplitude=0.1), 48_000)["noise_floor"], float)


def test_silence_and_short_sound_have_none():
    assert isinstance(snr(np.zeros((2, 96_000), np.float32)), NotApplicable)
    assert isinstance(snr(noise(0.5)), NotApplicable)
    padded = np.concatenate([np.zeros((1, 96_000), "f4"), noisy(beeps(4, 48_000), 0, 3)], axis=1)
    assert snr(padded) < 5  # digital silence is no pause of the noise


@settings(max_examples=10, deadline=None)
@given(st.integers(100, 90_000))
def test_blocks_do_not_matter(block):
    mixed = noisy(beeps(2, 48_000), 5, seed=2)
    whole = tracks_of(Noise(), mixed, 48_000, block=96_000)
    cut = tracks_of(Noise(), mixed, 48_000, block=block)
    assert {k: v.tolist() for k, v in cut.items()} == {k: v.tolist() for k, v in whole.items()}


def test_only_the_clips_own_sound_counts():
    slow = beeps(4, 48_000, every=1.0)
    clean, hissing = noisy(slow, 30, seed=1), noisy(slow, 0, seed=2)
    both = np.concatenate([clean, hissing], axis=1)
    stage, info = Noise(), info_of(both, 48_000)
    tracks = tracks_of(stage, both, 48_000)
    halves = [span(a * 48_000, (a + 4) * 48_000, 48_000) for a in (0, 4)]
    first, second = (stage.facts(tracks, half, info)["snr"] for half in halves)
    assert first > 25
    assert second < 5


def test_bound_on_both_sides():
    assert Noise().min_snr.holds(np.array([4.99, 5.0, np.nan])).tolist() == [False, True, True]


def test_level_does_not_matter():
    mixed = noisy(beeps(4, 48_000), 10, seed=4)
    assert snr(mixed * 0.05) == pytest.approx(snr(mixed), abs=0.1)


def coloured(kind: str, media) -> np.ndarray:
    rng = np.random.default_rng(0)
    if kind == "white":
        return rng.standard_normal(16_000 * 35)
    if kind == "rain":  # after the thunder of its first 20 s, which is no steady noise
        return read_mono(media / "audio/sfx_rain_60s.mp3")[20 * 16_000 :].astype(np.float64)
    brown = np.cumsum(rng.standard_normal(16_000 * 35))
    return sosfilt(butter(2, 60, "high", fs=16_000, output="sos"), brown)


@pytest.mark.media
def test_ladder_on_real_speech(media):
    """Truth: powers over the time in which silero hears speech in the clean file."""
    truth, found = [], []
    for name in (
        "lj001_0001.wav",
        "lj001_0005.wav",
        "lj001_0002.wav",
        "voicebank_p287_002_clean.wav",
        "voicebank_p287_003_clean.wav",
        "voicebank_p287_004_clean.wav",
        "whisper_jfk.flac",
        "silero_test_60s.wav",
    ):
        clean = read_mono(media / "audio" / name)[: 12 * 16_000].astype(np.float64)
        heard = SpeechProbability()
        heard.push(clean.astype(np.float32))
        spoken = np.zeros(len(clean), bool)
        for first, last in speech_spans(heard.finish(), len(clean)):
            spoken[first:last] = True
        for kind in ("white", "brown", "rain"):
            added = coloured(kind, media)[: len(clean)]
            added *= np.sqrt(np.mean(clean[spoken] ** 2) / np.mean(added[spoken] ** 2))
            for ratio in LADDER:
                mixed = clean + added * 10 ** (-ratio / 20)
                mixed *= min(1, 0.95 / np.abs(mixed).max())
                truth.append(ratio)
                found.append(snr(mixed[None].astype(np.float32), 16_000))
    assert all(isinstance(value, float) for value in found)
    truth, found = np.array(truth), np.array(found)
    middle = (truth >= 0) & (truth <= 20)
    error = np.abs(found - truth)[middle].mean()
    print(f"rank {spearmanr(truth, found)[0]:.3f}, mean error {error:.2f} dB")
    assert spearmanr(truth, found)[0] >= 0.95
    assert error <= 3


@pytest.mark.media
def test_real_recordings_lie_on_their_sides(media):
    stage = Noise()
    for name, keeps in (
        ("audio/voicebank_p287_004_noisy.wav", False),  # -0.7 dB
        ("audio/voicebank_p287_002_noisy.wav", True),  # 9.0 dB
        ("audio/voicebank_p287_004_clean.wav", True),
        ("audio/music_guitar.mp3", True),  # none: it never pauses
        ("talking/real3d_may_5s.mp4", True),
        ("talking/panda_pressconf.mp4", True),
    ):
        value = facts_of_file(stage, media / name)["snr"]
        number = value if isinstance(value, float) else np.nan
        assert stage.min_snr.holds(np.array([number])).tolist() == [keeps], name
