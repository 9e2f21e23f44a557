"""EventSync: do things sound when they are seen to happen? For sound other than speech."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import cv2
import numpy as np

from reelmill.curation.stage import (
    Bound,
    ClipMedia,
    ClipStage,
    Fact,
    Facts,
    NotApplicable,
    NoValue,
    WeightsStore,
    at_most,
)
from reelmill.datasets.sample import Kind

RATE = 16_000
HOP = 160  # 10 ms
FRAME = 512
BANDS = 24
HEIGHT = 96  # of the frames that flow is measured in
SPAN = 2  # flows on each side of a change of motion
LAG_S = 0.02
APART_S = 0.1  # lags further than this from the best compete with it
LOUDEST = 40.0  # robust deviations that one onset counts at most
LIVELIEST = 8.0
_NAMES = ("event_offset", "event_confidence", "event_shift")


def onsets(sound: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Seconds and strengths of sudden rises in the spectrum of float32 [n] at 16 kHz.

    The rise of log power over 20 ms, summed over 24 bands; a peak within 60 ms that lies 4 robust
    deviations above the median. Strength: in those deviations.
    """
    count = len(sound) // HOP
    if count < 3:
        return np.zeros(0), np.zeros(0)
    padded = np.pad(sound, (FRAME // 2, FRAME))
    rows = np.lib.stride_tricks.sliding_window_view(padded, FRAME)[: count * HOP : HOP]
    power = np.square(np.abs(np.fft.rfft(rows * np.hanning(FRAME).astype(np.float32))))
    edges = np.unique(np.round(np.geomspace(3, FRAME // 2, BANDS + 1)).astype(int))
    quiet = 1e-4 * float(np.median(power.sum(axis=1))) + 1e-9
    bands = np.log(np.add.reduceat(power, edges[:-1], axis=1) + quiet)
    rise = np.maximum(bands[2:] - bands[:-2], 0).sum(axis=1)
    strength = _deviations(rise)
    around = np.lib.stride_tricks.sliding_window_view(np.pad(rise, 6), 13).max(axis=1)
    found = np.flatnonzero((strength > 4) & (rise >= around))
    return (found + 1) * HOP / RATE, strength[found]


def turns(frames: np.ndarray, fps: float) -> tuple[np.ndarray, np.ndarray]:
    """Seconds and sizes of changes of motion, from uint8 RGB [frames, h, w, 3].

    The mean optical flow of a picture, less the median that a moving camera gives all of it, is
    what its things move with on the whole; a bounce, a blow or a step turns it. Size: length of the
    difference between the flows after and before a frame, in pixels per second. Frames that repeat
    the one before are passed over.
    """
    gray = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames]
    kept = [0] + [i for i in range(1, len(gray)) if not np.array_equal(gray[i], gray[i - 1])]
    if len(kept) < 4 * SPAN:
        return np.zeros(0), np.zeros(0)
    seconds = np.array(kept) / fps
    search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    flows = []
    for i, (before, after) in enumerate(pairwise(kept)):
        flow = search.calc(gray[before], gray[after], None).reshape(-1, 2)
        moved = flow.mean(axis=0, dtype=np.float64) - np.median(flow, axis=0)
        flows.append(moved / (seconds[i + 1] - seconds[i]))
    sums = np.concatenate((np.zeros((1, 2)), np.cumsum(flows, axis=0)))
    at = np.arange(1, len(flows))
    last, first = np.minimum(at + SPAN, len(flows)), np.maximum(at - SPAN, 0)
    after_ = (sums[last] - sums[at]) / (last - at)[:, None]
    before_ = (sums[at] - sums[first]) / (at - first)[:, None]
    return seconds[1:-1], np.linalg.norm(after_ - before_, axis=1)


def agreement(
    heard: tuple[np.ndarray, np.ndarray], seen: tuple[np.ndarray, np.ndarray], lags: np.ndarray
) -> np.ndarray:
    """float64 [lags]: how much livelier the picture is `lag` before the onsets than on the whole.

    In standard errors of that mean, were the onsets unrelated to the picture; 0 where fewer than 3
    onsets fall inside.
    """
    times, strengths = heard
    seconds, sizes = seen
    lively = np.clip(_deviations(sizes), -1, LIVELIEST)
    weights = np.sqrt(np.minimum(strengths, LOUDEST))
    spread = float(lively.std()) + 1e-9
    found = np.zeros(len(lags))
    for i, lag in enumerate(lags):
        at = times - lag
        inside = (at >= seconds[0]) & (at <= seconds[-1])
        if inside.sum() >= 3:
            w = weights[inside]
            mean = float(w @ np.interp(at[inside], seconds, lively)) / float(w.sum())
            found[i] = (mean - float(lively.mean())) / spread * np.sqrt(inside.sum())
    return found


def _deviations(values: np.ndarray) -> np.ndarray:
    away = values - np.median(values)
    return away / (1.4826 * float(np.median(np.abs(away))) + 1e-9)


@dataclass(frozen=True, kw_only=True)
class EventSync(ClipStage):
    """Offset between sudden sounds and sudden changes of motion, for sound that is no speech.

    Lags up to `reach_s` are tried. The best one's agreement, less that of the next best elsewhere,
    is the confidence. `event_shift` is the size of the offset, where the best agreement is at least
    `min_agreement` and the confidence at least `min_confidence`: else nothing is known, as with
    few onsets, a still picture, or sounds whose cause is not in the picture. Positive offsets: the
    sound is late. 0.12 s is what the paper allows lips, 3 frames of 25 a second (section 3.4).
    """

    kinds: ClassVar = frozenset({Kind.VIDEO})
    needs: ClassVar = ("speech_ratio",)
    adds: ClassVar = (
        Fact("event_offset", "s", "By how much sounds come after what is seen.", -0.6, 0.6),
        Fact("event_confidence", "", "Lead of that offset over all others.", 0.0, 5.0),
        Fact("event_shift", "s", "Size of the offset, where it is sure.", 0.0, 0.6),
    )
    paper: ClassVar = "section 3.4, synchronisation, for sounds other than speech"
    reach_s: float = 0.6
    max_speech: float = 0.5
    least_onsets: int = 4
    min_agreement: float = 3.0
    min_confidence: float = 1.0
    max_shift: Bound = at_most(0.12, "event_shift", "shifted")

    @contextmanager
    def session(
        self, weights: WeightsStore
    ) -> Iterator[Callable[[Sequence[ClipMedia]], list[Facts]]]:
        yield lambda clips: [self._facts(clip) for clip in clips]

    def _facts(self, media: ClipMedia) -> Facts:
        speech = media.facts["speech_ratio"]
        if isinstance(speech, NoValue):
            return dict.fromkeys(_NAMES, speech)
        assert isinstance(speech, float)
        if speech > self.max_speech:
            return dict.fromkeys(_NAMES, NotApplicable("speech: its events are lips"))
        heard = onsets(media.audio(RATE))
        if len(heard[0]) < self.least_onsets:
            return dict.fromkeys(_NAMES, NotApplicable("too few sudden sounds"))
        video = media.info.video
        fps = min(50.0, float(video.average_rate)) if video and video.average_rate else 25.0
        seen = turns(media.frames(fps, HEIGHT), fps)
        if len(seen[0]) < 3 or not seen[1].any():
            return dict.fromkeys(_NAMES, NotApplicable("a still picture"))
        steps = round(self.reach_s / LAG_S)
        lags = np.arange(-steps, steps + 1) * LAG_S
        scores = agreement(heard, seen, lags)
        best = int(scores.argmax())
        rest = float(scores[np.abs(lags - lags[best]) > APART_S].max())
        lead, offset = float(scores[best]) - rest, float(lags[best])
        inside = 0 < best < len(lags) - 1  # at the end of the reach it may go on rising
        sure = inside and scores[best] >= self.min_agreement and lead >= self.min_confidence
        return {
            "event_offset": offset,
            "event_confidence": lead,
            "event_shift": abs(offset) if sure else NotApplicable("no offset stands out"),
        }
