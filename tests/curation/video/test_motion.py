"""Motion: a known drift is measured in picture widths per second, at any size and rate."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from tests.frames import broken, measured, moving

from reelmill.curation.stage import NotApplicable
from reelmill.curation.video.motion import Motion
from reelmill.datasets.media.encode import write_video


def drift(path, step, fps, size=(144, 256), frames=None):
    count = fps * 2
    write_video(path, moving(count, size, step=step) if frames is None else frames, fps=fps)
    return measured(Motion(), path)


@pytest.mark.parametrize(
    ("step", "fps", "size"),
    [(1, 24, (144, 256)), (3, 24, (144, 256)), (3, 12, (144, 256)), (6, 24, (288, 512))],
)
def test_speed_of_a_known_drift(tmp_path, step, fps, size):
    motion = drift(tmp_path / "a.mp4", step, fps, size)
    assert motion.facts["motion"] == pytest.approx(step * fps / size[1], rel=0.2)
    assert not broken(motion.stage, motion.facts)


def test_still_picture_is_static(tmp_path):
    still = np.repeat(moving(1), 48, axis=0)
    motion = drift(tmp_path / "a.mp4", 0, 24, frames=still)
    assert motion.facts["motion"] < 1e-3
    assert broken(motion.stage, motion.facts) == ["static"]


def test_bounds_on_both_sides(tmp_path):
    motion = drift(tmp_path / "a.mp4", 2, 24)
    at = motion.facts["motion"]
    for name, beyond, reason in (
        ("min_motion", 1.001, "static"),
        ("max_motion", 0.999, "too_fast"),
    ):
        assert not broken(motion.stage.with_field(name, at), motion.facts)
        assert broken(motion.stage.with_field(name, at * beyond), motion.facts) == [reason]


def test_drawings_held_for_two_frames_still_move(tmp_path):
    held = np.repeat(moving(24, step=4), 2, axis=0)
    motion = drift(tmp_path / "a.mp4", 4, 24, frames=held)
    assert motion.tracks["flow"].min() > 0.02


def test_a_pair_across_a_cut_belongs_to_no_clip(tmp_path):
    still = [np.repeat(moving(1, seed=s), 31, axis=0) for s in (1, 2)]
    motion = drift(tmp_path / "a.mp4", 0, 24, frames=np.concatenate(still))
    jump = (motion.tracks["first"] < 31) & (motion.tracks["second"] >= 31)
    assert jump.sum() == 1
    assert motion.tracks["change"][jump] > 100
    for clip in (replace(motion.whole, end_frame=31), replace(motion.whole, start_frame=31)):
        assert motion.stage.facts(motion.tracks, clip, motion.info)["luma_change"] < 20


def test_one_frame_has_no_motion(tmp_path):
    write_video(tmp_path / "a.mp4", moving(1), fps=24)
    assert isinstance(measured(Motion(), tmp_path / "a.mp4").facts["motion"], NotApplicable)


def test_flow_does_not_depend_on_opencvs_threads(tmp_path):
    write_video(tmp_path / "a.mp4", moving(48), fps=24)
    threads = cv2.getNumThreads()
    try:
        flows = []
        for count in (1, 4):
            cv2.setNumThreads(count)
            flows.append(measured(Motion(), tmp_path / "a.mp4").tracks["flow"])
    finally:
        cv2.setNumThreads(threads)
    np.testing.assert_array_equal(*flows)
