"""Which latents of a picture or a video are given, for tasks that make the rest (M8).

Shapes of what is made anew: a box in all frames, a box in some, whole frames, all but a box
(VideoX-Fun trains on such).
"""

from __future__ import annotations

import numpy as np


def prefix(frames: int, random: np.random.Generator) -> np.ndarray:
    """bool [T]: the first k latent frames, k of 1 to T - 1 (a video that goes on)."""
    return np.arange(frames) < random.integers(1, max(frames, 2))


def region(frames: int, height: int, width: int, random: np.random.Generator) -> np.ndarray:
    """bool [T, h, w], true where a latent is given; never all of them.

    A box has a quarter to three quarters of each side.
    """
    kind = int(random.integers(4 if frames > 1 else 2))
    box = np.zeros((height, width), np.bool_)
    sides = [_span(side, random) for side in (height, width)]
    box[slice(*sides[0]), slice(*sides[1])] = True
    made = np.zeros((frames, height, width), np.bool_)
    if kind == 0:
        made[:] = box
    elif kind == 1:
        made[:] = ~box
    else:
        first, last = _span(frames, random)
        made[first:last] = box if kind == 2 else True
    return ~made if made.any() else made  # of one latent, a box is all there is


def _span(size: int, random: np.random.Generator) -> tuple[int, int]:
    """[from, to) with a quarter to three quarters of `size`, 1 or more."""
    length = max(1, round(size * random.uniform(0.25, 0.75)))
    first = int(random.integers(size - length + 1))
    return first, first + length
