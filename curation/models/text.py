"""Text in pictures: PP-OCR through rapidocr, whose wheel brings the networks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np


@dataclass(frozen=True, slots=True)
class Line:
    """One line of text. box: (left, top, right, bottom) as shares of width and height.

    area: of the text's own, maybe slanted, outline, as a share of the picture. score: 0 to 1.
    """

    text: str
    score: float
    box: tuple[float, float, float, float]
    area: float


class TextReader:
    """Finds and reads lines of text with the networks in a folder."""

    def __init__(self, folder: Path) -> None:
        from rapidocr import RapidOCR

        self._reader = RapidOCR(
            params={
                "Global.use_cls": False,
                "Global.log_level": "error",
                "Det.limit_type": "max",  # pictures are shrunk to it, none is enlarged
                "Det.limit_side_len": 1280,
                "Det.model_path": str(folder / "PP-OCRv6_det_small.onnx"),
                "Rec.model_path": str(folder / "PP-OCRv6_rec_small.onnx"),
                "EngineConfig.onnxruntime.intra_op_num_threads": 1,
                "EngineConfig.onnxruntime.inter_op_num_threads": 1,
            }
        )

    def __call__(self, rgb: np.ndarray) -> list[Line]:
        """Lines in a picture, uint8 RGB [height, width, 3]."""
        height, width = rgb.shape[:2]
        found: Any = self._reader(np.ascontiguousarray(rgb[..., ::-1]), use_cls=False)
        if found.boxes is None or found.txts is None or found.scores is None:
            return []
        lines = []
        for corners, text, score in zip(found.boxes, found.txts, found.scores, strict=True):
            x, y = np.asarray(corners, np.float64).T
            area = abs(float((x * np.roll(y, -1) - y * np.roll(x, -1)).sum())) / 2
            left, right = np.clip([x.min() / width, x.max() / width], 0, 1)
            top, bottom = np.clip([y.min() / height, y.max() / height], 0, 1)
            box = (float(left), float(top), float(right), float(bottom))
            lines.append(Line(str(text), float(score), box, area / (width * height)))
        return lines
