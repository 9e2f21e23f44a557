"""Loudness against the standard's own signals, FFmpeg's meters and a plain float64 reference."""

from __future__ import annotations

import gc
import re
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise

import av
import av.logging
import numpy as np
import pytest
from av.filter import Graph
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import lfilter
from tests.curation.audio.sounds import (
    SHA,
    SUMMARY,
    facts_of,
    facts_of_file,
    info_of,
    span,
    tracks_of,
)
from tests.media import noise, smooth_noise, tone

from reelmill.curation.audio.loudness import FLOOR, Loudness, k_weighting
from reelmill.curation.stage import NotApplicable
from reelmill.datasets.media.decode import decode, probe
from reelmill.datasets.media.encode import write_audio, write_video
from reelmill.datasets.sample import Clip, Kind

LAYOUTS = {1: "mono", 2: "stereo", 5: "5.0", 6: "5.1"}


def sine(dbfs: float, seconds: float, rate: int = 48_000, hz: float = 1000.0) -> np.ndarray:
    return tone(seconds, rate, hz, 10 ** (dbfs / 20))[0]


def stereo(*parts: tuple[float, float]) -> np.ndarray:
    """1 kHz at (dBFS, seconds) after one another, in both channels."""
    return np.concatenate([sine(*part) for part in parts])[None].repeat(2, axis=0)


def meter(name: str, arguments: str, samples: np.ndarray, rate: int) -> str:
    """What one of FFmpeg's meters logs of float32 [channels, n]."""
    layout = LAYOUTS[len(samples)]
    graph = Graph()
    source = graph.add_abuffer(
        format="fltp", sample_rate=rate, layout=layout, time_base=Fraction(1, rate)
    )
    filters = [source, graph.add(name, arguments), graph.add("abuffersink")]
    for upper, lower in pairwise(filters):
        upper.link_to(lower)
    graph.configure()
    before = av.logging.get_level()
    av.logging.set_level(av.logging.INFO)
    try:
        with av.logging.Capture() as logs:
            wave = np.ascontiguousarray(samples)
            frame = av.AudioFrame.from_ndarray(wave, format="fltp", layout=layout)
            frame.sample_rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
            source.push(frame)
            source.push(None)
            while True:
                try:
                    filters[-1].pull()
                except (av.error.BlockingIOError, av.error.EOFError):
                    break
            del source, filters, graph, upper, lower
            gc.collect()  # the meters speak when they are freed
    finally:
        av.logging.set_level(before)
    return "".join(text for _, _, text in logs)


def number(pattern: str, text: str) -> float:
    found = re.search(pattern + r"\s*(-?[\d.]+)", text)
    assert found, text
    return float(found[1])


PRINTED = np.array(
    [
        [1.53512485958697, -2.69169618940638, 1.19839281085285, 1, -1.69065929318241,
         0.73248077421585],
        [1, -2, 1, 1, -1.99004745483398, 0.99007225036621],
    ]
)  # fmt: skip


