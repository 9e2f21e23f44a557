"""Lips and speech: a lag that was planted is found, sound of another is not taken for its own."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from reelmill.errors import WeightsError
from reelmill.evaluation.clip import read_clip
from reelmill.evaluation.damage import Damage
from reelmill.evaluation.ladder import Rungs, climb, damaged_clips, read_footage
from reelmill.evaluation.lips import PATCH, FaceFinder, lip_lag, loudness
from reelmill.evaluation.metric import NotApplicable, NotMeasured
from reelmill.evaluation.metrics.lips import LipLag

RATE, FPS, SECONDS = 16_000, 25, 8


def syllables(seed: int) -> np.ndarray:
    """How far a mouth is open, 0 to 1, at 1 kHz: four or so irregular syllables a second."""
    random = np.random.default_rng(seed)
    t = np.arange(SECONDS * 1000) / 1000
    opened = np.zeros(len(t))
    at = 0.3
    while at < SECONDS - 0.3:
        opened += random.uniform(0.4, 1) * np.exp(-0.5 * ((t - at) / 0.06) ** 2)
        at += random.uniform(0.15, 0.45)
    return np.minimum(opened, 1)


def speech(opened: np.ndarray, late: float) -> np.ndarray:
    t = np.arange(SECONDS * RATE) / RATE
    loud = np.interp(t - late, np.arange(len(opened)) / 1000, opened, left=0, right=0)
    voice = np.random.default_rng(9).standard_normal(len(t))
    return (0.3 * (loud + 0.01) * voice).astype(np.float32)


def face(opened: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Patches of a mouth, a dark ellipse on skin, with noise; and their times."""
    times = np.arange(SECONDS * FPS) / FPS
    gap = np.interp(times, np.arange(len(opened)) / 1000, opened)
    y, x = np.mgrid[:PATCH, :PATCH]
    dark = ((x - 24) / 12) ** 2 + ((y - 26) / (1 + 9 * gap[:, None, None])) ** 2 < 1
    noise = np.random.default_rng(1).normal(0, 4, (len(times), PATCH, PATCH))
    return np.clip(np.where(dark, 50, 170) + noise, 0, 255).astype(np.uint8), times


@pytest.mark.parametrize("late", [-0.3, 0.0, 0.12, 0.5])
def test_a_planted_lag_is_found(late: float):
    patches, times = face(syllables(1))
    found = lip_lag(patches, times, SECONDS, loudness(speech(syllables(1), late), RATE), 0.0)
    assert found is not None
    assert abs(found.seconds - late) < 0.05
    assert found.z > 4
    assert found.lead > 1.2


def test_words_of_another_stand_out_less():
    patches, times = face(syllables(1))
    own = lip_lag(patches, times, SECONDS, loudness(speech(syllables(1), 0), RATE), 0.0)
    other = lip_lag(patches, times, SECONDS, loudness(speech(syllables(2), 0), RATE), 0.0)
    assert own is not None
    assert other is not None
    assert other.z < 3 < own.z


def test_without_a_mouth_that_moves_there_is_no_lag():
    patches, times = face(np.zeros(SECONDS * 1000))
    still = np.repeat(patches[:1], len(patches), axis=0)
    assert lip_lag(still, times, SECONDS, np.ones(SECONDS * 100), 0.0) is None


def test_a_file_that_is_no_detector_is_an_error(tmp_path: Path):
    path = tmp_path / "faces.onnx"
    path.write_bytes(b"no network")
    with pytest.raises(WeightsError, match="no face detector"):
        FaceFinder(path)


@pytest.fixture
def detector() -> str:
    folder = os.environ.get("REELMILL_WEIGHTS", "")
    path = Path(folder) / "face_yunet" / "yunet_n_dynamic.onnx"
    if not folder or not path.exists():
        pytest.skip("weights 'face_yunet' are absent")
    return str(path)


@pytest.mark.media
def test_without_weights_it_is_not_measured_and_without_a_face_not_applicable(
    media: Path, detector: str
):
    clip = read_clip(media / "general/panda_fish.mp4")
    assert isinstance(LipLag().measure(clip), NotMeasured)
    found = LipLag(detector=detector).measure(clip)
    assert isinstance(found, NotApplicable)
    assert "face" in found.why


@pytest.mark.media
@pytest.mark.slow
@pytest.mark.parametrize("name", ["retalking_face2.mp4", "panda_pressconf.mp4"])
def test_the_ladder_of_shifted_sound_on_people_who_speak(
    name: str, media: Path, detector: str, tmp_path: Path
):
    """Clips that were not looked at when the metric was tuned."""
    footage = read_footage(media / "talking" / name, 10, 360)
    clips = damaged_clips(tmp_path, footage, Damage.SHIFTED_SOUND)
    found = climb(LipLag(detector=detector), clips)
    assert isinstance(found, Rungs), found
    assert found.holds, found.badness
