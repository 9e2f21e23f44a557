"""What is to be seen, as a vector of a pretrained picture encoder."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np

from reelmill.curation.pulse import beat
from reelmill.curation.stage import (
    Fact,
    Facts,
    FrameStage,
    NotApplicable,
    NotMeasured,
    Resources,
    Tracks,
    WeightsStore,
)
from reelmill.curation.video.sampling import Sampling, within
from reelmill.datasets.media.decode import DecodeSummary, Frame, MediaInfo
from reelmill.datasets.sample import Clip

WEIGHTS = "vision"
BATCH = 16
MAX_VECTOR = 1 << 14
_LEVELS = 127


@dataclass(frozen=True, kw_only=True)
class Embedding(FrameStage):
    """Vectors of frames taken `fps` times a second, by CLIP, SigLIP or DINOv2 from a local folder.

    The frames are those of the shared decode, 256 pixels on the longer side, so no decode is added.
    `embedding` is the mean of a clip's unit vectors, in 8 bits a number; vectors of frames are kept
    in 16 bits (768 numbers: 1.5 kB a sample). Which network it is decides the weights' digest, and
    with it the measurement's key. Without weights nothing is measured.
    """

    paper: ClassVar = "section 3.4, deduplication and balance by embeddings"
    adds: ClassVar = (
        Fact("embedding", "", "Mean unit vector of the frames, packed.", dtype=str),
        Fact("embedding_model", "", "Family of the network, and length of its vectors.", dtype=str),
        Fact("embedding_spread", "", "1 - length of that mean: 0 for one picture.", 0, 1),
    )
    resources: ClassVar = Resources(memory_gb=2.5, weights=(WEIGHTS,))
    fps: float = 2.0
    device: str = "cpu"

    def open(self, info: MediaInfo) -> _Encoder:
        return _Encoder(self.fps, None, self.device)

    def open_with(self, info: MediaInfo, weights: WeightsStore) -> _Encoder:
        return _Encoder(self.fps, weights.path(WEIGHTS), self.device)

    def facts(self, tracks: Tracks, clip: Clip, info: MediaInfo) -> Facts:
        here = tracks["vector"][within(clip, tracks["frame"])].astype(np.float64)
        if not tracks["family"].size:
            absent = NotMeasured(f"weights '{WEIGHTS}' absent")
            return {fact.name: absent for fact in self.adds}
        if not len(here):
            none = NotApplicable("no frame was sampled")
            return {fact.name: none for fact in self.adds}
        mean = here.mean(axis=0)
        family = tracks["family"].tobytes().decode()
        return {
            "embedding": packed(mean),
            "embedding_model": f"{family} {len(mean)}",
            "embedding_spread": min(1.0, max(0.0, 1 - float(np.linalg.norm(mean)))),
        }


def packed(vector: np.ndarray) -> str:
    """A vector in 8 bits a number, with its scale before them, as base64."""
    scale = np.float32(max(float(np.abs(vector).max()), 1e-12) / _LEVELS)
    levels = np.rint(vector / scale).astype(np.int8)
    return base64.b64encode(scale.astype("<f4").tobytes() + levels.tobytes()).decode("ascii")


def unpacked(text: str) -> np.ndarray:
    """float32 [d] of what `packed` made. Raises ValueError."""
    data = base64.b64decode(text, validate=True)
    if not 4 < len(data) <= MAX_VECTOR + 4:
        raise ValueError("no packed vector")
    return np.frombuffer(data[4:], np.int8) * np.frombuffer(data[:4], "<f4")[0]


def directions(texts: Iterable[Any]) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors float32 [clips, d] of `embedding` facts, and which clips have one, bool [clips].

    Rows of clips without are zeros; all vectors must be of one network, or ValueError is raised.
    """
    found = [unpacked(text) if isinstance(text, str) else None for text in texts]
    lengths = {len(vector) for vector in found if vector is not None}
    if len(lengths) > 1:
        raise ValueError(f"embeddings of {sorted(lengths)} numbers are not of one network")
    known = np.array([vector is not None for vector in found], bool)
    rows = np.zeros((len(found), lengths.pop() if lengths else 1), np.float32)
    for row, vector in zip(rows, found, strict=True):
        if vector is not None:
            row[:] = vector / max(float(np.linalg.norm(vector)), 1e-12)
    return rows, known


class _Encoder:
    """Sampled frames, encoded in batches."""

    def __init__(self, fps: float, folder: Path | None, device: str):
        self._sampling = Sampling(fps)
        self._folder, self._device = folder, device
        self._frames: list[int] = []
        self._kept: list[np.ndarray] = []
        self._rows: list[np.ndarray] = []
        self._family = ""

    def frame(self, frame: Frame) -> None:
        if self._folder is not None and self._sampling.takes(frame.seconds):
            self._frames.append(frame.index)
            self._kept.append(cv2.cvtColor(frame.bgr, cv2.COLOR_BGR2RGB))
            if len(self._kept) == BATCH:
                self._encode(self._folder)

    def _encode(self, folder: Path) -> None:
        from reelmill.curation.models.vision import loaded  # loads torch and transformers

        beat()
        network = loaded(folder, self._device)
        self._family = network.family
        self._rows.append(network(self._kept).astype(np.float16))
        self._kept.clear()

    def finish(self, summary: DecodeSummary) -> dict[str, np.ndarray]:
        if self._kept and self._folder is not None:
            self._encode(self._folder)
        rows = np.concatenate(self._rows) if self._rows else np.zeros((0, 0), np.float16)
        return {
            "frame": np.array(self._frames, np.int64),
            "vector": rows,
            "family": np.frombuffer(self._family.encode(), np.uint8),
        }
