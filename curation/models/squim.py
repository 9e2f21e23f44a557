"""SQUIM: intelligibility and quality of speech, guessed without a reference (arXiv 2304.01448).

torchaudio's own network, with the weights that it publishes, from a local file.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torchaudio.models import squim_objective_base

from reelmill.curation.models.published import load_published

FILE = "squim_objective_dns2020.pth"
RATE = 16_000
SCORES = ("stoi", "pesq", "si_sdr")
LEAST_S = 0.5
MOST_S = 15.0  # at a time: its memory grows with the square


class SQUIM:
    """folder: of the weights entry `squim`. Raises WeightsError where it is not that network."""

    def __init__(self, folder: Path):
        self._network = load_published(squim_objective_base(), folder / FILE)

    def __call__(self, sound: np.ndarray) -> np.ndarray:
        """float64 [3]: STOI (0 to 1), PESQ (1 to 4.6) and SI-SDR (dB) of float32 [n] at 16 kHz.

        Longer sound than 15 s in equal parts, and the mean of these. The network sees levels, not
        loudness; digital silence would be a division by nothing, and is not to be asked about.
        """
        sound = np.pad(sound, (0, max(0, round(LEAST_S * RATE) - len(sound))))
        parts = np.array_split(sound, -(-len(sound) // round(MOST_S * RATE)))
        with torch.inference_mode():
            found = [self._rated(part) for part in parts if np.any(part)]
        return np.mean(found, axis=0) if found else np.full(len(SCORES), np.nan)

    def _rated(self, sound: np.ndarray) -> np.ndarray:
        scores = self._network(torch.from_numpy(np.ascontiguousarray(sound, np.float32))[None])
        return np.array([float(score[0]) for score in scores])
