"""What a decode gives: frames, blocks of sound, and what it was like as a whole."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Frame:
    """One decoded frame, upright, scaled to the analysis size (longer side 256 px at most).

    vectors: how it is coded, and its motion vectors where `decode` asks for them (vectors.py).
    gray: uint8 [height, width], its luma. colour, luma: what `bgr` and `full_luma` come from; while
    the second is held, so is the whole picture as decoded.
    """

    index: int
    pts: int
    seconds: float  # since the first frame
    gray: np.ndarray
    colour: Callable[[], np.ndarray] = field(repr=False, compare=False)
    luma: Callable[[], np.ndarray] = field(repr=False, compare=False)
    vectors: Callable[[], tuple[str, np.ndarray]] = field(
        default=lambda: ("", np.zeros((0, 3), np.float32)), repr=False, compare=False
    )

    @cached_property
    def bgr(self) -> np.ndarray:
        """uint8 [height, width, 3], converted when first asked for."""
        return self.colour()

    @cached_property
    def full_luma(self) -> np.ndarray:
        """Luma as coded, neither scaled nor turned: uint8 [coded height, coded width]."""
        return self.luma()


@dataclass(frozen=True)
class AudioBlock:
    """Consecutive decoded sound, in blocks that end at multiples of 3.2 s (12.8 s at low rates).

    start: index of the first sample since the start of the stream. samples: float32 [channels, n]
    at the stream's own rate, not to be written to. mono: what `mono16k` comes from. shared: one
    for all blocks of a stream, where those who hear it may leave what others would do again.
    """

    start: int
    samples: np.ndarray
    mono: Callable[[], np.ndarray] = field(repr=False, compare=False)
    shared: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @cached_property
    def mono16k(self) -> np.ndarray:
        """float32 [m]: the same sound mixed down and resampled to 16 kHz, when first asked for.

        A resampler remembers: ask every block of a stream, in order, or none.
        """
        return self.mono()


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
