"""Quality: BRISQUE with the published weights, against values of OpenCV's own module."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from reelmill.curation.image.quality import Quality
from reelmill.curation.models.brisque import BRISQUE, features
from reelmill.curation.stage import NotMeasured

OPENCV = {  # MEDIA.md and WEIGHTS.md, measured with OpenCV's quality module
    "tid_I03_ref": 5.2,
    "tid_I03_dist": 84.5,
    "tid_I06_ref": 1.3,
    "tid_I06_dist": 1.3,
    "tid_I08_ref": 4.9,
    "tid_I08_dist": 7.9,
}


@pytest.fixture(scope="module")
def brisque():
    folder = Path(os.environ.get("REELMILL_WEIGHTS", "none")) / "brisque"
    if not folder.is_dir():
        pytest.skip("REELMILL_WEIGHTS holds no brisque")
    return BRISQUE(folder)


@pytest.mark.media
@pytest.mark.parametrize("name", OPENCV)
def test_scores_are_those_of_opencv(media, brisque, name):
    picture = cv2.imread(str(media / f"images/{name}.bmp"))
    assert brisque(cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY)) == pytest.approx(
        OPENCV[name], abs=1.0
    )


@pytest.mark.media
def test_more_noise_is_worse(media, brisque):
    gray = cv2.imread(str(media / "images/tid_I03_ref.bmp"), cv2.IMREAD_GRAYSCALE)
    noise = np.random.default_rng(0).normal(0, 1, gray.shape)
    scores = [
        brisque(np.clip(gray + sigma * noise, 0, 255).astype(np.uint8)) for sigma in (0, 8, 20, 40)
    ]
    assert scores == sorted(scores)


def test_features_of_gaussian_noise_have_its_shape():
    """Normalised white Gaussian noise is Gaussian, shape near 2; across and down are alike; and
    next to a light pixel stands a dark one, since the local mean was taken away."""
    noise = np.random.default_rng(0).normal(128, 20, (256, 256)).clip(0, 255).astype(np.uint8)
    found = features(noise)
    assert found.shape == (36,)
    assert 1.8 < found[0] < 4
    assert np.allclose(found[2:6], found[6:10], rtol=0.1)
    assert found[4] > 1.2 * found[5]


def test_without_weights_nothing_is_measured():
    class Empty:
        def path(self, name):
            return None

    with Quality().session(Empty()) as measure:
        assert isinstance(measure([None])[0]["brisque"], NotMeasured)
