"""Voice: silero's own spans in streaming, and silence that is neither speech nor sound."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.curation.audio.sounds import (
    SHA,
    SUMMARY,
    facts_of,
    facts_of_file,
    info_of,
    read_mono,
    span,
    tracks_of,
)
from tests.media import noise, smooth_noise, tone

from reelmill.curation.audio.voice import Voice
from reelmill.curation.models.silero import SpeechProbability, speech_spans
from reelmill.curation.stage import NotApplicable
from reelmill.datasets.media.decode import decode, probe
from reelmill.datasets.media.encode import write_audio, write_video
from reelmill.datasets.sample import Clip, Kind


@pytest.fixture(scope="module")
def silero():
    import silero_vad

    return silero_vad


@settings(max_examples=200)
@given(
    st.lists(
        st.tuples(st.sampled_from([0.0, 0.2, 0.34, 0.36, 0.4, 0.5, 0.6, 1.0]), st.integers(1, 14)),
        max_size=30,
    ),
    st.integers(0, 511),
    st.sampled_from([0.5, 0.3, 0.1]),
)
def test_spans_follow_silero_s_own_rules(silero, runs, missing, threshold):
    from silero_vad.utils_vad import get_speech_timestamps_from_probs

    probability = np.concatenate([np.zeros(0)] + [np.full(n, p) for p, n in runs])
    samples = max(0, len(probability) * 512 - missing)
    theirs = get_speech_timestamps_from_probs(
        probability.tolist(), threshold=threshold, audio_length_samples=samples
    )
    ours = speech_spans(probability, samples, threshold=threshold)
    assert ours.tolist() == [[s["start"], s["end"]] for s in theirs]


def test_streamed_probabilities_are_those_of_silero_window_by_window(silero):
    import torch

    sound = np.concatenate(
        [noise(3, 16_000, 0.05)[0], tone(2, 16_000, 200)[0], noise(4.1, 16_000)[0]]
    )
    model = silero.load_silero_vad(onnx=True)
    theirs = model.audio_forward(torch.from_numpy(sound)[None], 16_000)[0].numpy()
    speech = SpeechProbability()
    for part in np.split(sound, [1, 700, 700, 66_000, 100_001]):
        speech.push(part)
    ours = speech.finish()
    assert ours.shape == theirs.shape
    assert np.abs(ours - theirs).max() < 1e-4


@pytest.mark.parametrize("rate", [8_000, 44_100, 48_000])
@pytest.mark.parametrize("share", [0.0, 0.19, 0.21, 0.6, 1.0])
def test_ladder_of_silence(share, rate):
    sound = np.concatenate([noise(4, rate, 0.05), noise(4, rate, 0.05, seed=1)])
    sound[:, : round(share * sound.shape[1])] = 0
    found = facts_of(Voice(), sound, rate)
    assert found["silence_ratio"] == pytest.approx(share, abs=0.01)
    assert found["speech_ratio"] == 0


@pytest.mark.parametrize(("share", "keeps"), [(0.19, True), (0.2, False), (0.21, False)])
def test_papers_bound_is_below_a_fifth(tmp_path, share, keeps):
    path = tmp_path / "sound.flac"
    sound = noise(8, 16_000)
    sound[:, : round(share * 128_000)] = 0
    write_audio(path, sound, 16_000)
    stage = Voice()
    assert stage.max_silence_ratio.value is None
    stage = stage.with_field("max_silence_ratio", 0.2)
    found = facts_of_file(stage, path)["silence_ratio"]
    assert stage.max_silence_ratio.holds(np.array([found])).tolist() == [keeps]


@pytest.mark.parametrize(("dbfs", "silent"), [(-59.0, 0.0), (-61.0, 1.0)])
def test_gate_on_level(dbfs, silent):
    hum = noise(2, 48_000, 10 ** (dbfs / 20))
    assert facts_of(Voice(), hum, 48_000)["silence_ratio"] == pytest.approx(silent, abs=0.01)
    lower = Voice(silence_dbfs=-70.0)
    assert facts_of(lower, hum, 48_000)["silence_ratio"] == 0


def test_channels_in_antiphase_are_not_silence():
    wave = noise(2)
    assert facts_of(Voice(), np.concatenate([wave, -wave]), 48_000)["silence_ratio"] == 0


@settings(max_examples=10)
@given(st.integers(400, 100_000))
def test_blocks_do_not_matter(block):
    sound = np.concatenate([noise(1), np.zeros((1, 48_000), np.float32), tone(2)], axis=1)
    whole = tracks_of(Voice(), sound, 48_000, block=sound.shape[1])
    cut = tracks_of(Voice(), sound, 48_000, block=block)
    assert np.array_equal(cut["power"], whole["power"])
    assert np.array_equal(cut["probability"], whole["probability"])


def test_clips_of_a_video_are_placed_by_the_clock(tmp_path):
    """The sound begins 1 s after the picture and ends 1 s before it."""
    path = tmp_path / "late.mkv"
    write_video(
        path,
        smooth_noise(64),
        fps=16,
        audio=noise(2, 16_000),
        audio_rate=16_000,
        audio_codec="pcm_s16le",
        audio_start_s=1.0,
    )
    info, stage = probe(path), Voice()
    analyser = stage.open(info)
    tracks = analyser.finish(decode(path, info, on_audio=analyser.block))
    seconds = ((0, 4), (0, 1), (1, 3), (2, 4), (3, 4))
    found = [
        stage.facts(tracks, Clip(SHA, Kind.VIDEO, a, b, Fraction(1), 0, 16 * a, 16 * b), info)
        for a, b in seconds
    ]
    ratios = [facts["silence_ratio"] for facts in found]
    assert ratios == pytest.approx([0.5, 1.0, 0.0, 0.5, 1.0], abs=0.01)


def test_no_sound_is_not_applicable():
    stage = Voice()
    mute = replace(info_of(np.zeros((1, 1)), 48_000), audio=None)
    found = stage.facts(stage.open(mute).finish(SUMMARY), span(0, 48_000, 48_000), mute)
    assert {type(value) for value in found.values()} == {NotApplicable}


@pytest.mark.media
def test_real_speech_gives_silero_s_own_timestamps(silero, media):
    import torch

    model = silero.load_silero_vad(onnx=True)
    for name in ("audio/silero_test_60s.wav", "audio/whisper_jfk.flac", "audio/vad_sns.wav"):
        sound = read_mono(media / name)
        theirs = silero.get_speech_timestamps(torch.from_numpy(sound), model)
        speech = SpeechProbability()
        speech.push(sound)
        ours = speech_spans(speech.finish(), len(sound))
        assert ours.tolist() == [[s["start"], s["end"]] for s in theirs], name


@pytest.mark.media
def test_real_sound_is_told_apart(media):
    """(speech from, to), (silence from, to) as told in the truth of the corpus."""
    some, none, much = (0.5, 1.0), (0.0, 0.0), (0.9, 1.0)
    for name, speech, silence in (
        ("audio/vad_n.wav", none, (0, 0.05)),
        ("audio/vad_s.wav", much, (0, 0.05)),
        ("audio/vad_zero.wav", none, (1, 1)),
        ("audio/silero_test_60s.wav", (0.7, 0.85), (0, 0.2)),
        ("audio/whisper_jfk.flac", some, (0, 0.2)),
        ("audio/lj001_0001.wav", some, (0, 0.2)),
        ("audio/music_bach_piano.ogg", none, (0, 0.05)),
        ("audio/music_electro_1.mp3", none, (0, 0.05)),
        ("audio/sfx_rain_60s.mp3", none, (0, 0.05)),
        ("audio/esc_dog_1-100032-A-0.wav", none, (0.8, 1)),  # one bark, then digital silence
        ("talking/real3d_may_5s.mp4", some, (0, 0.2)),
        ("talking/liveportrait_d18_silent_face.mp4", none, (1, 1)),
    ):
        found = facts_of_file(Voice(), media / name)
        assert speech[0] <= found["speech_ratio"] <= speech[1], name
        assert silence[0] <= found["silence_ratio"] <= silence[1], name


@pytest.mark.media
def test_speech_of_a_clip_is_the_overlap_of_the_files_spans(media):
    path = media / "audio/silero_test_60s.wav"
    info, stage = probe(path), Voice()
    analyser = stage.open(info)
    tracks = analyser.finish(decode(path, info, on_audio=analyser.block))
    spoken = np.zeros(960_000)
    for first, last in tracks["speech"]:
        spoken[first:last] = 1
    for first, last in ((0, 160_000), (123_457, 130_000), (700_001, 960_000)):
        found = stage.facts(tracks, span(first, last, 16_000), info)
        assert found["speech_ratio"] == pytest.approx(spoken[first:last].mean(), abs=1e-6)
