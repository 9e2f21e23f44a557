"""Motion as the encoder found it: the vectors that a decoder has at hand."""

from __future__ import annotations

from typing import Any

import numpy as np
from av.codec.context import Flags2
from av.video.frame import PictureType, VideoFrame
from av.video.stream import VideoStream

NOTHING = np.zeros((0, 3), np.float32)


def ask_for_vectors(stream: VideoStream) -> None:
    """Has a decoder give its vectors with each frame, as far as its codec has any."""
    stream.codec_context.flags2 |= Flags2.export_mvs


def coded_vectors(frame: VideoFrame) -> tuple[str, np.ndarray]:
    """How a frame is coded, `I`, `P`, `B` or another letter, and its blocks' motion.

    float32 [blocks, 3]: area in pixels, and motion to the right and down in coded pixels since the
    reference picture, of blocks that refer to the past. Empty where the codec gives none.
    """
    kind = PictureType(frame.pict_type).name[:1]
    side: Any
    for side in frame.side_data:
        if side.type.name == "MOTION_VECTORS":
            rows = side.to_ndarray()
            rows = rows[rows["source"] < 0]
            scale = np.maximum(rows["motion_scale"], 1).astype(np.float32)
            area = rows["w"].astype(np.float32) * rows["h"]
            moved = [-rows[name].astype(np.float32) / scale for name in ("motion_x", "motion_y")]
            return kind, np.stack([area, *moved], axis=1)
    return kind, NOTHING
