"""Shots: planted cuts, the same answer as PySceneDetect itself, and the real clips' known cuts."""

from __future__ import annotations

import itertools
from fractions import Fraction

import numpy as np
import pytest
from scenedetect.common import FrameTimecode
from scenedetect.detectors import (
    AdaptiveDetector,
    ContentDetector,
    HashDetector,
    HistogramDetector,
    ThresholdDetector,
)
from tests.frames import broken, joined, measured, moving

from reelmill.curation.stage import NotApplicable
from reelmill.curation.video.shots import THRESHOLDS, Shots
from reelmill.datasets.media.decode import decode_frames, probe
from reelmill.datasets.media.encode import write_video
from reelmill.errors import OverrideError

PEERS = {
    "content": ContentDetector,
    "adaptive": AdaptiveDetector,
    "hash": HashDetector,
    "histogram": HistogramDetector,
    "threshold": ThresholdDetector,
}


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    """Four shots of 30, 14, 40 and 56 frames at 25 fps; the third fades to black and back."""
    path = tmp_path_factory.mktemp("shots") / "film.mp4"
    shots = [moving(n, seed=10 + i, step=1) for i, n in enumerate((30, 14, 40, 56))]
    dip = np.abs(np.linspace(-1, 1, 40))[:, None, None, None]
    shots[2] = (shots[2] * dip).astype(np.uint8)
    write_video(path, joined(shots), fps=25)
    return path


def starts(clips):
    return [clip.start_frame for clip in clips][1:]


def test_finds_planted_cuts_to_the_frame(film):
    shots = measured(Shots(), film)
    assert shots.stage.cuts(shots.tracks, shots.info) == [30, 44, 84]
    clips = shots.clips()
    assert starts(clips) == [30, 44, 84]
    assert [c.end_frame - c.start_frame for c in clips] == [30, 14, 40, 56]
    assert all(a.end_pts == b.start_pts for a, b in itertools.pairwise(clips))
    assert clips[0].start_pts == shots.whole.start_pts
    assert clips[-1].end_pts == shots.whole.end_pts


@pytest.mark.parametrize("name", PEERS)
@pytest.mark.parametrize("shortest", [0.0, 0.6])
def test_replay_equals_the_detector_on_the_same_frames(film, name, shortest):
    """Scores stored once and replayed cut where PySceneDetect cuts when it sees the pictures."""
    info = probe(film)
    detector = PEERS[name](min_scene_len=shortest)
    theirs = [
        cut.frame_num
        for frame in decode_frames(film, info)
        for cut in detector.process_frame(FrameTimecode(frame.index, fps=25.0), frame.bgr)
    ]
    stage = Shots(detector=name).with_field("min_shot_seconds", shortest)
    if name == "adaptive":
        stage = stage.with_field("threshold", 3.0)
    ours = measured(stage, film)
    assert ours.stage.cuts(ours.tracks, ours.info) == theirs
    assert name == "hash" or theirs


def test_content_score_is_that_of_pyscenedetect(film):
    detector = ContentDetector()
    info = probe(film)
    theirs = [
        detector._calculate_frame_score(FrameTimecode(f.index, fps=25.0), f.bgr)
        for f in decode_frames(film, info)
    ]
    np.testing.assert_allclose(measured(Shots(), film).tracks["score"], theirs, rtol=1e-12)


def test_other_thresholds_need_no_new_decode(film):
    shots = measured(Shots(), film)
    assert starts(shots.clips(min_shot_seconds=1.0)) == [30, 84]
    assert starts(shots.clips(threshold=250)) == []
    content = measured(Shots(detector="content"), film)
    assert set(starts(content.clips())) >= {30, 44, 84}
    assert set(starts(content.clips(threshold=45))) <= set(starts(content.clips()))
    assert Shots().measuring() == Shots().with_field("threshold", 9).measuring()


def test_variable_frame_rate_cuts_are_on_the_pts_grid(tmp_path):
    path = tmp_path / "vfr.mkv"
    gaps = np.random.default_rng(3).choice([20, 33, 50, 80], size=80)
    pts = np.concatenate([[0], np.cumsum(gaps)[:-1]]).tolist()
    write_video(
        path,
        joined([moving(50, seed=1, step=1), moving(30, seed=2, step=1)]),
        pts=pts,
        time_base=Fraction(1, 1000),
    )
    first, second = measured(Shots(), path).clips()
    assert (first.end_frame, second.start_frame) == (50, 50)
    assert float((second.start_pts - first.start_pts) * first.time_base) == pts[50] / 1000


