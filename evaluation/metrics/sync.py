"""Picture and sound together: do they begin at the same moments, and by how much are they off?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from scipy.ndimage import gaussian_filter1d
from scipy.signal import find_peaks

from reelmill.evaluation.clip import ClipMedia
from reelmill.evaluation.damage import Damage
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

ENVELOPE_HZ = 100
WINDOW_S = 0.032
MIN_EVENTS, MAX_EVENTS_PER_S = 3, 3.0
MERGED_S = 0.15  # a start and its stop are one event
FLOOR_DB = 60.0  # below the loudest band; what is fainter begins nothing
BOTH: tuple[Condition, ...] = (MOTION, SOUND, AUDIBLE)


def onset_strength(mono: np.ndarray, rate: int) -> np.ndarray:
    """How strongly sound begins, float64 [seconds * 100]; value i is at (i + 0.5) / 100 s.

    Spectral flux: rises in decibels, summed over bands of equal width on a logarithmic scale.
    """
    hop, window = rate / ENVELOPE_HZ, round(WINDOW_S * rate)
    count = int(len(mono) / hop)
    if count < 3:
        return np.zeros(max(0, count))
    padded = np.pad(np.asarray(mono, np.float64), window)
    starts = np.rint((np.arange(count) + 0.5) * hop + window / 2).astype(int)
    frames = padded[starts[:, None] + np.arange(window)] * np.hanning(window)
    power = np.square(np.abs(np.fft.rfft(frames, axis=1)))
    hz = np.fft.rfftfreq(window, 1 / rate)
    edges = np.searchsorted(hz, np.geomspace(60, max(200, 0.45 * rate), 25))
    edges = np.unique(edges)
    bands = np.add.reduceat(power, edges, axis=1)[:, :-1]
    level = 10 * np.log10(bands + 1e-12)
    level = np.maximum(level, level.max() - FLOOR_DB)
    rise = np.maximum(np.diff(level, axis=0, prepend=level[:1]), 0)
    return rise.mean(axis=1)


def matched(first: np.ndarray, second: np.ndarray, tolerance: float) -> int:
    """The most pairs of one time each, no time used twice, that lie within `tolerance` seconds.

    Both rising. Taking the earliest partner is optimal for windows of one width.
    """
    pairs = i = j = 0
    while i < len(first) and j < len(second):
        gap = first[i] - second[j]
        if abs(gap) <= tolerance + 1e-9:
            pairs, i, j = pairs + 1, i + 1, j + 1
        elif gap < 0:
            i += 1
        else:
            j += 1
    return pairs


def sound_events(clip: ClipMedia) -> np.ndarray:
    """Onset times in seconds on the clock of the frames."""
    strength = onset_strength(clip.mono, clip.rate)
    if not len(strength) or strength.max() <= 0:
        return np.zeros(0)
    smooth = gaussian_filter1d(strength, 1.0)
    most = smooth.max()
    peaks, _ = find_peaks(smooth, height=0.3 * most, prominence=0.25 * most, distance=5)
    return (peaks + 0.5) / ENVELOPE_HZ + clip.sound_start


def picture_events(clip: ClipMedia) -> np.ndarray:
    """Times in seconds at which movement changes most: starts, stops, bounces; and the cuts."""
    turn = np.nan_to_num(clip.flow.turn)
    if len(turn) < 3 or np.ptp(turn) <= 1e-4:
        return np.zeros(0)
    spread = turn.max() - np.median(turn)
    apart = max(1, round(MERGED_S * len(clip.times) / clip.end))
    peaks, _ = find_peaks(np.pad(turn, 1), prominence=0.4 * spread, distance=apart)
    return np.sort(np.concatenate([clip.times[peaks], clip.times[list(clip.cuts)]]))


def _indistinct(clip: ClipMedia, seen: np.ndarray, heard: np.ndarray) -> str:
    """Why these events cannot be told apart, or ""."""
    for what, events in (("motion", seen), ("sound", heard)):
        if len(events) < MIN_EVENTS:
            return f"{len(events)} peaks of {what}"
        if len(events) > MAX_EVENTS_PER_S * clip.seconds:
            return f"{what} has no distinct events: {len(events)} peaks"
    return ""


@dataclass(frozen=True, kw_only=True)
class AVAlign(Metric):
    """AV-Align: peaks of motion and onsets of sound, intersection over union.

    After TempoTokens (Yariv et al. 2023), but for three things. There one sound may match many
    motions, so that scores exceed 1: here peaks match one to one. Peaks are those of the change of
    velocity, not of speed, since a ball that bounces is fast before and after, not when it sounds.
    And the score is the mean over several tolerances, as in detection benchmarks, so that a
    growing offset shows before it passes the one tolerance. Says little about speech, music and
    steady noise: it applies where both streams have distinct events.
    """

    better: ClassVar = Better.HIGHER
    part: ClassVar = "effect_alignment"
    stream: ClassVar = Stream.BOTH
    applies_to: ClassVar = BOTH
    claims: ClassVar = frozenset({Damage.SHIFTED_SOUND})
    tolerances_s: tuple[float, ...] = (0.03, 0.06, 0.09, 0.12, 0.15, 0.18, 0.21, 0.24, 0.27, 0.3)

    def _value(self, clip: ClipMedia) -> Value:
        seen, heard = picture_events(clip), sound_events(clip)
        if why := _indistinct(clip, seen, heard):
            return NotApplicable(why)
        shares = []
        for tolerance in self.tolerances_s:
            pairs = matched(seen, heard, tolerance)
            shares.append(pairs / (len(seen) + len(heard) - pairs))
        return float(np.mean(shares))


@dataclass(frozen=True, kw_only=True)
class OnsetLag(Metric):
    """Seconds by which sound follows motion: where their envelopes correlate best.

    The picture's envelope is the change of velocity (things that start, stop, bounce), the sound's
    its onset strength. Positive: the sound is late. Looked for within half a second. Applies where
    both have distinct events, and the best correlation is at least `min_correlation` and by
    `min_lead` above those at lags further than `same_s` from it: none of which depends on how large
    the lag is. Wrong for two streams that have nothing to do with each other in a few per cent.
    """

    unit: ClassVar = "s"
    better: ClassVar = Better.ZERO
    low: ClassVar = -0.5
    high: ClassVar = 0.5
    part: ClassVar = "effect_alignment"
    stream: ClassVar = Stream.BOTH
    applies_to: ClassVar = BOTH
    claims: ClassVar = frozenset({Damage.SHIFTED_SOUND})
    max_lag_s: float = 0.5
    min_correlation: float = 0.5
    min_lead: float = 0.1
    same_s: float = 0.15
    smooth_s: float = 0.03

    def _value(self, clip: ClipMedia) -> Value:
        if why := _indistinct(clip, picture_events(clip), sound_events(clip)):
            return NotApplicable(why)
        turn = np.nan_to_num(clip.flow.turn)
        heard = onset_strength(clip.mono, clip.rate)
        clock = (np.arange(int(clip.end * ENVELOPE_HZ)) + 0.5) / ENVELOPE_HZ
        sound_clock = (np.arange(len(heard)) + 0.5) / ENVELOPE_HZ + clip.sound_start
        seen = np.interp(clock, clip.times[1:-1], turn, left=0, right=0)
        heard = np.interp(clock, sound_clock, heard, left=0, right=0)
        width = self.smooth_s * ENVELOPE_HZ
        lags, scores = _correlations(
            gaussian_filter1d(seen, width),
            gaussian_filter1d(heard, width),
            round(self.max_lag_s * ENVELOPE_HZ),
        )
        if not len(lags):
            return NotApplicable("too short for a lag")
        best = int(scores.argmax())
        others = scores[np.abs(lags - lags[best]) > self.same_s * ENVELOPE_HZ]
        lead = scores[best] - others.max(initial=0.0)
        if scores[best] < self.min_correlation or lead < self.min_lead:
            return NotApplicable(
                f"no clear lag: correlation {scores[best]:.2f}, {lead:.2f} above the next"
            )
        return float(lags[best] / ENVELOPE_HZ)


def _correlations(seen: np.ndarray, heard: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
    """Lags in samples, and Pearson correlation of seen[t] with heard[t + lag] where both are."""
    n = len(seen)
    most = min(most, n // 2)
    lags, scores = [], []
    for lag in range(-most, most + 1):
        a = seen[max(0, -lag) : n - max(0, lag)]
        b = heard[max(0, lag) : n - max(0, -lag)]
        if a.std() > 1e-9 and b.std() > 1e-9:
            lags.append(lag)
            scores.append(np.corrcoef(a, b)[0, 1])
    return np.array(lags, int), np.array(scores, float)
