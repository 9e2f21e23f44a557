"""Faces: how many people, over made-up looks and real clips."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from tests.curation.lips.clips import NoWeights, Unopened, clip_of, measured
from tests.curation.lips.test_track import face, looks
from tests.media import noise_video

from reelmill.curation.lips.faces import Faces
from reelmill.curation.models.weights import Weights
from reelmill.curation.models.yunet import FILE, YuNet
from reelmill.curation.stage import NotApplicable, NotMeasured
from reelmill.datasets.media.decode import clip_frames
from reelmill.errors import WeightsError

SINGLE = """talking/lrs3_ted_00018.mp4 talking/latentsync_demo1_woman.mp4
    talking/retalking_face1.mp4 talking/retalking_face2.mp4 talking/retalking_face4.mp4
    talking/retalking_face5.mp4 talking/real3d_may_5s.mp4 talking/mmaction_makeup_speech.avi
    talking/wan_animate_woman_speech.mp4 talking/liveportrait_d18_silent_face.mp4
    general/dj_video5_woman_dress.mp4"""
MULTI = """talking/ovi_kitchen_generated.mp4 talking/ovi_stage_generated.mp4
    talking/ovi_twomen_generated.mp4 talking/panda_pressconf.mp4 general/panda_romans.mp4"""
NONE = """general/panda_whales.mp4 general/dover_beads_logo.mp4 general/cotracker_cat.mp4
    general/panda_carscreen.mp4 general/smpte_ticks_10s.mp4 general/cotracker_bear.mp4
    general/panda_craft_logo.mp4 general/fmt_1x1.mp4 general/panda_cake_static.mp4"""


def judged(*rows) -> dict:
    return dict(Faces().judge(looks(*rows), 640, 360, 2.0))


def test_nobody():
    found = judged([], [], [])
    assert (found["faces"], found["people"], found["face_share"]) == (0, "none", 0)
    assert isinstance(found["face_size"], NotApplicable)
    assert isinstance(found["face_boxes"], NotApplicable)


def test_one_two_and_three_people():
    one, two, three = face(100, 100, 60), face(300, 100, 60), face(500, 100, 60)
    assert judged([one], [one])["people"] == "single"
    found = judged([one, two, three], [three, one, two])
    assert (found["faces"], found["people"]) == (3, "multi")
    assert found["face_size"] == pytest.approx(60 / 360)


def test_what_looks_like_a_face_once_is_none_unless_it_is_clear():
    assert judged([], [face(100, 100, 60, 0.7)], [])["faces"] == 0
    assert judged([], [face(100, 100, 60, 0.8)], [])["faces"] == 1
    assert judged([face(100, 100, 60, 0.7)])["faces"] == 1  # a clip of one look


def test_who_is_there_for_a_tenth_of_the_looks_counts():
    here, rest = [face(100, 100, 60)], [[] for _ in range(18)]
    assert judged(here, here, *rest)["faces"] == 1
    assert judged(here, here, *rest, [])["faces"] == 0
    assert judged(here, here, *rest, [])["face_share"] > 0


def test_boxes_are_those_of_the_look_nearest_to_the_poster():
    rows = [[face(64 * i + 64, 90, 36)] for i in range(8)]
    left, top, right, bottom = map(float, judged(*rows)["face_boxes"].split())
    at = 64 * 3 + 64  # a third of 4 s is 1.33 s, the look at 1.5 s
    assert (left, right) == pytest.approx(((at - 18) / 640, (at + 18) / 640), abs=1e-3)
    assert (top, bottom) == pytest.approx((72 / 360, 108 / 360), abs=1e-3)


def test_a_long_clip_is_looked_at_less_often(tmp_path):
    class Long(Unopened):
        def frames(self, fps, height):
            asked.append(fps)
            return np.zeros((3, height, 64, 3), np.uint8)

    asked: list[float] = []
    media = clip_of(noise_video(tmp_path / "a.mp4", seconds=2))
    hour = replace(media.clip, end_pts=media.clip.start_pts + round(3600 / media.clip.time_base))
    stage = Faces()
    for clip in (media.clip, hour):
        stage._facts(Long({}, media.info, clip), lambda rgb: np.zeros((0, 5), np.float32))
    assert asked == [2.0, pytest.approx(240 / 3600)]


def test_without_weights_nothing_is_opened_or_measured():
    (found,) = measured(Faces(), NoWeights(), Unopened({}))
    assert {type(value) for value in found.values()} == {NotMeasured}


def test_weights_that_are_no_detector_are_named(tmp_path):
    (tmp_path / FILE).write_bytes(b"no network")
    with pytest.raises(WeightsError, match=FILE):
        YuNet(tmp_path)


@pytest.mark.media
def test_boxes_are_those_of_opencv(media, weights):
    find = YuNet(weights / "face_yunet")
    theirs = cv2.FaceDetectorYN.create(str(weights / "face_yunet" / FILE), "", (320, 320), 0.6, 0.3)
    compared = 0
    for name in ("talking/ovi_stage_generated.mp4", "talking/panda_pressconf.mp4"):
        clip = clip_of(media / name)
        for picture in clip_frames(clip.path, clip.info, clip.clip, 1, 341):
            theirs.setInputSize(picture.shape[1::-1])
            _, rows = theirs.detect(np.ascontiguousarray(picture[..., ::-1]))
            mine = find(picture)
            wanted = np.concatenate([rows[:, :2], rows[:, :2] + rows[:, 2:4], rows[:, 14:]], axis=1)
            wanted = wanted[np.argsort(-wanted[:, 4])]
            assert mine == pytest.approx(wanted, abs=0.05)
            compared += len(mine)
    assert compared > 25


@pytest.mark.media
@pytest.mark.slow
@pytest.mark.parametrize(
    ("people", "names"), [("single", SINGLE), ("multi", MULTI), ("none", NONE)]
)
def test_real_clips(media, weights, people, names):
    clips = [clip_of(media / name) for name in names.split()]
    found = measured(Faces(), Weights(weights), *clips)
    assert [facts["people"] for facts in found] == [people] * len(found)
