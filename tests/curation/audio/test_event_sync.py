"""EventSync: planted shifts of rendered bounces are found; what shares no events is left alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.curation.audio.sounds import SHA, info_of
from tests.media import noise, tone

from reelmill.curation.audio.event_sync import EventSync, agreement, onsets, turns
from reelmill.curation.measure import LazyMedia
from reelmill.curation.stage import Facts, NotApplicable
from reelmill.datasets.corpus.defects import shifted
from reelmill.datasets.corpus.render import render_scene
from reelmill.datasets.corpus.scene import Background, Ball, Scene
from reelmill.datasets.corpus.sound import scene_audio
from reelmill.datasets.media.decode import decode, probe
from reelmill.datasets.media.encode import write_video
from reelmill.datasets.sample import Clip, Kind

RATE, FPS = 48_000, 24
NOT_SPEECH = {"speech_ratio": 0.0}


def clip_of(path, facts: Facts = NOT_SPEECH) -> LazyMedia:
    info = probe(path)
    summary = decode(path, info, lambda frame: None)
    assert info.video is not None
    first, last = (int(summary.frame_pts[i]) for i in (0, -1))
    end = last + summary.last_frame_ticks
    base = info.video.time_base
    clip = Clip(SHA, Kind.VIDEO, first, end, base, first, 0, len(summary.frame_pts))
    return LazyMedia(clip, info, facts, path)


def found(media, stage: EventSync | None = None) -> Facts:
    with (stage or EventSync()).session(None) as measure:
        return measure([media])[0]


@pytest.fixture(scope="module")
def scene() -> Scene:
    balls = (
        Ball("circle", "red", 22, 60, 50, 150, 85),
        Ball("square", "cyan", 20, 190, 110, -95, 125),
    )
    return Scene(256, 160, 6.0, balls, Background(3, "grey"))


@pytest.fixture(scope="module")
def frames(scene) -> np.ndarray:
    return render_scene(scene, times=np.arange(round(scene.seconds * FPS)) / FPS)


@pytest.mark.parametrize("late", [-0.3, -0.2, 0.0, 0.2, 0.3])
def test_planted_shift(tmp_path, scene, frames, late):
    path = tmp_path / "clip.mp4"
    sound = shifted(scene_audio(scene, RATE), round(late * RATE))
    write_video(path, frames, fps=FPS, audio=sound, audio_rate=RATE)
    facts = found(clip_of(path))
    assert facts["event_offset"] == pytest.approx(late, abs=0.045)
    assert facts["event_shift"] == pytest.approx(abs(late), abs=0.045)
    keeps = EventSync().max_shift.holds(np.array([facts["event_shift"]]))[0]
    assert keeps == (late == 0)


def test_a_still_picture_has_no_offset(tmp_path, scene, frames):
    path = tmp_path / "still.mp4"
    still = np.repeat(frames[:1], len(frames), axis=0)
    write_video(path, still, fps=FPS, audio=scene_audio(scene, RATE), audio_rate=RATE)
    assert isinstance(found(clip_of(path))["event_shift"], NotApplicable)


def test_the_sound_of_other_things_gives_no_verdict(tmp_path, frames):
    """Clicks at random times that nothing in the picture makes."""
    rng = np.random.default_rng(5)
    sound = noise(6, RATE, 0.002)
    for second in rng.uniform(0.2, 5.7, 9):
        at = round(second * RATE)
        sound[:, at : at + 4_800] += tone(0.1, RATE, 900, 0.5)[:1]
    path = tmp_path / "other.mp4"
    write_video(path, frames, fps=FPS, audio=sound, audio_rate=RATE)
    shift = found(clip_of(path))["event_shift"]
    assert isinstance(shift, NotApplicable)


@dataclass
class Untouched:
    """A clip that must not be decoded."""

    facts: Facts

    clip = None
    info = info_of(np.zeros((1, 16_000)), 16_000)

    def audio(self, rate: int) -> np.ndarray:
        raise AssertionError("no sound is needed")

    def frames(self, fps: float, height: int) -> np.ndarray:
        raise AssertionError("no picture is needed")


@pytest.mark.parametrize("speech", [0.51, 1.0, NotApplicable("no sound")])
def test_speech_and_mute_clips_cost_nothing(speech):
    facts = found(Untouched({"speech_ratio": speech}))
    assert {type(value) for value in facts.values()} == {NotApplicable}


def test_few_onsets_are_not_applicable_and_ask_for_no_picture():
    class Quiet(Untouched):
        def audio(self, rate: int) -> np.ndarray:
            return noise(5, rate, 1e-4)[0]

    assert isinstance(found(Quiet(NOT_SPEECH))["event_offset"], NotApplicable)


def test_onsets_where_they_were_planted():
    sound = noise(4, 16_000, 0.001)[0]
    planted = [0.5, 1.3, 2.0, 3.1]
    for second in planted:
        at = round(second * 16_000)
        sound[at : at + 8_000] += (
            tone(0.5, 16_000, 500, 0.5)[0] * np.exp(-np.arange(8_000) / 1_000)
        )[: len(sound) - at]
    seconds, strengths = onsets(sound)
    loud = seconds[strengths > 0.5 * strengths.max()]
    assert loud == pytest.approx(planted, abs=0.025)


def test_a_drifting_picture_turns_nowhere():
    """A moving camera moves all of it."""
    rng = np.random.default_rng(0)
    wide = np.repeat(rng.integers(0, 255, (96, 400), np.uint8)[..., None], 3, axis=2)
    drift = np.stack([wide[:, 2 * i : 2 * i + 160] for i in range(40)])
    _, sizes = turns(drift, 25)
    assert np.median(sizes) < 5


@settings(max_examples=20, deadline=None)
@given(st.integers(-25, 25), st.integers(0, 50))
def test_agreement_peaks_at_the_planted_lag(steps, seed):
    rng = np.random.default_rng(seed)
    seconds = np.arange(0, 10, 0.04)
    sizes = rng.random(len(seconds))
    at = rng.choice(np.arange(30, 220), 8, replace=False)
    sizes[at] += 20
    lags = np.arange(-30, 31) * 0.02
    heard = (seconds[at] + steps * 0.02, np.full(8, 9.0))
    scores = agreement(heard, (seconds, sizes), lags)
    assert abs(lags[scores.argmax()] - steps * 0.02) < 0.021


def test_bound_on_both_sides():
    assert EventSync().max_shift.holds(np.array([0.12, 0.121, np.nan])).tolist() == [1, 0, 1]


@pytest.mark.media
def test_real_clips_in_sync_are_never_called_shifted(media):
    stage = EventSync(max_speech=1.0)
    for name in (
        "general/vggsound_tennis_360p.mp4",
        "general/smpte_ticks_10s.mp4",
        "talking/real3d_may_5s.mp4",
        "talking/retalking_face2.mp4",
    ):
        shift = found(clip_of(media / name), stage)["event_shift"]
        assert isinstance(shift, NotApplicable) or shift <= 0.12, name
