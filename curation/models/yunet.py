"""YuNet: where faces are in a picture."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import onnxruntime

from reelmill.curation.models.silero import single_thread
from reelmill.errors import WeightsError

MIN_SCORE = 0.6  # OpenCV's samples use 0.9: a turned head scores less
OVERLAP = 0.3  # of two boxes, of their union: more, and they are one face
FILE = "yunet_n_dynamic.onnx"
STRIDES = (8, 16, 32)
SIDES = 32  # a picture's sides are filled up to multiples of it


class YuNet:
    """The detector of Wu et al. (2023, "YuNet: a tiny millisecond-level face detector").

    Run in ONNX Runtime, which takes a third of the time that OpenCV's FaceDetectorYN does, with
    that class's rules. folder: of the weights `face_yunet`. Raises WeightsError for a file that is
    no such network.
    """

    def __init__(self, folder: Path):
        path = folder / FILE
        try:
            self._session = onnxruntime.InferenceSession(
                path, single_thread(), ["CPUExecutionProvider"]
            )
        except Exception as error:  # of kinds that ONNX Runtime does not name
            raise WeightsError(f"{path} is no network in ONNX form: {error}") from error
        self._names = [f"{part}_{s}" for part in ("cls", "obj", "bbox") for s in STRIDES]
        if not set(self._names) <= {output.name for output in self._session.get_outputs()}:
            raise WeightsError(f"{path} is no face detector of YuNet's layout.")

    def __call__(self, rgb: np.ndarray) -> np.ndarray:
        """float32 [faces, 5] of a picture uint8 RGB [h, w, 3]: left, top, right, bottom, score.

        In pixels; the surest first.
        """
        height, width = rgb.shape[:2]
        high, wide = (-(-side // SIDES) * SIDES for side in (height, width))
        picture = np.zeros((1, 3, high, wide), np.float32)
        picture[0, :, :height, :width] = rgb[..., ::-1].transpose(2, 0, 1)
        outputs = self._session.run(self._names, {"input": picture})
        rows = [
            _rows(outputs[i][0], outputs[i + 3][0], outputs[i + 6][0], wide // stride, stride)
            for i, stride in enumerate(STRIDES)
        ]
        faces = np.concatenate(rows)
        if not len(faces):
            return faces
        corner_and_size = np.concatenate([faces[:, :2], faces[:, 2:4] - faces[:, :2]], axis=1)
        kept = cv2.dnn.NMSBoxes(corner_and_size.tolist(), faces[:, 4].tolist(), MIN_SCORE, OVERLAP)
        return faces[np.asarray(kept, int).reshape(-1)]


def _rows(
    face: np.ndarray, object_: np.ndarray, box: np.ndarray, columns: int, stride: int
) -> np.ndarray:
    """float32 [n, 5] of one stride's anchors that score enough."""
    scores = np.sqrt(np.clip(face[:, 0], 0, 1) * np.clip(object_[:, 0], 0, 1))
    at = np.flatnonzero(scores >= MIN_SCORE)
    cell = np.stack([at % columns, at // columns], axis=1)
    middle = (cell + box[at, :2]) * stride
    half = np.exp(box[at, 2:]) * stride / 2
    found = np.concatenate([middle - half, middle + half, scores[at, None]], axis=1)
    return found.astype(np.float32)
