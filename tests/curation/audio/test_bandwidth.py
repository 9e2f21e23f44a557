"""Bandwidth: what was cut off stays known after the file is stored at a higher rate."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.signal import resample_poly
from tests.curation.audio.sounds import facts_of, facts_of_file, info_of, span, tracks_of
from tests.media import noise, tone

from reelmill.curation.audio.bandwidth import Bandwidth
from reelmill.curation.stage import NotApplicable
from reelmill.datasets.media.decode import decode, probe
from reelmill.datasets.media.encode import write_audio
from reelmill.datasets.media.sound import resample


def top(samples: np.ndarray, rate: int = 48_000):
    return facts_of(Bandwidth(), samples, rate)["bandwidth"]


@pytest.mark.parametrize("through", [8_000, 16_000, 32_000])
def test_ladder_of_upsampled_noise(through):
    wave = noise(3, 48_000, amplitude=0.1)[0]
    low = resample(resample(wave, 48_000, through), through, 48_000)
    assert through / 2 <= top(low[None]) <= through / 2 * 1.2
    peer = resample_poly(resample_poly(wave, through // 1000, 48), 48, through // 1000)
    assert through / 2 <= top(peer[None].astype(np.float32)) <= through / 2 * 1.35
    assert top(wave[None]) == 24_000


@pytest.mark.parametrize(("through", "keeps"), [(8_000, False), (16_000, True)])
def test_a_telephone_call_at_48_khz_falls_below_the_bound_of_the_recipe(tmp_path, through, keeps):
    wave = noise(2, through, amplitude=0.1)
    path = tmp_path / "call.flac"
    write_audio(path, np.stack([resample(c, through, 48_000) for c in wave]), 48_000)
    facts = facts_of_file(Bandwidth(), path)
    assert facts["bandwidth_used"] == facts["bandwidth"] / 24_000
    bound = Bandwidth().with_field("min_bandwidth", 5000).min_bandwidth
    assert bound.holds(np.array([facts["bandwidth"]])).tolist() == [keeps]


def test_tone_silence_and_low_rates():
    assert top(tone(2, 48_000, 1_000, 0.5)) <= 1_500
    assert isinstance(top(np.zeros((1, 48_000), np.float32)), NotApplicable)
    assert isinstance(top(noise(0.05)), NotApplicable)
    assert top(noise(1, 8_000), 8_000) == 4_000


def test_one_click_is_no_bandwidth():
    wave = tone(10, 48_000, 1_000, 0.3)
    wave[:, 200_000] = 1
    assert top(wave) <= 1_500


def test_only_the_clips_own_sound_counts():
    wave = noise(2, 48_000, amplitude=0.1)[:1]
    low = resample(resample(wave[0], 48_000, 8_000), 8_000, 48_000)[None]
    both = np.concatenate([wave, low], axis=1)
    stage, info = Bandwidth(), info_of(both, 48_000)
    tracks = tracks_of(stage, both, 48_000, block=10_007)
    ends = [
        stage.facts(tracks, span(a * 96_000, (a + 1) * 96_000, 48_000), info)["bandwidth"]
        for a in (0, 1)
    ]
    assert ends[0] == 24_000
    assert ends[1] <= 5_000


@pytest.mark.media
def test_ladder_on_real_speech_and_music(media):
    for name in (
        "audio/whisper_jfk.flac",
        "talking/real3d_may_5s.mp4",
        "audio/lj001_0001.wav",
        "audio/music_guitar.mp3",
        "general/decord_pancake.mkv",
        "talking/wan_animate_woman_speech.mp4",
    ):
        blocks: list[np.ndarray] = []
        info = probe(media / name)
        decode(media / name, info, on_audio=lambda b: blocks.append(b.samples))  # noqa: B023
        rate = info.audio.rate
        wave = np.concatenate(blocks, axis=1)[:, : rate * 10].mean(axis=0)
        found = [
            top(resample(resample(wave, rate, through), through, 48_000)[None])
            for through in (8_000, 16_000)
        ]
        assert found[0] <= 5_000 < found[1] <= 10_000, name
        assert top(wave[None], rate) > 10_000, name
    phone = facts_of_file(Bandwidth(), media / "audio/pyannote_phone_sample.wav")
    assert phone["bandwidth"] <= 4_500  # stored at 16 kHz