def test_short_shots_are_clips_and_rejected_by_name(film):
    shots = measured(Shots(), film)
    facts = [shots.stage.facts(shots.tracks, clip, shots.info) for clip in shots.clips()]
    assert [broken(shots.stage, f) for f in facts] == [["too_short"]] * 3 + [[]]
    assert facts[3]["seconds"] == pytest.approx(56 / 25)
    exact = shots.stage.with_field("min_seconds", 56 / 25)
    assert not broken(exact, facts[3])
    assert broken(exact.with_field("min_seconds", 56 / 25 + 1e-6), facts[3]) == ["too_short"]


def test_long_shots_are_split_into_equal_parts(film):
    shots = measured(Shots(), film)
    parts = shots.clips(max_seconds=1.0)
    assert max(clip.seconds for clip in parts) <= 1.0 + 1e-9
    assert parts[0].start_frame == 0
    assert all(a.end_frame == b.start_frame for a, b in itertools.pairwise(parts))
    lengths = [c.end_frame - c.start_frame for c in parts if c.start_frame >= 84]
    assert len(lengths) == 3
    assert max(lengths) - min(lengths) <= 1
    assert shots.clips(max_seconds=None) == shots.clips()


def test_trim_leaves_frames_out_at_cuts_only(film):
    clips = measured(Shots(), film).clips(trim=2)
    spans = [(c.start_frame, c.end_frame) for c in clips]
    assert spans == [(0, 28), (32, 42), (46, 82), (86, 140)]


def test_inner_change_tells_of_a_cut_not_made(film):
    shots = measured(Shots(), film)
    (whole,) = shots.clips(threshold=255)
    facts = shots.stage.facts(shots.tracks, whole, shots.info)
    assert facts["inner_change"] == pytest.approx(shots.tracks["score"].max())
    assert facts["inner_change"] > THRESHOLDS["content"]
    assert broken(shots.stage.with_field("max_inner_change", 27), facts) == ["cut_inside"]
    calm = shots.stage.facts(shots.tracks, shots.clips()[3], shots.info)
    assert calm["inner_change"] < 27


def test_one_frame_is_one_clip(tmp_path):
    write_video(tmp_path / "one.mp4", moving(1), fps=25)
    shots = measured(Shots(), tmp_path / "one.mp4")
    assert shots.clips() == [shots.whole]
    assert isinstance(shots.facts["inner_change"], NotApplicable)


def test_unknown_detector_is_refused():
    from reelmill.curation.recipe import set_field

    with pytest.raises(ValueError, match="content, adaptive"):
        Shots(detector="transnet")
    with pytest.raises(OverrideError, match="content, adaptive"):
        set_field(Shots(), "detector", "transnet")


KNOWN = {  # MEDIA.md: first frames of new shots
    "multishot/psd_testvideo.mp4": [30, 180, 394],
    "multishot/psd_counter.mp4": [10, 20],
    "multishot/psd_fades.mp4": [],
    "multishot/psd_delayed_start.mp4": [],
    "multishot/skv_bikes.mp4": [30, 76, 137, 187, 242],
    "multishot/dj_video1_cartoon_logo.mp4": [144, 237],
    "multishot/bbb_480p_30s.mp4": [285, 378, 553],
    "multishot/bbb_360p_10s_excerpt.mp4": [44, 137],
    "multishot/vsr_subtitles_bw.mp4": [42, 90, 134, 191, 229],
    "multishot/facerec_hamilton.mp4": [20, 82, 211],
    "multishot/panda_kneading_jumpcuts.mp4": [8, 29, 41, 51, 67, 80, 93, 109],
    "multishot/panda_wine_dissolve.mp4": [],
    "general/dover_fireworks.mp4": [],
    "general/tmk_chair_orig.mp4": [],
}


@pytest.mark.media
@pytest.mark.parametrize("name", KNOWN)
def test_cuts_of_the_real_clips(media, name):
    shots = measured(Shots(), media / name)
    assert shots.stage.cuts(shots.tracks, shots.info) == KNOWN[name]


@pytest.mark.media
@pytest.mark.parametrize(
    ("detector", "threshold", "cuts"),
    [
        ("content", None, [30, 180, 394]),
        ("adaptive", 3.0, [30, 180, 394, 691]),
        ("threshold", None, [15, 198, 377]),
    ],
)
def test_goldens_of_pyscenedetect(media, detector, threshold, cuts):
    """Upstream's expected cuts of its own test video, at its minimum of 15 frames."""
    stage = Shots(detector=detector).with_field("min_shot_seconds", 0.5)
    shots = measured(
        stage.with_field("threshold", threshold), media / "multishot/psd_testvideo.mp4"
    )
    assert shots.stage.cuts(shots.tracks, shots.info) == cuts
