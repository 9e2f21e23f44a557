"""Talking: routes by facts, and who talks in real clips."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.curation.lips.clips import NoWeights, Unopened, clip_of, measured

from reelmill.curation.lips.crops import crops, grey_middles
from reelmill.curation.lips.talking import Talking, voiced_frames
from reelmill.curation.models.light_asd import FILE, LightASD
from reelmill.curation.models.weights import Weights
from reelmill.curation.stage import NotApplicable, NotMeasured
from reelmill.errors import WeightsError

ON_SCREEN = """talking/real3d_may_5s.mp4 talking/retalking_face5.mp4
    talking/wan_animate_woman_speech.mp4 talking/mmaction_makeup_speech.avi
    talking/ovi_kitchen_generated.mp4 talking/ovi_stage_generated.mp4
    talking/ovi_twomen_generated.mp4"""
SPEECH = {"people": "single", "speech_ratio": 0.5, "sound_class": "speech"}


def routed(**facts: object) -> dict:
    return dict(measured(Talking(), NoWeights(), Unopened(SPEECH | facts))[0])  # type: ignore[arg-type]


def test_a_clip_without_people_is_background_and_its_voice_off_screen():
    found = routed(people="none")
    assert (found["route"], found["voice"]) == ("background", "off_screen")
    assert isinstance(found["talking_share"], NotApplicable)


def test_a_clip_without_people_or_voice_is_background_too():
    found = routed(people="none", speech_ratio=0.0, sound_class="music")
    assert found["route"] == "background"
    assert isinstance(found["voice"], NotApplicable)


def test_people_without_a_voice_are_a_scene():
    found = routed(speech_ratio=0.0, sound_class="effects")
    assert found["route"] == "scene"
    assert isinstance(found["voice"], NotApplicable)


def test_without_sound_there_is_no_route():
    found = routed(speech_ratio=NotApplicable("no sound"))
    assert {type(value) for value in found.values()} == {NotApplicable}


@pytest.mark.parametrize("facts", [{}, {"speech_ratio": 0.0, "sound_class": "singing"}])
def test_a_voice_and_people_need_the_network(facts):
    found = routed(**facts)
    assert {type(value) for value in found.values()} == {NotMeasured}
    assert "light_asd" in found["route"].why


def test_people_that_were_not_counted_leave_the_route_open():
    assert isinstance(routed(people=NotMeasured("absent"))["route"], NotMeasured)


def test_crops_hold_a_moving_face_still_and_are_grey_beyond_the_edge():
    frames = np.zeros((5, 200, 300, 3), np.uint8)
    boxes = np.array([[20.0 + 9 * i, 40, 70 + 9 * i, 90] for i in range(5)])
    for frame, (left, top, right, bottom) in zip(frames, boxes.astype(int), strict=True):
        frame[top:bottom, left:right] = (200, 100, 50)
    cut = crops(frames, boxes)
    assert cut.shape == (5, 224, 224, 3)
    assert np.abs(cut[1:].astype(int) - cut[1]).max() <= 2
    # 1.4 times the face wide, the face at its upper edge and in its middle
    inside = cut[2, :, :, 0] > 150
    ys, xs = np.nonzero(inside)
    assert (ys.min(), ys.max()) == pytest.approx((0, 160), abs=2)
    assert (xs.min(), xs.max()) == pytest.approx((32, 191), abs=2)
    edge = crops(frames[:1], np.array([[-40.0, -10, 30, 60]]))[0]
    assert (edge[0, 0] == 110).all()
    assert grey_middles(cut).shape == (5, 112, 112)


def test_frames_with_speech_are_those_of_the_vad():
    assert voiced_frames(np.zeros(16_000, np.float32), 25).all()  # singing need not be speech


def test_strange_weights_are_refused(tmp_path):
    torch.save({"model.visualEncoder.block1.s_3.weight": torch.zeros(1)}, tmp_path / FILE)
    with pytest.raises(WeightsError, match="Light-ASD"):
        LightASD(tmp_path)


@pytest.mark.media
def test_published_weights_load_strictly(weights):
    network = LightASD(weights / "light_asd")
    assert sum(p.numel() for p in network.model.parameters()) == pytest.approx(1.0e6, rel=0.05)
    assert (
        network.score(np.zeros((4, 112, 112), np.uint8), np.zeros(100, np.float32)).tolist()
        == [0] * 4
    )


@pytest.mark.media
@pytest.mark.slow
def test_who_talks_in_real_clips(media, weights):
    clips = [clip_of(media / name, **SPEECH) for name in ON_SCREEN.split()]
    found = measured(Talking(), Weights(weights), *clips)
    assert [f["route"] for f in found] == ["lips"] * len(clips)
    assert min(f["talking_share"] for f in found) >= 0.98
    assert [f["talkers"] for f in found] == [1] * len(clips)  # also where two or three are seen


@pytest.mark.media
@pytest.mark.slow
def test_a_narrated_clip_with_faces_is_a_voice_over(media, weights):
    clip = clip_of(media / "general/panda_romans.mp4", **(SPEECH | {"people": "multi"}))
    (found,) = measured(Talking(), Weights(weights), clip)
    assert (found["route"], found["voice"]) == ("voice_over", "off_screen")
    assert found["talking_share"] < 0.5


@pytest.mark.media
@pytest.mark.slow
def test_a_still_photo_does_not_talk(media, weights):
    clip = clip_of(media / "talking/real3d_may_5s.mp4", **SPEECH)
    moving = clip.frames(25, 480)
    clip._frames[25, 480] = np.broadcast_to(moving[:1], moving.shape)
    (found,) = measured(Talking(), Weights(weights), clip)
    assert found["route"] == "voice_over"
