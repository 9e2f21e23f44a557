"""Writing in the picture, read by PP-OCR through rapidocr, whose wheel brings the networks."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

MOST = 4  # stills that are read: a seventh of a second of work each
LEAST_SCORE = 0.5


@cache
def _engine() -> Any:
    try:
        from rapidocr import RapidOCR
    except ImportError:
        return None
    return RapidOCR(
        params={
            "Global.log_level": "critical",
            "Det.limit_type": "max",  # else it enlarges small pictures: seven times the work
            "Det.limit_side_len": 640,
            "EngineConfig.onnxruntime.intra_op_num_threads": 1,
            "EngineConfig.onnxruntime.inter_op_num_threads": 1,
        }
    )


def read_writing(stills: np.ndarray) -> tuple[str, ...] | None:
    """The lines of text in stills uint8 BGR [n, h, w, 3]; None where rapidocr is not installed."""
    engine = _engine()
    if engine is None:
        return None
    lines: list[str] = []
    for i in np.unique(np.linspace(0, len(stills) - 1, MOST).round().astype(int)):
        found = engine(stills[i], use_cls=False)
        pairs = zip(found.txts or (), found.scores or (), strict=True)
        lines += [text for text, score in pairs if score >= LEAST_SCORE]
    return tuple(dict.fromkeys(lines))
