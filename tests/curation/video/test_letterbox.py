"""Letterbox: the box of the picture inside bars planted over real and made footage."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from tests.curation.video.planting import boxed, footage, iou
from tests.frames import broken, measured, moving

from reelmill.curation.stage import NotMeasured
from reelmill.curation.video.letterbox import Letterbox
from reelmill.datasets.media.encode import write_image, write_video

SIZE = (640, 360)


def crop(facts):
    return tuple(facts[f"crop_{side}"] for side in "xywh")


def planted(path, frames, box, size=SIZE, fps=25):
    write_video(path, boxed(frames, box, size), fps=fps)
    return measured(Letterbox(), path)


@pytest.mark.parametrize(
    "box",
    [
        (0, 0, 640, 360),
        (0, 48, 640, 264),
        (0, 20, 640, 320),
        (80, 0, 480, 360),
        (64, 36, 512, 288),
        (0, 0, 640, 300),
        (0, 110, 640, 140),
    ],
)
def test_box_of_a_made_scene(tmp_path, box):
    bars = planted(tmp_path / "a.mp4", moving(50, (360, 640)), box)
    assert iou(crop(bars.facts), box) >= 0.95
    share = box[2] * box[3] / (SIZE[0] * SIZE[1])
    assert bars.facts["picture_share"] == pytest.approx(share, abs=0.02)
    assert broken(bars.stage, bars.facts) == (["letterbox"] if share < 0.6 else [])


def test_bound_is_sixty_percent_of_the_area():
    (bound,) = Letterbox().bounds().values()
    assert bound.holds(np.array([0.6, 0.599])).tolist() == [True, False]


def test_subtitles_and_a_logo_in_the_bars(tmp_path):
    frames = boxed(moving(50, (360, 640)), (0, 60, 640, 240), SIZE)
    for frame in frames:
        cv2.putText(frame, "what they are saying", (150, 340), 0, 1.0, (255, 255, 255), 2)
        frame[10:40, 20:80] = 200
    write_video(tmp_path / "a.mp4", frames, fps=25)
    assert iou(crop(measured(Letterbox(), tmp_path / "a.mp4").facts), (0, 60, 640, 240)) >= 0.95


def test_bars_are_what_is_dark_all_the_time(tmp_path):
    scene = moving(75, (360, 640))
    scene[:60, :100] = 0
    write_video(tmp_path / "a.mp4", scene, fps=25)
    assert measured(Letterbox(), tmp_path / "a.mp4").facts["picture_share"] == 1.0


def test_a_night_sky_is_no_bar(tmp_path):
    scene = moving(50, (360, 640))
    ridge = 120 + 40 * np.sin(np.arange(640) / 60)
    sky = np.arange(360)[:, None] < ridge[None]
    scene[:, sky] = 4
    write_video(tmp_path / "a.mp4", scene, fps=25)
    assert measured(Letterbox(), tmp_path / "a.mp4").facts["picture_share"] == 1.0


def test_black_says_nothing_of_bars(tmp_path):
    write_video(tmp_path / "a.mp4", np.zeros((30, 90, 160, 3), np.uint8), fps=15)
    facts = measured(Letterbox(), tmp_path / "a.mp4").facts
    assert all(isinstance(value, NotMeasured) for value in facts.values())


def test_each_clip_has_its_own_box(tmp_path):
    scene = moving(100, (360, 640))
    scene[:50, :60], scene[:50, 300:] = 0, 0
    write_video(tmp_path / "a.mp4", scene, fps=25)
    bars = measured(Letterbox(), tmp_path / "a.mp4")
    clips = (replace(bars.whole, end_frame=50), replace(bars.whole, start_frame=50))
    boxes = [crop(bars.stage.facts(bars.tracks, clip, bars.info)) for clip in clips]
    assert iou(boxes[0], (0, 60, 640, 240)) >= 0.95
    assert boxes[1] == (0, 0, 640, 360)


def test_turned_pictures_have_their_bars_where_they_are_seen(tmp_path):
    frames = boxed(moving(30, (360, 640)), (0, 60, 640, 240), SIZE)
    write_video(tmp_path / "a.mp4", frames, fps=15, rotation=90)
    assert iou(crop(measured(Letterbox(), tmp_path / "a.mp4").facts), (60, 0, 240, 640)) >= 0.95


def test_bars_of_a_still(tmp_path):
    write_image(tmp_path / "a.png", boxed(moving(1, (360, 640)), (100, 0, 440, 360), SIZE)[0])
    assert iou(crop(measured(Letterbox(), tmp_path / "a.png").facts), (100, 0, 440, 360)) >= 0.95


REAL = {
    "general/sam2_dog_silent.mp4": (0, 40, 640, 280),
    "general/panda_soccer_50fps.mp4": (80, 0, 480, 360),
    "general/cotracker_bear.mp4": (40, 30, 560, 300),
    "general/panda_fish.mp4": (0, 66, 640, 228),
    "general/panda_romans.mp4": (120, 0, 400, 360),
    "talking/panda_carshow_hosts.mp4": (0, 24, 640, 312),
}


@pytest.mark.media
@pytest.mark.parametrize("name", REAL)
def test_planted_bars_over_real_footage(media, tmp_path, name):
    bars = planted(tmp_path / "a.mp4", footage(media / name, frames=50), REAL[name])
    assert iou(crop(bars.facts), REAL[name]) >= 0.95


@pytest.mark.media
@pytest.mark.parametrize("name", ["general/dover_fireworks.mp4", "multishot/facerec_hamilton.mp4"])
def test_dark_real_footage(media, tmp_path, name):
    dark = footage(media / name, frames=75) // 2
    height, width = dark.shape[1:3]
    assert planted(tmp_path / "a.mp4", dark, (0, 0, width, height), (width, height)).facts[
        "picture_share"
    ] == pytest.approx(1.0)


@pytest.mark.media
@pytest.mark.parametrize(
    ("name", "box"),
    [
        ("general/chaplin_pillarbox.mp4", (72, 0, 496, 360)),
        ("general/panda_letterbox_coast.mp4", (0, 44, 640, 272)),
        ("general/panda_letterbox_subs.mp4", (0, 50, 640, 260)),
        ("general/panda_phone_vertical.mp4", (140, 0, 360, 360)),
        ("general/dover_dark_lowres.mp4", (37, 0, 118, 144)),
        ("general/panda_soccer_50fps.mp4", (0, 0, 640, 360)),
        ("general/vggsound_tennis_360p.mp4", (0, 0, 480, 360)),
        ("general/cotracker_cat.mp4", (0, 0, 368, 480)),
    ],
)
def test_real_bars(media, name, box):
    """Boxes as seen in the full pictures."""
    assert iou(crop(measured(Letterbox(), media / name).facts), box) >= 0.95
