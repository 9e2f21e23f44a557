"""Probe tells what was written."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from tests.frames import broken
from tests.media import noise_video, still, tone

from reelmill.curation import recipes
from reelmill.curation.asset.probe import Probe
from reelmill.curation.stage import NotApplicable
from reelmill.datasets.media.decode import probe
from reelmill.datasets.media.encode import write_audio, write_video


def test_video_with_sound(tmp_path):
    path = noise_video(tmp_path / "a.mp4", seconds=2, fps=16, size=(96, 128), rate=16_000)
    facts = Probe().measure(path, probe(path))
    assert set(facts) == {fact.name for fact in Probe.adds}
    assert (facts["width"], facts["height"], facts["fps"]) == (128, 96, 16.0)
    assert facts["duration"] == pytest.approx(2.0, abs=0.1)
    assert facts["bytes"] == path.stat().st_size
    assert (facts["codec"], facts["audio_codec"], facts["container"]) == ("h264", "aac", "mov")
    assert (facts["has_audio"], facts["audio_rate"], facts["audio_channels"]) == (True, 16_000, 1)


def test_size_is_as_displayed(tmp_path):
    frames = np.full((4, 96, 128, 3), 90, np.uint8)
    write_video(tmp_path / "r.mp4", frames, fps=8, rotation=90)
    facts = Probe().measure(tmp_path / "r.mp4", probe(tmp_path / "r.mp4"))
    assert (facts["width"], facts["height"]) == (96, 128)
    write_video(tmp_path / "s.mp4", frames, fps=8, sample_aspect=Fraction(3, 2))
    facts = Probe().measure(tmp_path / "s.mp4", probe(tmp_path / "s.mp4"))
    assert (facts["width"], facts["height"]) == (192, 96)


def test_image_and_sound_say_what_does_not_apply(tmp_path):
    still(tmp_path / "a.jpg")
    picture = Probe().measure(tmp_path / "a.jpg", probe(tmp_path / "a.jpg"))
    assert isinstance(picture["duration"], NotApplicable)
    assert isinstance(picture["audio_rate"], NotApplicable)
    assert picture["has_audio"] is False
    write_audio(tmp_path / "a.flac", tone(1.5), 48_000)
    sound = Probe().measure(tmp_path / "a.flac", probe(tmp_path / "a.flac"))
    assert isinstance(sound["height"], NotApplicable)
    assert sound["duration"] == pytest.approx(1.5)


@pytest.mark.parametrize(
    ("name", "inside", "outside", "reason"),
    [
        ("min_height", 96, 97, "resolution"),
        ("min_width", 128, 129, "resolution"),
        ("min_aspect", 1.3, 1.4, "aspect"),
        ("max_aspect", 1.4, 1.3, "aspect"),
        ("min_seconds", 2.0, 2.2, "too_short"),
        ("max_seconds", 2.2, 1.9, "too_long"),
    ],
)
def test_bounds_on_both_sides(tmp_path, name, inside, outside, reason):
    path = noise_video(tmp_path / "a.mp4", seconds=2, sound=False)
    facts = Probe().measure(path, probe(path))
    assert not broken(Probe().with_field(name, inside), facts)
    assert broken(Probe().with_field(name, outside), facts) == [reason]


@pytest.mark.parametrize(
    ("width", "height", "reasons"),
    [
        (300, 100, []),
        (310, 100, ["aspect"]),
        (100, 300, []),
        (100, 310, ["aspect"]),
        (66, 66, []),
        (63, 66, ["resolution"]),
        (66, 63, ["resolution"]),
    ],
)
def test_shapes_of_images(tmp_path, width, height, reasons):
    still(tmp_path / "a.png", size=(height, width))
    probe_ = recipes.image().stage("Probe")
    assert broken(probe_, probe_.measure(tmp_path / "a.png", probe(tmp_path / "a.png"))) == reasons
