"""Blur: falls with the width of a known Gaussian, whatever the contrast."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from tests.frames import broken, measured, moving
from tests.media import smooth_noise

from reelmill.curation.stage import NotApplicable
from reelmill.curation.video.blur import Blur
from reelmill.datasets.media.decode import decode_frames, probe
from reelmill.datasets.media.encode import write_image, write_video


def sharpness(path, frames):
    write_video(path, frames, fps=8, crf=12)
    return measured(Blur(), path).facts["sharpness"]


def test_falls_with_the_radius(tmp_path):
    sharp = smooth_noise(1, (144, 256))[0]
    values = []
    for sigma in (0.3, 1.5, 3.0, 6.0):
        path = tmp_path / f"{sigma}.png"
        write_image(path, cv2.GaussianBlur(sharp, (0, 0), sigma))
        values.append(measured(Blur(), path).facts["sharpness"])
    assert values == sorted(values, reverse=True)
    assert values[0] > 0.1
    assert values[-1] < Blur().min_sharpness.value


def test_dim_and_flat_pictures_are_no_blur(tmp_path):
    sharp = smooth_noise(8, (144, 256)).astype(float)
    plain = sharpness(tmp_path / "a.mp4", sharp.astype(np.uint8))
    dim = sharpness(tmp_path / "b.mp4", (sharp * 0.3).astype(np.uint8))
    assert dim == pytest.approx(plain, rel=0.2)


def test_a_few_blurred_frames_do_not_count(tmp_path):
    frames = smooth_noise(16, (144, 256))
    frames[3:9] = [cv2.GaussianBlur(f, (0, 0), 8) for f in frames[3:9]]
    write_video(tmp_path / "a.mp4", frames, fps=8, crf=12)
    blur = measured(Blur(fps=8), tmp_path / "a.mp4")
    assert not broken(blur.stage, blur.facts)


def test_laplacian_is_opencvs(tmp_path):
    write_image(tmp_path / "a.png", moving(1)[0])
    blur = measured(Blur(), tmp_path / "a.png")
    (frame,) = decode_frames(tmp_path / "a.png", probe(tmp_path / "a.png"))
    expected = cv2.Laplacian(frame.gray, cv2.CV_64F).var()
    assert blur.facts["laplacian"] == pytest.approx(expected, rel=1e-9)
    at = blur.facts["sharpness"]
    assert at == pytest.approx(expected / frame.gray.astype(float).var(), rel=1e-9)
    assert not broken(blur.stage.with_field("min_sharpness", at), blur.facts)
    assert broken(blur.stage.with_field("min_sharpness", at * 1.001), blur.facts) == ["blurred"]


def test_one_flat_tone_has_no_sharpness(tmp_path):
    write_image(tmp_path / "a.png", np.full((64, 64, 3), 90, np.uint8))
    assert isinstance(measured(Blur(), tmp_path / "a.png").facts["sharpness"], NotApplicable)


@pytest.mark.media
def test_quality_pairs(media):
    blurred, sharp = (
        measured(Blur(), media / f"images/tid_I03_{kind}.bmp") for kind in ("dist", "ref")
    )
    assert broken(blurred.stage, blurred.facts) == ["blurred"]
    assert not broken(sharp.stage, sharp.facts)
