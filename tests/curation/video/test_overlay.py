"""Overlay: marks planted over real and made footage, and real clips with and without marks."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from tests.curation.video.planting import blended, footage, iou
from tests.frames import broken, measured, moving

from reelmill.curation.media_table import summary_tracks, whole_clip
from reelmill.curation.stage import NotApplicable
from reelmill.curation.video.overlay import Overlay
from reelmill.curation.video.shots import Shots
from reelmill.datasets.media.decode import decode, probe
from reelmill.datasets.media.encode import write_video


def box(facts):
    return tuple(facts[f"overlay_{side}"] for side in "xywh")


def mark(width=120, height=48):
    """A bright plate with dark letters."""
    plate = np.full((height, width, 3), 235, np.uint8)
    cv2.putText(plate, "MARK", (8, height - 12), 0, width / 100, (20, 20, 60), 3)
    return plate


def marked(path, frames, x, y, alpha=1.0, what=None):
    write_video(path, blended(frames, mark() if what is None else what, x, y, alpha), fps=25)
    return measured(Overlay(), path)


@pytest.mark.parametrize(("x", "y"), [(500, 16), (20, 16), (500, 296), (20, 296), (260, 160)])
def test_box_of_a_mark_over_a_made_scene(tmp_path, x, y):
    found = marked(tmp_path / "a.mp4", moving(75, (360, 640), step=4), x, y)
    assert found.facts["overlays"] == 1
    assert iou(box(found.facts), (x, y, 120, 48)) >= 0.7
    assert found.facts["overlay_share"] == pytest.approx(120 * 48 / (640 * 360), rel=0.3)
    assert broken(found.stage, found.facts) == ["overlay"]


def test_a_moving_scene_without_a_mark_has_none(tmp_path):
    write_video(tmp_path / "a.mp4", moving(75, (360, 640), step=4), fps=25)
    clean = measured(Overlay(), tmp_path / "a.mp4")
    assert (clean.facts["overlay_share"], clean.facts["overlays"]) == (0.0, 0)
    assert isinstance(clean.facts["overlay_x"], NotApplicable)
    assert not broken(clean.stage, clean.facts)


def test_a_mark_that_moves_with_the_scene_is_part_of_it(tmp_path):
    frames = moving(75, (360, 640), step=4)
    for i, frame in enumerate(frames):
        frame[100:148, 10 + 4 * i : 130 + 4 * i] = mark()
    write_video(tmp_path / "a.mp4", frames, fps=25)
    assert measured(Overlay(), tmp_path / "a.mp4").facts["overlays"] == 0


def test_a_still_scene_tells_nothing(tmp_path):
    still = np.repeat(moving(1, (360, 640)), 75, axis=0)
    still[:, 160:200, 200:240] = 255
    facts = marked(tmp_path / "a.mp4", still, 20, 16).facts
    assert all(isinstance(value, NotApplicable) for value in facts.values())


def test_a_logo_over_still_shots_is_seen_across_their_cut(tmp_path):
    textures = np.random.default_rng(0).integers(0, 256, (6, 45, 80, 3), dtype=np.uint8)
    stills = [cv2.resize(t, (640, 360), interpolation=cv2.INTER_CUBIC) for t in textures]
    found = marked(tmp_path / "a.mp4", np.repeat(stills, 60, axis=0), 500, 16)
    clip = replace(found.whole, start_frame=60, end_frame=120)
    facts = found.stage.facts(found.tracks, clip, found.info)
    assert iou(box(facts), (500, 16, 120, 48)) >= 0.7
    alone = {k: v for k, v in found.tracks.items() if k not in ("frame", "seconds", "end")}
    here = (found.tracks["frame"] >= 60) & (found.tracks["frame"] < 120)
    first = int(np.flatnonzero(here)[0])
    offset = int(found.tracks["end"][first - 1])
    alone |= {name: found.tracks[name][here] for name in ("frame", "seconds")}
    alone |= {"end": found.tracks["end"][here] - offset, "edges": found.tracks["edges"][offset:]}
    assert isinstance(found.stage.facts(alone, clip, found.info)["overlays"], NotApplicable)


def test_bars_are_no_overlay(tmp_path):
    frames = moving(75, (360, 640), step=4)
    frames[:, :50], frames[:, 310:] = 0, 0
    write_video(tmp_path / "a.mp4", frames, fps=25)
    assert measured(Overlay(), tmp_path / "a.mp4").facts["overlays"] == 0


def test_too_few_frames(tmp_path):
    write_video(tmp_path / "a.mp4", moving(20, (90, 160)), fps=25)
    assert isinstance(measured(Overlay(), tmp_path / "a.mp4").facts["overlays"], NotApplicable)


MOVING = (
    "general/panda_soccer_50fps.mp4",
    "general/cotracker_bear.mp4",
    "general/panda_fish.mp4",
    "talking/panda_carshow_hosts.mp4",
    "general/panda_romans.mp4",
)


@pytest.mark.media
@pytest.mark.parametrize("alpha", [0.4, 1.0])
@pytest.mark.parametrize("name", MOVING)
def test_planted_marks_over_real_footage(media, tmp_path, name, alpha):
    frames = footage(media / name, width=640, frames=75)
    x, y = frames.shape[2] - 140, 16
    found = marked(tmp_path / "a.mp4", frames, x, y, alpha)
    assert iou(box(found.facts), (x, y, 120, 48)) >= 0.7
    assert broken(found.stage, found.facts) == ["overlay"]


def of_clips(path):
    """Facts of every clip of a file that is long enough."""
    info = probe(path)
    stages = (Shots(), Overlay())
    analysers = [stage.open(info) for stage in stages]
    summary = decode(path, info, lambda frame: [a.frame(frame) for a in analysers])
    shots, edges = (analyser.finish(summary) for analyser in analysers)
    whole = whole_clip("a" * 64, info, summary_tracks(summary))
    clips = stages[0].segment(shots, whole, info)
    return [stages[1].facts(edges, clip, info) for clip in clips if clip.seconds >= 2]


TRUE_MARKS = {  # MEDIA.md; boxes as seen in the full pictures
    "general/dover_beads_logo.mp4": (28, 624, 500, 74),
    "general/panda_news_logo.mp4": (512, 285, 80, 45),
    "general/tmk_chair_smalllogo.mp4": (342, 86, 48, 54),
    "multishot/facerec_hamilton.mp4": (572, 18, 32, 32),
    "general/panda_fish.mp4": (45, 38, 90, 30),  # MEDIA.md has it without, but the mark is there
}


@pytest.mark.media
@pytest.mark.parametrize("name", TRUE_MARKS)
def test_real_logos(media, name):
    for facts in of_clips(media / name):
        assert facts["overlay_share"] > 0
        assert iou(box(facts), TRUE_MARKS[name]) >= 0.7


@pytest.mark.media
@pytest.mark.parametrize(
    "name",
    [  # MEDIA.md: no watermark; and moving clips seen to have none
        "talking/retalking_face1.mp4",
        "talking/retalking_face5.mp4",
        "talking/real3d_may_5s.mp4",
        "multishot/skv_bikes.mp4",
        "general/vggsound_tennis_360p.mp4",
        "general/tmk_chair_orig.mp4",
        "general/sam2_dog_silent.mp4",
        "general/cotracker_bear.mp4",
        "general/cotracker_cat.mp4",
        "general/panda_plane_cgi.mp4",
        "general/panda_cake_static.mp4",
        "general/decord_pancake.mkv",
        "multishot/panda_wine_dissolve.mp4",
    ],
)
def test_no_false_alarm_on_clean_clips(media, name):
    for facts in of_clips(media / name):
        share = facts["overlay_share"]
        assert isinstance(share, NotApplicable) or share == 0
