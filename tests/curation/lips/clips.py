"""Clips for stages that look at faces: of real files, and of made-up facts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from reelmill.curation.measure import LazyMedia
from reelmill.curation.media_table import summary_tracks, whole_clip
from reelmill.curation.stage import ClipStage, Facts
from reelmill.datasets.media.decode import MediaInfo, decode, probe
from reelmill.datasets.sample import Clip


def clip_of(path: Path, **facts: object) -> LazyMedia:
    """The whole of a file as the engine shows it."""
    info = probe(path)
    summary = decode(path, info, lambda frame: None, (lambda b: None) if info.audio else None)
    clip = whole_clip("a" * 64, info, summary_tracks(summary))
    return LazyMedia(clip, info, facts, path)  # type: ignore[arg-type]


def measured(stage: ClipStage, weights, *clips) -> list[Facts]:
    with stage.session(weights) as measure:
        return [fact for clip in clips for fact in measure([clip])]


@dataclass
class Unopened:
    """A clip whose media must not be asked for."""

    facts: Facts
    info: MediaInfo | None = None
    clip: Clip | None = None

    def frames(self, fps: float, height: int) -> np.ndarray:
        raise AssertionError("its pictures are not needed")

    def audio(self, rate: int) -> np.ndarray:
        raise AssertionError("its sound is not needed")


class NoWeights:
    def path(self, name: str) -> None:
        return None