def reference_lufs(samples: np.ndarray, rate: int, sections: np.ndarray) -> float:
    """BS.1770-4 for mono and stereo, block by block over the whole filtered sound."""
    heard = samples.astype(np.float64)
    for section in sections:
        heard = lfilter(section[:3], section[3:], heard)
    starts = range(int((samples.shape[1] - 0.4 * rate) / rate * 10 + 1e-9) + 1)
    spans = [slice(s * rate // 10, (s + 4) * rate // 10) for s in starts]
    blocks = np.array([(heard[:, span] ** 2).mean(axis=1).sum() for span in spans])
    level = -0.691 + 10 * np.log10(np.maximum(blocks, 1e-30))
    gate = -0.691 + 10 * np.log10(blocks[level > -70].mean()) - 10
    return -0.691 + 10 * np.log10(blocks[(level > -70) & (level > gate)].mean())


def test_filter_is_the_printed_one_at_48_khz():
    assert np.abs(k_weighting(48_000) - PRINTED).max() < 1e-8


@pytest.mark.parametrize(
    "samples",
    [
        stereo((-23, 20)),
        stereo((-33, 20)) * 10 ** (10 / 20),
        stereo((-36, 10), (-23, 60), (-36, 10)),
        stereo((-72, 10), (-36, 10), (-23, 60), (-36, 10), (-72, 10)),
        stereo((-26, 20), (-20, 20.1), (-26, 20)),
        np.stack([sine(v, 20) for v in (-28, -28, -24, -30, -30)]),
    ],
    ids=["case1", "case2", "case3", "case4", "case5", "case6"],
)
def test_signals_of_ebu_tech_3341_read_minus_23(samples):
    found = facts_of(Loudness(), samples, 48_000)["loudness"]
    assert found == pytest.approx(-23.0, abs=0.1)


@settings(max_examples=15)
@given(st.integers(0, 2**31), st.integers(19_200, 200_000), st.integers(700, 60_000))
def test_agrees_with_the_plain_reference_however_the_sound_is_cut_into_blocks(seed, n, block):
    rng = np.random.default_rng(seed)
    envelope = np.repeat(10 ** rng.uniform(-4, -0.5, n // 9_600 + 1), 9_600)[:n]
    samples = (rng.standard_normal((2, n)) * envelope).astype(np.float32)
    found = facts_of(Loudness(), samples, 48_000, block=block)["loudness"]
    assert found == pytest.approx(reference_lufs(samples, 48_000, PRINTED), abs=1e-4)


@pytest.mark.parametrize("seed", range(4))
def test_windows_that_are_no_whole_number_of_samples_do_not_drift(seed):
    rate = 11_025  # FFmpeg's meter is off by up to 0.3 LU here
    level = 10 ** np.random.default_rng(seed).uniform(-2, -0.5, 40)
    samples = noise(20, rate, 0.3, seed) * np.repeat(level, rate // 2 + 1)[: 20 * rate]
    found = facts_of(Loudness(), samples.astype(np.float32), rate)["loudness"]
    assert found == pytest.approx(reference_lufs(samples, rate, k_weighting(rate)), abs=0.01)


@pytest.mark.parametrize(
    ("rate", "channels"),
    [(8_000, 1), (22_050, 1), (44_100, 2), (96_000, 6), (48_000, 5), (192_000, 2)],
)
def test_agrees_with_ffmpegs_meters(rate, channels):
    rng = np.random.default_rng(rate)
    loud = np.repeat(10 ** rng.uniform(-2, -0.5, 8), rate // 2 + 1)[: 4 * rate]
    samples = np.stack([noise(4, rate, 0.3, seed)[0] * loud for seed in range(channels)])
    samples = samples.astype(np.float32)
    found = facts_of(Loudness(), samples, rate)
    lufs = number("I:", meter("ebur128", "framelog=quiet", samples, rate))
    volume = meter("volumedetect", "", samples, rate)
    assert found["loudness"] == pytest.approx(lufs, abs=0.06)
    assert found["mean_volume"] == pytest.approx(number("mean_volume:", volume), abs=0.06)
    assert min(found["peak"], 0) == pytest.approx(number("max_volume:", volume), abs=0.06)


@pytest.mark.parametrize(("channel", "weight"), [(0, 1), (2, 1), (3, 0), (4, 1.41), (7, 1.41)])
def test_channels_of_7_1_have_their_weights(channel, weight):
    samples = np.zeros((8, 96_000), np.float32)
    samples[0] = samples[channel] = sine(-20, 2)
    front = 1 + weight if channel else 1
    alone = facts_of(Loudness(), samples[:1], 48_000)["loudness"]
    found = facts_of(Loudness(), samples, 48_000)["loudness"]
    assert found == pytest.approx(alone + 10 * np.log10(front), abs=1e-3)


@pytest.mark.parametrize(("dbfs", "keeps"), [(-59.9, True), (-60.1, False)])
def test_volume_bound_is_at_minus_60(tmp_path, dbfs, keeps):
    path = tmp_path / "tone.wav"
    rms = sine(dbfs, 2) * np.sqrt(2)  # the level of a sine's mean square is 3 dB below its peak
    write_audio(path, rms[None], 48_000, codec="pcm_f32le")
    stage = Loudness()
    found = facts_of_file(stage, path)
    assert found["mean_volume"] == pytest.approx(dbfs, abs=0.02)
    assert stage.min_volume.holds(np.array([found["mean_volume"]])).tolist() == [keeps]


def test_a_clips_facts_are_those_of_its_own_sound():
    quiet, loud = noise(3, amplitude=0.01), noise(3, amplitude=0.2, seed=1)
    samples = np.concatenate([quiet, loud], axis=1)
    stage, info = Loudness(), info_of(samples, 48_000)
    tracks = tracks_of(stage, samples, 48_000)
    for part, first in ((quiet, 0), (loud, 144_000)):
        found = stage.facts(tracks, span(first, first + 144_000, 48_000), info)
        alone = facts_of(stage, part, 48_000)
        for name in ("loudness", "mean_volume", "peak"):
            assert found[name] == pytest.approx(alone[name], abs=0.02), name


def test_sound_that_ends_before_the_picture_counts_as_silence_from_there(tmp_path):
    path, sound = tmp_path / "short.mkv", noise(2, 16_000)
    write_video(
        path, smooth_noise(64), fps=16, audio=sound, audio_rate=16_000, audio_codec="pcm_s16le"
    )
    info, stage = probe(path), Loudness()
    analyser = stage.open(info)
    tracks = analyser.finish(decode(path, info, on_audio=analyser.block))
    sounding, all_of_it = (
        stage.facts(tracks, Clip(SHA, Kind.VIDEO, 0, s, Fraction(1), 0, 0, 16 * s), info)
        for s in (2, 4)
    )
    half = 10 * np.log10(2)
    assert all_of_it["mean_volume"] == pytest.approx(sounding["mean_volume"] - half, abs=0.05)
    assert all_of_it["loudness"] == pytest.approx(sounding["loudness"], abs=0.1)


def test_digital_silence_has_a_volume_but_no_loudness():
    found = facts_of(Loudness(), np.zeros((2, 48_000), np.float32), 48_000)
    assert isinstance(found["loudness"], NotApplicable)
    assert (found["mean_volume"], found["peak"]) == (FLOOR, FLOOR)


def test_no_sound_is_not_applicable():
    stage = Loudness()
    mute = replace(info_of(np.zeros((1, 1)), 48_000), audio=None)
    found = stage.facts(stage.open(mute).finish(SUMMARY), span(0, 48_000, 48_000), mute)
    assert {type(value) for value in found.values()} == {NotApplicable}


@pytest.mark.media
def test_real_sound_agrees_with_ffmpegs_meters(media):
    for name in ("audio/whisper_jfk.flac", "audio/music_electro_1.mp3", "audio/fmt_192khz.wav"):
        blocks: list[np.ndarray] = []
        info = probe(media / name)
        decode(media / name, info, on_audio=lambda block: blocks.append(block.samples))  # noqa: B023
        samples = np.concatenate(blocks, axis=1)
        found = facts_of_file(Loudness(), media / name)
        lufs = number("I:", meter("ebur128", "framelog=quiet", samples, info.audio.rate))
        volume = meter("volumedetect", "", samples, info.audio.rate)
        assert found["loudness"] == pytest.approx(lufs, abs=0.06), name
        assert found["mean_volume"] == pytest.approx(number("mean_volume:", volume), abs=0.06), name


@pytest.mark.media
def test_real_silence_is_below_the_bound_and_quiet_effects_are_not(media):
    stage = Loudness()
    for name, keeps in (
        ("audio/vad_zero.wav", False),
        ("talking/liveportrait_d18_silent_face.mp4", False),
        ("audio/sfx_crunching_quiet.mp3", True),
        ("talking/retalking_face4.mp4", True),
    ):
        volume = facts_of_file(stage, media / name)["mean_volume"]
        assert stage.min_volume.holds(np.array([volume])).tolist() == [keeps], name
