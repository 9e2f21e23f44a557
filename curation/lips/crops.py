"""Pictures of one face, held still, as the networks for lips want them."""

from __future__ import annotations

import cv2
import numpy as np

SIDE = 224
MARGIN = 0.4  # of half a face's longer side, more on each side; below it twice that
GREY = (110, 110, 110)  # beyond the picture's edge
MIDDLE = 112  # of what a network for talking sees: the middle half


def crops(frames: np.ndarray, boxes: np.ndarray, side: int = SIDE) -> np.ndarray:
    """uint8 RGB [n, side, side, 3] of frames uint8 RGB [n, h, w, 3] and boxes float [n, 4].

    The geometry of syncnet_python: a square 1.4 times as wide as the face's longer side is long,
    its upper edge on the face's, so that chin and jaw are inside.
    """
    middle = (boxes[:, :2] + boxes[:, 2:]) / 2
    half = np.maximum(boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]) / 2
    out = np.empty((len(frames), side, side, 3), np.uint8)
    for i, frame in enumerate(frames):
        scale = 2 * half[i] * (1 + MARGIN) / side
        left, top = middle[i, 0] - half[i] * (1 + MARGIN), middle[i, 1] - half[i]
        shift = (scale - 1) / 2  # so that pixels' middles, not their corners, lie on each other
        warp = np.array([[scale, 0, left + shift], [0, scale, top + shift]])
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        if scale > 1.5:  # else every second pixel would be left out
            flags = cv2.INTER_AREA | cv2.WARP_INVERSE_MAP
            frame = cv2.blur(frame, (round(scale), round(scale)))
        out[i] = cv2.warpAffine(
            frame, warp, (side, side), flags=flags, borderMode=cv2.BORDER_CONSTANT, borderValue=GREY
        )
    return out


def grey_middles(faces: np.ndarray) -> np.ndarray:
    """uint8 [n, 112, 112]: the middle half of crops [n, 224, 224, 3], grey, for Light-ASD."""
    edge = (faces.shape[1] - MIDDLE) // 2
    inner = faces[:, edge : edge + MIDDLE, edge : edge + MIDDLE]
    return np.stack([cv2.cvtColor(face, cv2.COLOR_RGB2GRAY) for face in inner])
