"""Reading media safely: what a file holds, its frames, its sound."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from reelmill.datasets.sample import Kind


@dataclass(frozen=True, slots=True)
class VideoInfo:
    """The video stream that is read. width, height: as displayed (rotation and SAR applied)."""

    width: int
    height: int
    coded_width: int
    coded_height: int
    rotation: int
    sample_aspect: Fraction
    time_base: Fraction
    average_rate: Fraction | None
    frames_expected: int | None
    codec: str
    pixel_format: str
    start_s: float


@dataclass(frozen=True, slots=True)
class AudioInfo:
    """The audio stream that is read. start_s: its first pts, on the container's clock."""

    rate: int
    channels: int
    codec: str
    start_s: float


@dataclass(frozen=True, slots=True)
class MediaInfo:
    """What a file holds, found from its content and not from its name."""

    kind: Kind
    container: str
    seconds: float | None
    bytes: int
    video: VideoInfo | None
    audio: AudioInfo | None


@dataclass(frozen=True, slots=True)
class Frame:
    """One decoded frame, upright, scaled to the analysis size (256 px wide at most by default).

    bgr: uint8 [height, width, 3]; gray: uint8 [height, width] (its luma).
    """

    index: int
    pts: int
    seconds: float  # since the first frame
    bgr: np.ndarray
    gray: np.ndarray


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
    last_frame_ticks: length of the last frame in ticks.
    """

    frame_pts: np.ndarray
    last_frame_ticks: int
    packets: int
    decode_errors: int
    samples: int
    error: str
