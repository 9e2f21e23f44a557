"""A generated clip as the metrics see it: read once, kept small."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
from scenedetect.common import FrameTimecode
from scenedetect.detectors import AdaptiveDetector

from reelmill.datasets.media.container import describe
from reelmill.datasets.media.decode import AudioBlock, Frame, MediaInfo, decode, probe
from reelmill.datasets.sample import Kind
from reelmill.errors import MediaError
from reelmill.evaluation.bench import Prompt
from reelmill.evaluation.flow import FlowTrack, track_flow
from reelmill.evaluation.lag import Lag, find_lag, onset_strength
from reelmill.evaluation.spectrogram import frame_powers

MAX_SECONDS = 120.0
STILL_WIDTH = 640
SMALL_WIDTH = 256
STILLS_PER_SECOND = 2.0
# PySceneDetect's adaptive detector; at its own threshold of 3.0 fast camera moves pass for cuts.
CUT_THRESHOLD = 3.2
SHORTEST_SHOT_S = 0.3


@dataclass(frozen=True)
class ClipMedia:
    """One clip, decoded once for all metrics.

    times: float64 [n], seconds of each frame since the first; end: when the last one goes.
    gray: uint8 [n, h, w], luma, 256 px on the longer side at most. colour: float32 [n, 3], mean
    Lab of each frame (L 0 to 100). stills: uint8 BGR, 640 px at most, two a second. cuts: first
    frame of every shot but the first. samples: float32 [channels, m] at `rate` Hz, on the frames'
    clock: sample 0 sounds at `sound_start` seconds. prompt: what was asked for. transcript: what
    was heard, seen_text: what was read in the picture, by tools that are not ours; None: not known.
    """

    path: Path
    info: MediaInfo
    times: np.ndarray
    end: float
    gray: np.ndarray
    colour: np.ndarray
    stills: np.ndarray
    cuts: tuple[int, ...]
    samples: np.ndarray
    rate: int
    sound_start: float
    prompt: Prompt | None = None
    transcript: str | None = None
    seen_text: tuple[str, ...] | None = None

    @property
    def seconds(self) -> float:
        """Length of the picture, or of the sound where there is no picture."""
        return self.end if len(self.times) else self.samples.shape[1] / self.rate

    @property
    def mono(self) -> np.ndarray:
        """float32 [m], the mean of all channels."""
        return self.samples.mean(axis=0)

    @cached_property
    def mean_square(self) -> float:
        """Of all samples of all channels; 0 without sound."""
        return float(np.square(self.samples, dtype=np.float64).mean()) if self.samples.size else 0.0

    @cached_property
    def powers(self) -> np.ndarray:
        """float64 [frames, bins] of the sound: see spectrogram.py."""
        return frame_powers(self.samples, self.rate)

    @cached_property
    def flow(self) -> FlowTrack:
        """Optical flow of neighbouring frames, none across cuts."""
        return track_flow(self.gray, self.times, self.cuts)

    @cached_property
    def onsets(self) -> np.ndarray:
        """How strongly sound begins, at 100 Hz from `sound_start` on."""
        return onset_strength(self.mono, self.rate)

    @cached_property
    def lag(self) -> Lag | None:
        """By how much sound follows motion; None where there is nothing to compare."""
        return find_lag(self.gray, self.times, self.end, self.onsets, self.sound_start)

    def shots(self) -> list[slice]:
        """Frames of each shot."""
        edges = [0, *self.cuts, len(self.times)]
        return [slice(a, b) for a, b in pairwise(edges) if b > a]


def read_clip(
    path: Path,
    prompt: Prompt | None = None,
    *,
    transcript: str | None = None,
    seen_text: tuple[str, ...] | None = None,
) -> ClipMedia:
    """Reads a clip of two minutes at most. Raises MediaError for a longer or unreadable one."""
    info = probe(path)
    if info.kind is Kind.IMAGE:
        raise MediaError(f"{describe(path)} is a picture: clips with time or sound are measured.")
    if info.seconds is not None and info.seconds > MAX_SECONDS:
        raise MediaError(
            f"{describe(path)} lasts {info.seconds:.0f} s; clips of at most {MAX_SECONDS:.0f} s "
            "are measured. Cut it first."
        )
    reader = _Reader(path, info)
    summary = decode(
        path,
        info,
        reader.frame if info.video else None,
        reader.sound if info.audio else None,
        width=STILL_WIDTH,
    )
    tick = float(info.video.time_base) if info.video else 0.0
    times = (summary.frame_pts - summary.frame_pts[0]) * tick if len(reader.gray) else np.zeros(0)
    shift = info.audio.start_s - info.video.start_s if info.audio and info.video else 0.0
    return ClipMedia(
        path=path,
        info=info,
        times=times,
        end=float(times[-1] + summary.last_frame_ticks * tick) if len(times) else 0.0,
        gray=np.stack(reader.gray) if reader.gray else np.zeros((0, 0, 0), np.uint8),
        colour=np.array(reader.colour, np.float32).reshape(-1, 3),
        stills=np.stack(reader.stills) if reader.stills else np.zeros((0, 0, 0, 3), np.uint8),
        cuts=tuple(reader.cuts),
        samples=reader.samples(),
        rate=info.audio.rate if info.audio else 48_000,
        sound_start=shift,
        prompt=prompt,
        transcript=transcript,
        seen_text=seen_text,
    )


class _Reader:
    """Keeps of each frame what the metrics need, while it is decoded."""

    def __init__(self, path: Path, info: MediaInfo):
        self.path = path
        self.gray: list[np.ndarray] = []
        self.colour: list[np.ndarray] = []
        self.stills: list[np.ndarray] = []
        self.cuts: list[int] = []
        self._blocks: list[np.ndarray] = []
        self._channels = info.audio.channels if info.audio else 0
        rate = info.video.average_rate if info.video else None
        self._fps = float(rate or 25)
        self._detector = AdaptiveDetector(
            adaptive_threshold=CUT_THRESHOLD,
            min_scene_len=max(1, round(SHORTEST_SHOT_S * self._fps)),
        )

    def frame(self, frame: Frame) -> None:
        if frame.seconds > MAX_SECONDS:
            raise MediaError(f"{describe(self.path)} lasts longer than {MAX_SECONDS:.0f} s.")
        height, width = frame.gray.shape
        scale = min(1.0, SMALL_WIDTH / max(width, height))
        size = (max(2, round(width * scale)), max(2, round(height * scale)))
        small = cv2.resize(frame.bgr, size, interpolation=cv2.INTER_AREA)
        self.gray.append(cv2.resize(frame.gray, size, interpolation=cv2.INTER_AREA))
        lab = cv2.mean(cv2.cvtColor(small, cv2.COLOR_BGR2LAB))[:3]
        self.colour.append(np.array([lab[0] / 2.55, lab[1] - 128, lab[2] - 128]))
        if frame.seconds * STILLS_PER_SECOND + 1e-6 >= len(self.stills):
            self.stills.append(frame.bgr.copy())
        at = FrameTimecode(frame.index, fps=self._fps)
        self.cuts += [cut.frame_num for cut in self._detector.process_frame(at, small)]

    def sound(self, block: AudioBlock) -> None:
        self._blocks.append(block.samples)

    def samples(self) -> np.ndarray:
        if not self._blocks:
            return np.zeros((self._channels, 0), np.float32)
        return np.concatenate(self._blocks, axis=1)
