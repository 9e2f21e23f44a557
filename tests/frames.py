"""Driving a FrameStage by hand, as the engine does: one decode, tracks, then facts."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from reelmill.curation.media_table import summary_tracks, whole_clip
from reelmill.curation.stage import Facts, FrameStage
from reelmill.curation.viewing import Viewing
from reelmill.datasets.media.decode import MediaInfo, decode, probe
from reelmill.datasets.sample import Clip


@dataclass(frozen=True)
class Measured:
    """Tracks of one stage over one file."""

    stage: Any
    tracks: dict[str, np.ndarray]
    whole: Clip
    info: MediaInfo

    @property
    def facts(self) -> Facts:
        """Of the whole file."""
        return self.stage.facts(self.tracks, self.whole, self.info)

    def clips(self, **changes: float | None) -> list[Clip]:
        """Of a Segmenter, with some of its decisions changed."""
        stage = self.stage
        for name, value in changes.items():
            stage = stage.with_field(name, value)
        return stage.segment(self.tracks, self.whole, self.info)


def measured(stage: FrameStage, path: Path) -> Measured:
    """Decodes a file, sound and all, for one stage."""
    info = probe(path)
    viewing = Viewing([stage], info, lambda name: nullcontext())
    summary = decode(
        path,
        info,
        on_frame=viewing.frame,
        on_audio=(lambda block: None) if info.audio is not None else None,
        vectors=stage.vectors,
    )
    whole = whole_clip("a" * 64, info, summary_tracks(summary))
    return Measured(stage, viewing.finish(summary)[stage.name], whole, info)


def broken(stage: Any, facts: Facts) -> list[str]:
    """Reasons of the stage's bounds that these facts break."""
    values = {k: float(v) for k, v in facts.items() if isinstance(v, int | float | bool)}
    return [
        bound.reason
        for bound in stage.bounds().values()
        if bound.fact in values and not bound.holds(np.array([values[bound.fact]]))[0]
    ]


def moving(count: int, size: tuple[int, int] = (144, 256), *, seed: int = 0, step: int = 3):
    """A smooth colourful scene that drifts `step` pixels a frame: uint8 [count, h, w, 3]."""
    rng = np.random.default_rng(seed)
    height, width = size
    y, x = np.mgrid[0:height, 0 : width + step * count]
    planes = [
        sum(
            rng.uniform(20, 40)
            * np.sin(rng.uniform(0.02, 0.25) * x + rng.uniform(0.02, 0.25) * y + rng.uniform(0, 6))
            for _ in range(4)
        )
        + 128
        for _ in range(3)
    ]
    field = np.clip(np.stack(planes, axis=2), 0, 255).astype(np.uint8)
    return np.stack([field[:, step * i : step * i + width] for i in range(count)])


def joined(parts: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate(list(parts))
