"""Slideshow: moved stills are told from films, over real pictures."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from tests.curation.video.planting import footage
from tests.frames import Measured, broken, measured, moving

from reelmill.curation.stage import NotApplicable
from reelmill.curation.video.slideshow import Slideshow, unlike
from reelmill.datasets.media.encode import write_video

FPS = 12
SIZE = (320, 180)


def texture(seed: int) -> np.ndarray:
    small = np.random.default_rng(seed).integers(0, 256, (36, 64, 3), dtype=np.uint8)
    return cv2.resize(small, (960, 540), interpolation=cv2.INTER_CUBIC)


def panned(still, *, right=0.0, into=0.0, clockwise=0.0, count=48) -> np.ndarray:
    """A pan (widths per second), zoom (factor e per second), turn (radians per second)."""
    frames = []
    for i in range(count):
        t = i / FPS - count / FPS / 2
        scale, turn = np.exp(into * t) * 2.2 * SIZE[0] / still.shape[1], clockwise * t
        matrix = scale * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
        centre = np.array([still.shape[1] / 2 + right * t * SIZE[0] / scale, still.shape[0] / 2])
        shift = np.array(SIZE) / 2 - matrix @ centre
        frames.append(cv2.warpAffine(still, np.column_stack([matrix, shift]), SIZE))
    return np.stack(frames)


def film(path, frames) -> Measured:
    write_video(path, frames, fps=FPS)
    return measured(Slideshow(), path)


MOVES = [
    {},
    {"into": 0.07},
    {"into": -0.1},
    {"right": 0.1},
    {"right": -0.1, "into": 0.04},
    {"clockwise": 0.04},
]


@pytest.mark.parametrize("move", MOVES)
def test_a_still_is_one_however_it_is_moved(tmp_path, move):
    found = film(tmp_path / "a.mp4", panned(texture(3), **move))
    assert found.facts["still_share"] == 1.0
    assert found.facts["unlike"] < 3
    assert broken(found.stage, found.facts) == ["slideshow"]


def test_one_who_walks_through_makes_it_a_film(tmp_path):
    frames = panned(texture(3), right=0.08)
    for i, frame in enumerate(frames):
        frame[50:160, 10 + 5 * i : 60 + 5 * i] = (200, 40, 90)
    found = film(tmp_path / "a.mp4", frames)
    assert found.facts["still_share"] == 0.0
    assert not broken(found.stage, found.facts)


def test_slides_that_change_and_their_clips(tmp_path):
    slides = [panned(texture(s), into=0.05, count=60) for s in (1, 2)]
    found = film(tmp_path / "a.mp4", np.concatenate(slides))
    assert found.facts["still_share"] == pytest.approx(8 / 9)
    assert found.tracks["unlike"].argmax() == 4
    assert broken(found.stage, found.facts) == ["slideshow"]
    one = replace(found.whole, end_frame=60)
    assert found.stage.facts(found.tracks, one, found.info)["still_share"] == 1.0


def test_too_short_to_compare(tmp_path):
    facts = film(tmp_path / "a.mp4", moving(6)).facts
    assert all(isinstance(value, NotApplicable) for value in facts.values())


def test_flat_pictures_are_compared_as_they_are():
    gray, light = np.full((72, 128), 90, np.uint8), np.full((72, 128), 140, np.uint8)
    assert unlike(gray, gray) == 0
    assert unlike(gray, light) == 50


@pytest.mark.media
@pytest.mark.parametrize("name", ["general/panda_romans.mp4", "talking/panda_carshow_hosts.mp4"])
@pytest.mark.parametrize("move", [{"into": 0.06}, {"right": 0.08}])
def test_a_real_picture_moved(media, tmp_path, name, move):
    (still,) = footage(media / name, width=640, frames=1)
    still = cv2.resize(still, (960, 540), interpolation=cv2.INTER_CUBIC)
    assert film(tmp_path / "a.mp4", panned(still, **move)).facts["still_share"] == 1.0


@pytest.mark.media
@pytest.mark.parametrize(
    "name",
    [
        "general/sam2_dog_silent.mp4",
        "general/panda_letterbox_coast.mp4",
        "general/cotracker_cat.mp4",
        "general/panda_cake_static.mp4",
        "general/panda_archive_bw.mp4",
        "general/panda_whales.mp4",
        "talking/liveportrait_d18_silent_face.mp4",
        "talking/retalking_face5.mp4",
    ],
)
def test_real_films_are_no_stills(media, name):
    """Fixed cameras, a talking head, slow flights over land among them."""
    assert measured(Slideshow(), media / name).facts["still_share"] <= 0.2
