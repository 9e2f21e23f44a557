"""A sheet of frames: a clip at one look."""

from __future__ import annotations

import cv2
import numpy as np

COLUMNS, ROWS, WIDTH = 4, 3, 192


def contact_sheet(frames: np.ndarray) -> np.ndarray:
    """uint8 RGB: up to 12 frames of [F, H, W, 3], evenly spaced from first to last, row by row."""
    count = min(len(frames), COLUMNS * ROWS)
    chosen = np.linspace(0, len(frames) - 1, count).round().astype(int)
    height = max(1, round(frames.shape[1] * WIDTH / frames.shape[2]))
    how = cv2.INTER_AREA if frames.shape[2] > WIDTH else cv2.INTER_NEAREST
    columns = min(count, COLUMNS)
    rows = -(-count // columns)
    sheet = np.zeros((rows * height, columns * WIDTH, 3), np.uint8)
    for place, index in enumerate(chosen):
        top, left = place // columns * height, place % columns * WIDTH
        small = cv2.resize(frames[index], (WIDTH, height), interpolation=how)
        sheet[top : top + height, left : left + WIDTH] = small
    return sheet
