"""Freeze: held frames counted exactly, and nothing held where only a little moves."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from tests.curation.video.planting import footage
from tests.frames import broken, measured, moving

from reelmill.curation.stage import NotApplicable
from reelmill.curation.video.freeze import Freeze, dropped, held
from reelmill.datasets.media.encode import write_video


@pytest.mark.parametrize("crf", [12, 20, 30])
@pytest.mark.parametrize(("first", "last"), [(10, 40), (0, 25), (50, 72)])
def test_a_planted_freeze_is_exact_to_the_frame(tmp_path, crf, first, last):
    frames = moving(72)
    frames[first:last] = frames[first]
    write_video(tmp_path / "a.mp4", frames, fps=24, crf=crf)
    freeze = measured(Freeze(), tmp_path / "a.mp4")
    assert freeze.facts["freeze_seconds"] == pytest.approx((last - first) / 24)
    assert freeze.facts["repeated_share"] == pytest.approx((last - first - 1) / 71)
    assert np.flatnonzero(freeze.tracks["repeats"]).tolist() == list(range(first + 1, last))


def test_bound_on_both_sides(tmp_path):
    frames = moving(72)
    frames[10:34] = frames[10]
    write_video(tmp_path / "a.mp4", frames, fps=24)
    freeze = measured(Freeze(), tmp_path / "a.mp4")
    assert freeze.facts["freeze_seconds"] == 1.0
    assert not broken(freeze.stage, freeze.facts)
    shorter = freeze.stage.with_field("max_freeze_seconds", 0.999)
    assert broken(shorter, freeze.facts) == ["frozen"]


def test_a_small_moving_mouth_is_not_frozen(tmp_path):
    frames = np.repeat(moving(1), 72, axis=0)
    for i, frame in enumerate(frames):
        frame[80:92, 120:136] = 60 + 100 * (i % 3 == 0) + 40 * (i % 2)
    write_video(tmp_path / "a.mp4", frames, fps=24)
    assert measured(Freeze(), tmp_path / "a.mp4").facts["freeze_seconds"] < 0.2


def test_a_slow_fade_is_not_frozen(tmp_path):
    light = np.linspace(0.2, 1.0, 144)[:, None, None, None]
    write_video(tmp_path / "a.mp4", (moving(1) * light).astype(np.uint8), fps=24, crf=12)
    assert measured(Freeze(), tmp_path / "a.mp4").facts["freeze_seconds"] < 0.5


def test_every_second_frame_repeated(tmp_path):
    write_video(tmp_path / "a.mp4", np.repeat(moving(36), 2, axis=0), fps=24)
    facts = measured(Freeze(), tmp_path / "a.mp4").facts
    assert facts["repeated_share"] == pytest.approx(36 / 71, abs=0.03)
    assert facts["freeze_seconds"] == pytest.approx(2 / 24)


def test_dropped_frames_are_gaps_in_time(tmp_path):
    kept = [i for i in range(60) if i not in (7, 20, 21, 22, 40)]
    write_video(
        tmp_path / "a.mkv",
        moving(60)[kept],
        pts=[i * 40 for i in kept],
        time_base=Fraction(1, 1000),
    )
    freeze = measured(Freeze(), tmp_path / "a.mkv")
    assert freeze.facts["dropped_share"] == pytest.approx(5 / 60)
    assert not broken(freeze.stage, freeze.facts)
    strict = freeze.stage.with_field("max_dropped_share", 0.08)
    assert broken(strict, freeze.facts) == ["dropped_frames"]


def test_one_frame_has_no_neighbour(tmp_path):
    write_video(tmp_path / "a.mp4", moving(1), fps=24)
    facts = measured(Freeze(), tmp_path / "a.mp4").facts
    assert all(isinstance(value, NotApplicable) for value in facts.values())


REAL = ["sam2_dog_silent", "panda_soccer_50fps", "cotracker_bear", "panda_whales"]


@pytest.mark.media
@pytest.mark.parametrize("name", REAL)
@pytest.mark.parametrize(("crf", "tolerance"), [(18, 0), (24, 1)])
def test_planted_freezes_in_real_footage(media, tmp_path, name, crf, tolerance):
    """Exact to the frame; to one frame where hard compression makes held pictures creep."""
    frames = footage(media / f"general/{name}.mp4", width=384, frames=64)
    planted = [[7, 12], [20, 45], [50, 58]]
    for first, last in planted:
        frames[first:last] = frames[first]
    write_video(tmp_path / "a.mp4", frames, fps=25, crf=crf)
    freeze = measured(Freeze(), tmp_path / "a.mp4")
    found = held(freeze.tracks["repeats"][1:])
    assert found.shape == (3, 2)
    assert np.abs(found - planted).max() <= tolerance
    assert freeze.facts["freeze_seconds"] == pytest.approx(1.0, abs=tolerance * 2 / 25 + 1e-9)


@pytest.mark.media
@pytest.mark.parametrize("name", REAL)
def test_frames_dropped_from_real_footage_are_missed_where_they_were(media, tmp_path, name):
    frames = footage(media / f"general/{name}.mp4", width=384, frames=64)
    lost = {5, 18, 19, 20, 40, 41}
    kept = [i for i in range(64) if i not in lost]
    write_video(
        tmp_path / "a.mkv", frames[kept], pts=[40 * i for i in kept], time_base=Fraction(1, 1000)
    )
    freeze = measured(Freeze(), tmp_path / "a.mkv")
    missing = dropped(freeze.tracks["pts"])
    assert {kept[i]: missing[i] for i in np.flatnonzero(missing)} == {4: 1, 17: 3, 39: 2}
    assert freeze.facts["dropped_share"] == pytest.approx(6 / 64)


@pytest.mark.media
@pytest.mark.parametrize(
    ("name", "reasons"),
    [
        ("general/panda_win7_screen.mp4", ["frozen", "repeated_frames"]),
        ("general/fmt_silent_black_10s.mp4", ["frozen", "repeated_frames"]),
        ("general/panda_cake_static.mp4", []),
        ("talking/liveportrait_d18_silent_face.mp4", []),
        ("talking/retalking_face4.mp4", []),
        ("general/intel_bottles_static.mp4", []),
    ],
)
def test_real_clips(media, name, reasons):
    freeze = measured(Freeze(), media / name)
    assert broken(freeze.stage, freeze.facts) == reasons
