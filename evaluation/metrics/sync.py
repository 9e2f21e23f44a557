"""Picture and sound together: do they begin at the same moments, and by how much are they off?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from scipy.ndimage import gaussian_filter1d
from scipy.signal import find_peaks

from reelmill.evaluation.clip import ClipMedia
from reelmill.evaluation.damage import Damage
from reelmill.evaluation.lag import ENVELOPE_HZ, MAX_LAG_S, Lag
from reelmill.evaluation.metric import (
    AUDIBLE,
    MOTION,
    SOUND,
    Better,
    Condition,
    Metric,
    NotApplicable,
    Value,
)
from reelmill.evaluation.taxonomy import Stream

MIN_EVENTS, MAX_EVENTS_PER_S = 3, 4.0
TALLEST = 5  # peaks that say what is tall, so that one loud event hides no other
# With halves that agree: sound of another clip passes in 1 of 100 pairs of real clips.
MIN_LEAD, MIN_Z = 1.15, 3.0
BOTH: tuple[Condition, ...] = (MOTION, SOUND, AUDIBLE)


def matched(first: np.ndarray, second: np.ndarray, tolerance: float) -> list[tuple[int, int]]:
    """The most pairs of one time each, no time used twice, that lie within `tolerance` seconds.

    Both rising; indices are returned. The earliest partner is optimal for windows of one width.
    """
    pairs: list[tuple[int, int]] = []
    i = j = 0
    while i < len(first) and j < len(second):
        gap = first[i] - second[j]
        if abs(gap) <= tolerance + 1e-9:
            pairs.append((i, j))
            i, j = i + 1, j + 1
        elif gap < 0:
            i += 1
        else:
            j += 1
    return pairs


def sound_events(clip: ClipMedia) -> np.ndarray:
    """Onset times in seconds on the clock of the frames."""
    strength = clip.onsets
    if not len(strength) or strength.max() <= 0:
        return np.zeros(0)
    return peaks(gaussian_filter1d(strength, 1.0)) + clip.sound_start


def peaks(envelope: np.ndarray) -> np.ndarray:
    """Times in seconds of the distinct peaks of an envelope at 100 Hz."""
    places, _ = find_peaks(envelope, height=1e-9, distance=5)
    if not len(places):
        return np.zeros(0)
    tall = 0.25 * float(np.sort(envelope[places])[-TALLEST:].mean())
    places, _ = find_peaks(envelope, height=tall, prominence=tall, distance=5)
    return (places + 0.5) / ENVELOPE_HZ


def clear_lag(clip: ClipMedia) -> Lag | NotApplicable:
    """The lag, where it is clear: distinct events, one lag above all others, halves that agree."""
    lag = clip.lag
    if lag is None:
        return NotApplicable("shorter than 3 s, or nothing moves or begins")
    for what, envelope in (("motion", lag.seen), ("sound", lag.heard)):
        events = len(peaks(envelope))
        if not MIN_EVENTS <= events <= MAX_EVENTS_PER_S * clip.seconds:
            return NotApplicable(f"{what} has no distinct events: {events} peaks")
    if lag.lead < MIN_LEAD or lag.z < MIN_Z:
        return NotApplicable(
            f"no clear lag: the best leads by {lag.lead:.2f}, {lag.z:.1f} standard deviations"
        )
    if not lag.steady:
        return NotApplicable(
            f"the halves disagree: {lag.first:+.2f} s, {lag.second:+.2f} s, all {lag.seconds:+.2f}"
        )
    return lag


@dataclass(frozen=True, kw_only=True)
class AVAlign(Metric):
    """AV-Align: peaks of motion and onsets of sound, intersection over union.

    After TempoTokens (Yariv et al. 2023), but for four things. There one sound may match many
    motions, so that scores exceed 1: here peaks match one to one. Peaks are those of the change of
    movement, not of speed, since a ball that bounces is fast before and after, not when it sounds.
    They are taken where the sound seems to come from. And a motion's partner is the sound that
    belongs to it, found at the lag of `OnsetLag` within `tolerance_s`, not any that happens to be
    near; a pair counts in full when it is together, less the further it is apart, and nothing at
    `most_s`. So it applies where that lag is clear, and an offset always shows.
    """

    version: ClassVar = 2
    better: ClassVar = Better.HIGHER
    part: ClassVar = "effect_alignment"
    stream: ClassVar = Stream.BOTH
    applies_to: ClassVar = BOTH
    claims: ClassVar = frozenset({Damage.SHIFTED_SOUND})
    tolerance_s: float = 0.15
    most_s: float = MAX_LAG_S

    def _value(self, clip: ClipMedia) -> Value:
        lag = clear_lag(clip)
        if isinstance(lag, NotApplicable):
            return lag
        seen, heard = peaks(lag.seen), peaks(lag.heard)
        pairs = matched(seen + lag.seconds, heard, self.tolerance_s)
        gaps = np.array([abs(seen[i] - heard[j]) for i, j in pairs])
        together = np.maximum(0, 1 - gaps / self.most_s).sum()
        return float(together / (len(seen) + len(heard) - len(pairs)))


@dataclass(frozen=True, kw_only=True)
class OnsetLag(Metric):
    """Seconds by which sound follows motion: where their envelopes correlate best (lag.py).

    Positive: the sound is late. Looked for within 0.6 s. Applies where the lag is clear, which does
    not depend on how large it is.
    """

    version: ClassVar = 2
    unit: ClassVar = "s"
    better: ClassVar = Better.ZERO
    low: ClassVar = -MAX_LAG_S
    high: ClassVar = MAX_LAG_S
    part: ClassVar = "effect_alignment"
    stream: ClassVar = Stream.BOTH
    applies_to: ClassVar = BOTH
    claims: ClassVar = frozenset({Damage.SHIFTED_SOUND})

    def _value(self, clip: ClipMedia) -> Value:
        lag = clear_lag(clip)
        return lag if isinstance(lag, NotApplicable) else lag.seconds


@dataclass(frozen=True, kw_only=True)
class OnsetClarity(Metric):
    """How far the best lag of sound behind motion stands out, in standard deviations.

    Read it beside the two above, which leave out clips whose sound has nothing to do with their
    picture: those are low here. So are speech, music and steady noise; compare clips of one prompt.
    """

    unit: ClassVar = "standard deviations"
    better: ClassVar = Better.HIGHER
    low: ClassVar = -50.0
    high: ClassVar = 50.0
    part: ClassVar = "effect_alignment"
    stream: ClassVar = Stream.BOTH
    applies_to: ClassVar = BOTH

    def _value(self, clip: ClipMedia) -> Value:
        if clip.lag is None:
            return NotApplicable("shorter than 3 s, or nothing moves or begins")
        return clip.lag.z
