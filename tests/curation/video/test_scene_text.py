"""Text that is laid over a picture, and text that is part of the scene."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction

import cv2
import numpy as np
import pytest
from tests.frames import moving

from reelmill.curation.models.text import Line
from reelmill.curation.models.weights import Weights
from reelmill.curation.stage import NotApplicable, NotMeasured
from reelmill.curation.video.text import Text, laid_over
from reelmill.datasets.sample import Clip, Kind


def line(left: float, top: float, words: str = "word", width: float = 0.2) -> Line:
    return Line(words, 0.9, (left, top, left + width, top + 0.1), width * 0.1)


def test_what_keeps_its_place_is_laid_over_and_the_rest_is_scene():
    logo, sign = (line(0.7, 0.1, "TV"),) * 3, (line(x, 0.4, "EXIT") for x in (0.1, 0.25, 0.4))
    still, moved = laid_over([[a, b] for a, b in zip(logo, sign, strict=True)])
    assert still == pytest.approx(0.02)
    assert moved == pytest.approx(0.02)


def test_subtitles_change_their_words_and_length_and_are_still_laid_over():
    frames = [[line(0.5 - w / 2, 0.85, "x", w)] for w in (0.2, 0.5, 0.3)]
    assert laid_over(frames)[1] == 0
    assert laid_over([[line(0.1, 0.2)], [], []]) == (0, pytest.approx(0.02 / 3))


@dataclass
class Seen:
    pictures: np.ndarray
    facts: dict
    info: object = field(default_factory=lambda: type("Info", (), {"video": None})())
    clip: Clip = field(
        default_factory=lambda: Clip("a" * 64, Kind.VIDEO, 0, 3, Fraction(1), 0, 0, 75)
    )

    def frames(self, fps, height):
        return self.pictures


def test_where_the_camera_stands_still_nothing_tells():
    stage, lines = Text(), [[line(0.1, 0.1)]] * 3
    names = ("overlay_text_share", "scene_text_share")
    for speed in (0.05, NotApplicable("why"), NotMeasured("no stage measures the camera")):
        facts = stage._laid_over(lines, Seen(np.zeros(0), {"camera_speed": speed}))
        assert all(isinstance(facts[name], NotApplicable | NotMeasured) for name in names)
    told = stage._laid_over(lines, Seen(np.zeros(0), {"camera_speed": 0.2}))
    assert told == {"overlay_text_share": pytest.approx(0.02), "scene_text_share": 0.0}


@pytest.mark.slow
def test_a_sign_in_a_panned_street_and_a_caption_over_it():
    """Three frames a second apart, panned by a fifth of the width, read by the real networks."""
    wide = np.concatenate([moving(1, (360, 1100), seed=5)[0] for _ in range(1)], axis=1)
    write = lambda picture, text, x, y: [  # noqa: E731
        cv2.putText(picture, text, (x, y), cv2.FONT_HERSHEY_SIMPLEX, 1.2, colour, thick)
        for colour, thick in (((0, 0, 0), 9), ((255, 255, 255), 3))
    ]
    write(wide, "STATION", 330, 150)
    pictures = np.stack([wide[:, x : x + 640] for x in (0, 128, 256)])
    for picture in pictures:
        write(picture, "SUBSCRIBE", 20, 330)
    with Text().session(Weights()) as measure:
        facts = measure([Seen(pictures, {"camera_speed": 0.2})])[0]
    (width, height), _ = cv2.getTextSize("STATION", 0, 1.2, 3)
    least = 0.8 * width * height / (640 * 360)
    assert least < facts["scene_text_share"] < 3 * least
    assert least < facts["overlay_text_share"] < 4 * least
