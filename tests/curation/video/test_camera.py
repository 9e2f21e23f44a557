"""Camera: known moves over a still texture and over real footage."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from tests.curation.video.planting import footage
from tests.frames import broken, measured

from reelmill.curation.stage import NotApplicable
from reelmill.curation.video.camera import Camera
from reelmill.curation.video.coded_motion import CodedMotion
from reelmill.curation.video.motion import Motion
from reelmill.datasets.media.encode import write_video

FPS = 24
SIZE = (320, 180)


def texture(size, seed=0):
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (size[1] // 12, size[0] // 12, 3), dtype=np.uint8)
    return cv2.resize(small, size, interpolation=cv2.INTER_CUBIC)


def filmed(path, *, right=0.0, up=0.0, into=0.0, clockwise=0.0, shake=0.0, still=None, count=60):
    """A camera over a large still. right, up: widths per second; into: factor e per second;
    clockwise: radians per second; shake: standard deviation of the place, in widths."""
    width, height = SIZE
    big = texture((4 * width, 4 * height)) if still is None else still
    rng = np.random.default_rng(1)
    centre = np.array([big.shape[1] / 2, big.shape[0] / 2])
    frames = []
    for i in range(count):
        t = i / FPS
        place = centre + np.array([right, -up]) * width * t + rng.normal(0, 1, 2) * shake * width
        turn, scale = -clockwise * t, np.exp(into * t)
        a = scale * np.cos(turn), scale * np.sin(turn)
        matrix = np.array([[a[0], -a[1], 0], [a[1], a[0], 0]])
        matrix[:, 2] = np.array(SIZE) / 2 - matrix[:, :2] @ place
        frames.append(cv2.warpAffine(big, matrix, SIZE, flags=cv2.INTER_LINEAR))
    write_video(path, np.stack(frames), fps=FPS)
    return measured(Camera(), path)


@pytest.mark.parametrize(
    ("move", "name", "fact", "value"),
    [
        ({"right": 0.2}, "pan_right", "pan", 0.2),
        ({"right": -0.1}, "pan_left", "pan", -0.1),
        ({"up": 0.15}, "tilt_up", "tilt", 0.15),
        ({"up": -0.15}, "tilt_down", "tilt", -0.15),
        ({"into": 0.2}, "zoom_in", "zoom", 0.1),
        ({"into": -0.2}, "zoom_out", "zoom", -0.1),
        ({"clockwise": 0.3}, "roll_cw", "roll", 0.15),
        ({"clockwise": -0.3}, "roll_ccw", "roll", -0.15),
    ],
)
def test_a_known_move_is_named_and_its_speed_told(tmp_path, move, name, fact, value):
    found = filmed(tmp_path / "a.mp4", **move)
    assert found.facts["camera"] == name
    assert found.facts[fact] == pytest.approx(value, rel=0.1)
    others = {"pan", "tilt", "zoom", "roll"} - {fact}
    assert all(abs(found.facts[other]) < 0.02 for other in others)
    assert found.facts["camera_speed"] == pytest.approx(abs(value), rel=0.15)
    assert found.facts["camera_shake"] < 0.02
    assert not broken(found.stage, found.facts)


def test_a_tripod_is_static(tmp_path):
    facts = filmed(tmp_path / "a.mp4").facts
    assert facts["camera"] == "static"
    assert facts["camera_speed"] < 0.002


def test_shake_grows_with_the_hand_and_has_a_bound(tmp_path):
    found = [filmed(tmp_path / "a.mp4", shake=shake) for shake in (0.0, 0.01, 0.05)]
    shakes = [one.facts["camera_shake"] for one in found]
    assert shakes == sorted(shakes)
    assert found[1].facts["camera"] == found[2].facts["camera"] == "unsteady"
    assert broken(found[2].stage, found[2].facts) == ["shaky"]


def test_bounds_on_both_sides(tmp_path):
    found = filmed(tmp_path / "a.mp4", right=0.2)
    at = found.facts["camera_speed"]
    for name, beyond, reason in (
        ("min_camera_speed", 1.001, "static_camera"),
        ("max_camera_speed", 0.999, "camera_too_fast"),
    ):
        assert not broken(found.stage.with_field(name, at), found.facts)
        assert broken(found.stage.with_field(name, at * beyond), found.facts) == [reason]


def test_one_who_walks_through_does_not_move_the_camera(tmp_path):
    big = texture((SIZE[0], SIZE[1]))
    walker = texture((60, 120), seed=5)
    frames = np.repeat(big[None], 48, axis=0)
    for i, frame in enumerate(frames):
        frame[40:160, 10 + 4 * i : 70 + 4 * i] = walker[:, : max(0, SIZE[0] - 10 - 4 * i)]
    write_video(tmp_path / "a.mp4", frames, fps=FPS)
    facts = measured(Camera(), tmp_path / "a.mp4").facts
    assert facts["camera"] == "static"


def test_clips_have_their_own_moves(tmp_path):
    found = filmed(tmp_path / "a.mp4", right=0.2, count=96)
    early = replace(found.whole, end_frame=3)
    assert isinstance(found.stage.facts(found.tracks, early, found.info)["camera"], NotApplicable)
    late = replace(found.whole, start_frame=48)
    assert found.stage.facts(found.tracks, late, found.info)["camera"] == "pan_right"


def test_a_flat_picture_tells_nothing(tmp_path):
    write_video(tmp_path / "a.mp4", np.full((48, 90, 160, 3), 128, np.uint8), fps=FPS)
    assert isinstance(measured(Camera(), tmp_path / "a.mp4").facts["camera"], NotApplicable)


@pytest.mark.parametrize(
    ("stage", "fact"),
    [
        (Motion(), "motion"),
        (CodedMotion(), "coded_motion"),
        (Camera(), "camera_speed"),
        (Camera(), "camera_shake"),
    ],
)
def test_motion_is_bounded_on_both_sides(stage, fact):
    low, high = (
        next(n for n, b in stage.bounds().items() if b.fact == fact and b.op == op)
        for op in (">=", "<=")
    )
    bounded = stage.with_field(low, 0.1).with_field(high, 0.2)
    assert [len(broken(bounded, {fact: value})) for value in (0.05, 0.15, 0.25)] == [1, 0, 1]
    assert broken(bounded, {fact: 0.05}) != broken(bounded, {fact: 0.25})


@pytest.mark.media
@pytest.mark.parametrize("into", [0.15, -0.15])
def test_a_zoom_over_a_real_picture(media, tmp_path, into):
    (still,) = footage(media / "general/panda_romans.mp4", width=640, frames=1)
    big = cv2.resize(still, (1280, 720), interpolation=cv2.INTER_CUBIC)
    facts = filmed(tmp_path / "a.mp4", into=into, still=big).facts
    assert facts["camera"] == ("zoom_in" if into > 0 else "zoom_out")
    assert facts["zoom"] == pytest.approx(into / 2, rel=0.15)


@pytest.mark.media
@pytest.mark.parametrize(
    ("name", "camera"),
    [
        ("general/intel_bottles_static.mp4", "static"),  # MEDIA.md: fixed camera
        ("general/chaplin_pillarbox.mp4", "static"),
        ("general/tmk_chair_orig.mp4", "unsteady"),  # MEDIA.md: filmed hand-held
        ("general/cotracker_bear.mp4", "pan_left"),  # follows the bear
    ],
)
def test_real_cameras(media, name, camera):
    assert measured(Camera(), media / name).facts["camera"] == camera
