"""Voice: where somebody speaks, and where nothing at all is heard."""

from __future__ import annotations

from dataclasses import dataclass
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
    NotApplicable,
    Resources,
    Tracks,
    below,
)
from reelmill.datasets.media.clock import sound_span
from reelmill.datasets.media.decode import MediaInfo
from reelmill.datasets.sample import Clip


@dataclass(frozen=True, kw_only=True)
class Voice(AudioStage):
    """Shares of a clip's time with speech, and with silence.

    Speech: the spans of silero-vad at its own defaults. Silence: windows of 32 ms outside every
    span of speech whose level is below `silence_dbfs` (mean square over all channels), and the
    time of the clip before its sound begins or after it ends. So music and effects are not silence,
    and a quiet word is not either. -60 dBFS is the default of FFmpeg's silencedetect and the
    paper's floor for mean volume.

    The paper keeps silence ratios below 0.2 for audio (section 3.4); for video it
    says nothing, so the bound is off until a recipe sets it.
    """

    adds: ClassVar = (
        Fact("speech_ratio", "", "Share of the clip's time with speech."),
        Fact("silence_ratio", "", "Share of the clip's time with neither speech nor sound."),
    )
    paper: ClassVar = "section 3.4"
    resources: ClassVar = Resources(weights=("silero_vad",))
    speech_threshold: float = 0.5
    silence_dbfs: float = -60.0
    max_silence_ratio: Bound = below(None, "silence_ratio", "mostly_silent")

    def open(self, info: MediaInfo) -> SpeechAnalyser:
        return SpeechAnalyser(info, self.speech_threshold)

    def facts(self, tracks: Tracks, clip: Clip, info: MediaInfo) -> Facts:
        total = int(tracks["samples"][0])
        if info.audio is None or not total:
            return dict.fromkeys(("speech_ratio", "silence_ratio"), NotApplicable("no sound"))
        rate = info.audio.rate
        first, last = sound_span(clip, info)
        if first >= last:
            return dict.fromkeys(("speech_ratio", "silence_ratio"), NotApplicable("no length"))
        grid = Grid(rate, WINDOW_MS)
        windows, shares = grid.shares(first, last, total)
        edges = max(first, 0) + np.concatenate(([0], np.cumsum(shares)))
        spoken = np.diff(_spoken_before(tracks["speech"], edges / rate))
        quiet = tracks["power"][windows] < 10 ** (self.silence_dbfs / 10)
        unspoken = np.maximum(shares / rate - spoken, 0)
        length = (last - first) / rate
        silent = length - shares.sum() / rate + float(unspoken[quiet].sum())
        return {
            "speech_ratio": min(1.0, float(spoken.sum() / length)),
            "silence_ratio": min(1.0, max(0.0, silent / length)),
        }


def _spoken_before(spans: np.ndarray, seconds: np.ndarray) -> np.ndarray:
    """Seconds of speech before each time."""
    if not len(spans):
        return np.zeros(len(seconds))
    lengths = np.stack([np.zeros(len(spans)), (spans[:, 1] - spans[:, 0]) / RATE], axis=1)
    before = np.concatenate(([0], np.cumsum(lengths[:-1, 1])))[:, None]
    return np.interp(seconds, spans.ravel() / RATE, (lengths + before).ravel())
