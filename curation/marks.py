"""Boxes that stages found in a clip's picture, drawn into its preview."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np

from reelmill.curation.units import Column
from reelmill.datasets.media.decode import MediaInfo

COLOURS = {  # RGB
    "bars": (255, 210, 0),
    "overlay": (255, 60, 60),
    "text": (0, 220, 255),
    "face": (120, 255, 90),
    "stamp": (255, 140, 0),
    "watermark": (255, 90, 220),
    "logo": (190, 120, 255),
}
BOXES = {  # facts that hold boxes as text
    "text": "text_box",
    "face": "face_boxes",
    "stamp": "stamp_boxes",
    "watermark": "watermark_boxes",
    "logo": "logo_boxes",
}
SIDES = {
    "bars": ("crop_x", "crop_y", "crop_w", "crop_h"),
    "overlay": ("overlay_x", "overlay_y", "overlay_w", "overlay_h"),
}


@dataclass(frozen=True, slots=True)
class Mark:
    """A box, its sides as shares of the picture's. name: one of COLOURS."""

    name: str
    left: float
    top: float
    right: float
    bottom: float


def marks_of(columns: Mapping[str, Column], row: int, info: MediaInfo) -> tuple[Mark, ...]:
    """Boxes among the facts of one clip: the picture inside its bars, overlays, text, faces."""
    if info.video is None:
        return ()
    width, height = info.video.width, info.video.height
    found = []
    for name, sides in SIDES.items():
        if all(side in columns for side in sides):
            x, y, w, h = (float(columns[side].values[row]) for side in sides)
            if not np.isnan([x, y, w, h]).any() and (w, h) != (width, height):
                found.append(Mark(name, x / width, y / height, (x + w) / width, (y + h) / height))
    for name, fact in BOXES.items():
        boxes = columns[fact].values[row] if fact in columns else None
        for box in boxes.split(";") if isinstance(boxes, str) else ():
            left, top, right, bottom = (float(side) for side in box.split())
            found.append(Mark(name, left, top, right, bottom))
    return tuple(found)


def digest(marks: tuple[Mark, ...]) -> str:
    """Names a picture with these marks; empty without any."""
    return hashlib.sha256(repr(marks).encode()).hexdigest()[:12] if marks else ""


def draw(rgb: np.ndarray, marks: tuple[Mark, ...]) -> np.ndarray:
    """A copy of a picture, uint8 RGB [height, width, 3], with the boxes and their names."""
    drawn = np.ascontiguousarray(rgb).copy()
    height, width = drawn.shape[:2]
    for mark in marks:
        first = (round(mark.left * width), round(mark.top * height))
        last = (round(mark.right * width) - 1, round(mark.bottom * height) - 1)
        place = (first[0] + 2, min(height - 3, max(10, first[1] - 3)))
        for colour, thick in (((0, 0, 0), 3), (COLOURS[mark.name], 1)):
            cv2.rectangle(drawn, first, last, colour, thick)
            cv2.putText(drawn, mark.name, place, cv2.FONT_HERSHEY_SIMPLEX, 0.35, colour, thick)
    return drawn
