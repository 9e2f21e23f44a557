"""Chunks: long sound cut in its pauses, no piece longer than 15 s."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import ClassVar

import numpy as np

from reelmill.curation.audio.speech import WINDOW_MS, SpeechAnalyser
from reelmill.curation.audio.windows import Grid
from reelmill.curation.models.silero import RATE
from reelmill.curation.stage import (
    AudioStage,
    Bound,
    Fact,
    Facts,
    Resources,
    Segmenter,
    Tracks,
    at_least,
    knob,
)
from reelmill.datasets.media.decode import MediaInfo
from reelmill.datasets.sample import Clip, Kind


def cut_points(cost: np.ndarray, most: int, least: int) -> list[int]:
    """Where to cut a row of windows so that no piece has more than `most` of them.

    cost: float64 [n], of cutting before window i; 0 < 2 * least <= most. As few pieces as can be,
    none shorter than `least` (where the row itself is not), and of all such ways the one whose cuts
    cost least; of equal ones the first. By dynamic programming over the cuts.
    """
    count = len(cost)
    if count <= most:
        return []
    pieces = -(-count // most)
    cuts = pieces - 1
    total = np.zeros(1)
    starts = np.zeros(1, np.int64)  # where the pieces so far may end
    back: list[tuple[np.ndarray, np.ndarray]] = []
    for k in range(1, cuts + 1):
        left = pieces - k
        low = max(k * least, count - left * most)
        places = np.arange(low, min(k * most, count - left * least) + 1)
        best = np.empty(len(places))
        came = np.empty(len(places), np.int64)
        for i, place in enumerate(places):
            a, b = np.searchsorted(starts, [place - most, place - least + 1])
            came[i] = a + int(np.argmin(total[a:b]))
            best[i] = total[came[i]] + cost[place]
        back.append((places, came))
        total, starts = best, places
    at = int(np.argmin(total))
    found = []
    for places, came in reversed(back):
        found.append(int(places[at]))
        at = int(came[at])
    return found[::-1]


@dataclass(frozen=True, kw_only=True)
class Chunks(AudioStage, Segmenter):
    """Cuts sound that is longer than `max_seconds` where it pauses; shorter sound stays whole.

    As few chunks as can be, none shorter than a third of the longest allowed, cut where the level
    over 96 ms is lowest and, above all, outside of what silero-vad takes for speech; where speech
    goes on for longer than a chunk, at its quietest. Chunks touch: every sample of the file is in
    exactly one, and a chunk's clip says in which samples of its file it lies. 15 s: the paper,
    section 3.4.
    """

    kinds: ClassVar = frozenset({Kind.AUDIO})
    adds: ClassVar = (Fact("seconds", "s", "Length of the clip.", 0, 60),)
    paper: ClassVar = "section 3.4, audio of at most 15 s"
    resources: ClassVar = Resources(weights=("silero_vad",))
    max_seconds: Bound = knob(15.0)
    min_seconds: Bound = at_least(None, "seconds", "too_short")

    def open(self, info: MediaInfo) -> SpeechAnalyser:
        return SpeechAnalyser(info)

    def facts(self, tracks: Tracks, clip: Clip, info: MediaInfo) -> Facts:
        return {"seconds": clip.seconds}

    def segment(self, tracks: Tracks, whole: Clip, info: MediaInfo) -> list[Clip]:
        longest = self.max_seconds.value
        power = tracks["power"].astype(np.float64)
        if longest is None or info.audio is None or whole.seconds <= longest:
            return [whole]
        grid = Grid(info.audio.rate, WINDOW_MS)
        # One window less: edges are rounded to samples.
        most = max(3, int(longest * 1000) // WINDOW_MS - 1)
        cuts = cut_points(self._cost(power, tracks["speech"]), most, most // 3)
        inner = [int(grid.edges(cut, cut)[0]) for cut in cuts]
        edges = [whole.start_frame, *inner, whole.end_frame]
        return [
            replace(whole, start_pts=a, end_pts=b, start_frame=a, end_frame=b)
            for a, b in pairwise(edges)
        ]

    @staticmethod
    def _cost(power: np.ndarray, speech: np.ndarray) -> np.ndarray:
        """Of cutting before each window: its level in dB, and much more inside speech."""
        around = np.convolve(np.pad(power, (2, 0)), np.full(3, 1 / 3), "valid")[: len(power)]
        cost = np.maximum(0, 10 * np.log10(np.maximum(around, 1e-10)) + 100)
        at = np.arange(len(power)) * RATE * WINDOW_MS // 1000
        inside = np.searchsorted(speech[:, 0], at, "left") - 1
        if len(speech):
            spoken = (inside >= 0) & (at < speech[np.maximum(inside, 0), 1])
            cost[spoken] += 1000
        return cost
