"""BRISQUE (Mittal, Moorthy and Bovik 2012): no-reference quality of a picture, 0 best to 100.

OpenCV's quality module is not in its Python wheels, so its published SVR is read and run here.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from scipy.special import gamma

from reelmill.errors import WeightsError

SHAPES = np.arange(0.2, 10, 0.001)
_GGD = gamma(2 / SHAPES) ** 2 / (gamma(1 / SHAPES) * gamma(3 / SHAPES))
SHIFTS = ((0, 1), (1, 0), (1, 1), (1, -1))
FEATURES = 36
MODEL, RANGES = "brisque_model_live.yml", "brisque_range_live.yml"


class BRISQUE:
    """The published model. Raises WeightsError when its files are not what OpenCV reads."""

    def __init__(self, folder: Path) -> None:
        model = cv2.FileStorage(str(folder / MODEL), cv2.FILE_STORAGE_READ)
        ranges = cv2.FileStorage(str(folder / RANGES), cv2.FILE_STORAGE_READ)
        try:
            svm = model.getNode("opencv_ml_svm")
            decision = svm.getNode("decision_functions").at(0)
            self._gamma = svm.getNode("kernel").getNode("gamma").real()
            self._rho = decision.getNode("rho").real()
            alpha = decision.getNode("alpha")
            self._alpha = np.array([alpha.at(i).real() for i in range(alpha.size())])
            rows = svm.getNode("support_vectors")
            self._vectors = np.array(
                [
                    [row.at(j).real() for j in range(row.size())]
                    for row in (rows.at(i) for i in range(rows.size()))
                ]
            )
            self._low, self._high = ranges.getNode("range").mat().astype(np.float64)
        except (AttributeError, ValueError, cv2.error) as error:
            raise WeightsError(f"{folder} holds no BRISQUE model of OpenCV's: {error}") from error
        if self._vectors.shape != (len(self._alpha), FEATURES):
            raise WeightsError(f"{folder}/{MODEL} has no {FEATURES} features a vector.")

    def __call__(self, gray: np.ndarray) -> float:
        """Of luma, uint8 [height, width], at least 32 on each side."""
        scaled = 2 * (features(gray) - self._low) / (self._high - self._low) - 1
        near = np.exp(-self._gamma * np.square(self._vectors - scaled).sum(axis=1))
        return float(np.clip(self._alpha @ near - self._rho, 0, 100))


def features(gray: np.ndarray) -> np.ndarray:
    """The 36 numbers that the model takes: 18 at the picture's size, 18 at half of it."""
    picture = gray.astype(np.float32) / 255
    size = (picture.shape[1] // 2, picture.shape[0] // 2)
    half = cv2.resize(picture, size, interpolation=cv2.INTER_CUBIC)
    return np.array([*_of_one_scale(picture), *_of_one_scale(half)])


def _of_one_scale(picture: np.ndarray) -> list[float]:
    mean = _blurred(picture)
    deviation = np.sqrt(np.maximum(_blurred(picture * picture) - mean * mean, 0))
    normal = (picture - mean) / (deviation + 1 / 255)
    shape, left, right = _asymmetric(normal)
    found = [shape, (left * left + right * right) / 2]
    height, width = normal.shape
    for down, across in SHIFTS:
        moved = np.zeros_like(normal)
        to = np.s_[: height - down, max(0, -across) : width - max(0, across)]
        of = np.s_[down:, max(0, across) : width - max(0, -across)]
        moved[to] = normal[of]
        shape, left, right = _asymmetric(normal * moved)
        ratio = np.sqrt(gamma(1 / shape) / gamma(3 / shape))
        mean_ = (right - left) * ratio * gamma(2 / shape) / gamma(1 / shape)
        found += [shape, float(mean_), left * left, right * right]
    return found


def _blurred(picture: np.ndarray) -> np.ndarray:
    return cv2.GaussianBlur(picture, (7, 7), 7 / 6, borderType=cv2.BORDER_REPLICATE)


def _asymmetric(values: np.ndarray) -> tuple[float, float, float]:
    """Shape, left and right deviation of an asymmetric generalised Gaussian, by its moments."""
    below, above = values[values < 0], values[values > 0]
    left = float(np.sqrt(np.square(below, dtype=np.float64).mean())) if below.size else 1e-6
    right = float(np.sqrt(np.square(above, dtype=np.float64).mean())) if above.size else 1e-6
    ratio = left / right
    spread = float(np.abs(values).mean(dtype=np.float64))
    power = float(np.square(values, dtype=np.float64).mean())
    r = spread * spread / max(power, 1e-12)
    r *= (ratio**3 + 1) * (ratio + 1) / (ratio**2 + 1) ** 2
    return float(SHAPES[np.argmin(np.square(_GGD - r))]), left, right
