"""Exposure against exact pixel statistics, and clips with a known fault."""

from __future__ import annotations

import numpy as np
import pytest
from tests.frames import broken, measured, moving

from reelmill.curation.stage import NotApplicable
from reelmill.curation.video.exposure import Exposure
from reelmill.datasets.media.decode import decode_frames, probe
from reelmill.datasets.media.encode import write_image, write_video


def test_facts_equal_statistics_of_all_pixels(tmp_path):
    path = tmp_path / "a.mp4"
    write_video(path, moving(20), fps=4)
    gray = np.stack([f.gray for f in decode_frames(path, probe(path))]).astype(np.float64)
    bgr = np.stack([f.bgr for f in decode_frames(path, probe(path))]).astype(np.float64)
    facts = measured(Exposure(), path).facts
    assert facts["luma"] == pytest.approx(gray.mean(), abs=0.5)
    assert facts["contrast"] == pytest.approx(gray.std(axis=(1, 2)).mean(), abs=0.5)
    assert facts["black_share"] == pytest.approx((gray < 24).mean(), abs=1e-6)
    assert facts["white_share"] == pytest.approx((gray >= 248).mean(), abs=1e-6)
    assert facts["highlights"] == pytest.approx(np.quantile(gray, 0.99), abs=4)
    blue, green, red = np.moveaxis(bgr, -1, 0)
    assert facts["red_green"] == pytest.approx((red - green).mean(), abs=0.1)
    assert facts["yellow_blue"] == pytest.approx(((red + green) / 2 - blue).mean(), abs=0.1)


@pytest.mark.parametrize(
    ("change", "reasons"),
    [
        (lambda f: f, []),
        (lambda f: f * 0.2, {"underexposed"}),
        (lambda f: f * 0.0, {"black", "underexposed", "low_contrast"}),
        (lambda f: np.clip(f * 1.3 + 150.0, 0, 255), {"overexposed"}),
        (lambda f: 128 + (f - 128.0) * 0.1, {"low_contrast"}),
    ],
)
def test_each_fault_has_its_reason(tmp_path, change, reasons):
    write_video(tmp_path / "a.mp4", change(moving(12)).astype(np.uint8), fps=12)
    exposure = measured(Exposure(), tmp_path / "a.mp4")
    assert set(broken(exposure.stage, exposure.facts)) >= set(reasons)
    if not reasons:
        assert not broken(exposure.stage, exposure.facts)


def test_each_bound_on_both_sides(tmp_path):
    path = tmp_path / "a.png"
    half = np.zeros((64, 64, 3), np.uint8)
    half[:, 32:] = 255
    write_image(path, half)
    exposure = measured(Exposure(), path)
    facts = exposure.facts
    assert facts["black_share"] == facts["white_share"] == 0.5
    for name, at in (
        ("max_black_share", facts["black_share"]),
        ("max_white_share", facts["white_share"]),
    ):
        assert not broken(exposure.stage.with_field(name, at), facts)
        assert len(broken(exposure.stage.with_field(name, at - 1e-6), facts)) == 1
    for name in ("min_highlights", "min_contrast"):
        fact = exposure.stage.bounds()[name].fact
        assert not broken(exposure.stage.with_field(name, facts[fact]), facts)
        assert len(broken(exposure.stage.with_field(name, facts[fact] + 1e-6), facts)) == 1


def test_a_clip_has_its_own_facts(tmp_path):
    frames = np.concatenate([np.full((12, 64, 96, 3), v, np.uint8) for v in (40, 200)])
    write_video(tmp_path / "a.mp4", frames, fps=12)
    exposure = measured(Exposure(), tmp_path / "a.mp4")
    from dataclasses import replace

    dark = exposure.stage.facts(
        exposure.tracks, replace(exposure.whole, end_frame=12), exposure.info
    )
    bright = exposure.stage.facts(
        exposure.tracks, replace(exposure.whole, start_frame=12), exposure.info
    )
    assert dark["luma"] == pytest.approx(40, abs=3)
    assert bright["luma"] == pytest.approx(200, abs=3)
    unseen = replace(exposure.whole, start_frame=1, end_frame=2)
    none = exposure.stage.facts(exposure.tracks, unseen, exposure.info)
    assert all(isinstance(value, NotApplicable) for value in none.values())
