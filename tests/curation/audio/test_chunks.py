"""Chunks: pieces touch, are short enough, and are cut where it is quiet."""

from __future__ import annotations

from itertools import combinations, pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.curation.audio.sounds import info_of, span, tracks_of
from tests.media import noise, tone

from reelmill.curation.audio.chunks import Chunks, cut_points
from reelmill.curation.audio.voice import Voice
from reelmill.curation.models.silero import SpeechProbability
from reelmill.datasets.media.decode import decode, probe
from reelmill.datasets.media.encode import write_audio


@given(st.lists(st.integers(0, 9), min_size=1, max_size=14), st.integers(2, 6), st.integers(1, 3))
def test_cuts_are_the_cheapest_of_all(cost, most, least):
    """Against every way there is."""
    least = min(least, most // 2)
    found = cut_points(np.array(cost, np.float64), most, least)
    count = len(cost)
    pieces = -(-count // most)
    ways = []
    for cuts in combinations(range(1, count), pieces - 1):
        lengths = np.diff([0, *cuts, count])
        if lengths.max() <= most and (pieces == 1 or lengths.min() >= least):
            ways.append(sum(cost[c] for c in cuts))
    assert len(found) == pieces - 1
    assert np.diff([0, *found, count]).max() <= most
    assert sum(cost[c] for c in found) == min(ways)


@settings(max_examples=30, deadline=None)
@given(
    st.integers(1, 200_000),
    st.sampled_from([8_000, 11_025, 44_100]),
    st.floats(1, 9),
    st.integers(0, 9),
)
def test_every_sample_is_in_exactly_one_chunk(samples, rate, longest, seed):
    stage = Chunks().with_field("max_seconds", longest)
    info = info_of(np.zeros((1, samples)), rate)
    windows = -(-samples * 1000 // (rate * 32))
    power = np.random.default_rng(seed).random(windows).astype(np.float32)
    tracks = {"power": power, "speech": np.zeros((0, 2), np.int64)}
    clips = stage.segment(tracks, span(0, samples, rate), info)
    assert clips[0].start_frame == 0
    assert clips[-1].end_frame == samples
    assert all(a.end_frame == b.start_frame for a, b in pairwise(clips))
    assert all(c.start_pts == c.start_frame and c.end_pts == c.end_frame for c in clips)
    assert all(0 < clip.seconds <= longest for clip in clips)
    assert len({clip.id for clip in clips}) == len(clips)
    if longest * 3 < samples / rate:
        assert min(clip.seconds for clip in clips) >= longest / 3 - 0.1


def test_cuts_fall_into_planted_pauses():
    rate = 16_000
    sound = tone(40, rate, 300, 0.3)[:1] + noise(40, rate, 0.001)[:1]
    for second in (7, 12, 19, 26, 33):
        sound[:, int((second - 0.15) * rate) : int((second + 0.15) * rate)] *= 1e-3
    stage = Chunks()
    tracks = tracks_of(stage, sound, rate, block=9_999)
    clips = stage.segment(tracks, span(0, sound.shape[1], rate), info_of(sound, rate))
    ends = [clip.end_frame / rate for clip in clips[:-1]]
    assert len(clips) == 3
    assert all(min(abs(end - s) for s in (7, 12, 19, 26, 33)) < 0.15 for end in ends)


def test_short_sound_stays_whole_and_the_knob_may_be_off():
    stage, whole = Chunks(), span(0, 15 * 16_000, 16_000)
    sound = noise(15, 16_000)[:1]
    tracks, info = tracks_of(stage, sound, 16_000), info_of(sound, 16_000)
    assert stage.segment(tracks, whole, info) == [whole]
    off = stage.with_field("max_seconds", None)
    assert off.segment(tracks, span(0, 10**7, 16_000), info) == [span(0, 10**7, 16_000)]
    assert len(stage.with_field("max_seconds", 14.9).segment(tracks, whole, info)) == 2


@pytest.mark.media
def test_real_speech_is_never_cut_inside_a_word(media):
    path = media / "audio/silero_test_60s.wav"
    info = probe(path)
    stage, voice = Chunks(), Voice()
    analysers = [stage.open(info), voice.open(info)]
    summary = decode(path, info, on_audio=lambda b: [a.block(b) for a in analysers] and None)
    tracks, heard = (a.finish(summary) for a in analysers)
    clips = stage.segment(tracks, span(0, summary.samples, 16_000), info)
    assert len(clips) == 5  # 60.0 s and the pieces a little under 15 s
    for clip in clips[:-1]:
        inside = (heard["speech"][:, 0] < clip.end_frame) & (clip.end_frame < heard["speech"][:, 1])
        assert not inside.any()


def test_stages_that_hear_one_stream_run_the_network_once(tmp_path, monkeypatch):
    path = tmp_path / "a.wav"
    write_audio(path, noise(7, 16_000), 16_000)
    info, stages = probe(path), (Chunks(), Voice(speech_threshold=0.2))
    windows = []
    run = SpeechProbability._run

    def counted(self, count):
        windows.append(count)
        run(self, count)

    monkeypatch.setattr(SpeechProbability, "_run", counted)

    def heard(stages) -> list[dict]:
        analysers = [stage.open(info) for stage in stages]
        summary = decode(path, info, on_audio=lambda block: [a.block(block) for a in analysers])
        return [analyser.finish(summary) for analyser in analysers]

    both = heard(stages)
    assert sum(windows) == -(-7 * 16_000 // 512)
    for stage, tracks in zip(stages, both, strict=True):
        (alone,) = heard([stage])
        assert all(np.array_equal(tracks[name], alone[name]) for name in alone)
