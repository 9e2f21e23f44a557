"""LipLag as an adapter of `reelmill evaluate`: `python -m ... MANIFEST SCORES`, in its own process.

For clips that speak: one whose prompt asks for neither dialogue nor singing gets no score. The
face detector is that of the folder that REELMILL_WEIGHTS names.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import cv2

from reelmill.curation.models.weights import Weights
from reelmill.errors import MediaError, WeightsError
from reelmill.evaluation.clip import read_clip
from reelmill.evaluation.metric import NoValue
from reelmill.evaluation.metrics.lips import LipLag

WEIGHTS = "face_yunet"


def detector() -> str:
    """Where the face detector lies. Raises WeightsError when it is absent."""
    folder = Weights().path(WEIGHTS)
    if folder is None:
        raise WeightsError(f"weights '{WEIGHTS}' are absent; `reelmill weights fetch {WEIGHTS}`.")
    return str(next(folder.glob("*dynamic.onnx")))


def rated(row: dict[str, Any], metric: LipLag) -> float | str:
    """The lag, or why there is none. Raises MediaError."""
    if row.get("text") is not None and not (row.get("dialogue") or row.get("singing")):
        return "the prompt asks for no dialogue"
    value = metric.measure(read_clip(Path(row["path"])))
    return value.why if isinstance(value, NoValue) else value


def main() -> None:
    cv2.setNumThreads(1)
    manifest, scores = map(Path, sys.argv[1:3])
    metric = LipLag(detector=detector())
    with scores.open("w", encoding="utf-8") as file:
        for line in manifest.read_text("utf-8").splitlines():
            row = json.loads(line)
            try:
                found = rated(row, metric)
            except MediaError as error:
                print(f"{row['path']}: {error}", file=sys.stderr)
                continue
            told: dict[str, Any] = {"key": row["key"], "metric": metric.name}
            told |= {"value": None, "why": found} if isinstance(found, str) else {"value": found}
            file.write(json.dumps(told) + "\n")
            file.flush()


if __name__ == "__main__":
    main()
