"""What a decode gives: frames, blocks of sound, and what it was like as a whole."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np


@dataclass(frozen=True)
class Frame:
    """One decoded frame, upright, scaled to the analysis size (longer side 256 px at most).

    gray: uint8 [height, width], its luma. colour, luma: what `bgr` and `full_luma` come from; while
    the second is held, so is the whole picture as decoded.
    """

    index: int
    pts: int
    seconds: float  # since the first frame
    gray: np.ndarray
    colour: Callable[[], np.ndarray] = field(repr=False, compare=False)
    luma: Callable[[], np.ndarray] = field(repr=False, compare=False)

    @cached_property
    def bgr(self) -> np.ndarray:
        """uint8 [height, width, 3], converted when first asked for."""
        return self.colour()

    @cached_property
    def full_luma(self) -> np.ndarray:
        """Luma as coded, neither scaled nor turned: uint8 [coded height, coded width]."""
        return self.luma()


@dataclass(frozen=True, slots=True)
class AudioBlock:
    """Consecutive decoded sound.

    samples: float32 [channels, n] at the stream's own rate; mono16k: float32 [m], the same sound
    mixed down and resampled to 16 kHz (m may be 0 while the resampler fills).
    start: index of the first sample since the start of the stream.
    """

    start: int
    samples: np.ndarray
    mono16k: np.ndarray


@dataclass(frozen=True, slots=True)
class DecodeSummary:
    """What a whole decode of an asset found, for stages that judge the decode itself.

    frame_pts: int64 [frames], in presentation order, in ticks of the video's time_base.
    last_frame_ticks: length of the last frame in ticks. packets: of the video stream.
    decode_errors: packets that could not be decoded, frames that the decoder marked as damaged,
    frames and sound without a place in time. samples: per channel, at the stream's own rate,
    `gap_samples` of them silence put in (or sound dropped) where timestamps jump.
    error: what ended the reading before the end of the file, or "".
    """

    frame_pts: np.ndarray
    last_frame_ticks: int
    packets: int
    decode_errors: int
    samples: int
    error: str
    gap_samples: int = 0
