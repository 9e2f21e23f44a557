"""Tracks: planted faces that move, cross, hide and grow."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reelmill.curation.lips.track import AREA, follow, look_height


def face(x: float, y: float, side: float, score: float = 0.9) -> list[float]:
    return [x - side / 2, y - side / 2, x + side / 2, y + side / 2, score]


def looks(*rows) -> list[np.ndarray]:
    return [np.array(row, np.float32).reshape(-1, 5) for row in rows]


def test_two_people_are_two_tracks_whatever_their_order():
    left, right = (lambda i: face(100 + 4 * i, 90, 60)), (lambda i: face(300 - 4 * i, 95, 50))
    rows = [[left(i), right(i)] if i % 2 else [right(i), left(i)] for i in range(10)]
    tracks = follow(looks(*rows))
    assert sorted(float(track.boxes[0].mean()) for track in tracks) == [95.0, 197.5]
    assert [len(track.looks) for track in tracks] == [10, 10]


def test_a_face_may_hide_for_two_looks_and_not_for_three():
    here = [face(100, 100, 40)]
    assert len(follow(looks(here, [], [], here))) == 1
    assert len(follow(looks(here, [], [], [], here))) == 2


def test_a_jump_or_another_size_is_somebody_else():
    assert len(follow(looks([face(100, 100, 40)], [face(150, 100, 40)]))) == 2
    assert len(follow(looks([face(100, 100, 40)], [face(130, 100, 40)]))) == 1
    assert len(follow(looks([face(100, 100, 40)], [face(130, 100, 40)]), reach=0.5)) == 2
    assert len(follow(looks([face(100, 100, 40)], [face(100, 100, 90)]))) == 2


def test_between_looks_the_box_moves_in_a_line():
    (track,) = follow(looks(*[[face(100 + 8 * i, 90, 60)] for i in range(6)]))
    first, boxes = track.at_frames(4, 23)
    assert first == 0
    assert len(boxes) == 23
    middle = boxes[:, [0, 2]].mean(axis=1)
    assert middle[6:15] == pytest.approx(100 + 2 * np.arange(6, 15), abs=0.1)
    assert np.ptp(boxes[:, 2] - boxes[:, 0]) < 0.1


def test_one_wrong_look_does_not_move_the_box():
    rows = [[face(100, 90, 60)] for _ in range(9)]
    rows[4] = [face(120, 80, 80)]
    (track,) = follow(looks(*rows))
    assert np.ptp(track.at_frames(4, 36)[1], axis=0).max() < 1e-9


@given(st.integers(1, 8000), st.integers(1, 8000))
def test_the_picture_is_never_enlarged_and_about_as_large_as_asked(width, height):
    lines = look_height(width, height)
    assert 2 <= lines <= max(2, height + 1)
    if width * height > AREA and min(width, height) > 64:
        assert lines * width / height * lines == pytest.approx(AREA, rel=0.1)
