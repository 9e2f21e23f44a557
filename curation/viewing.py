"""Showing the frames of one decode to the stages that look at them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

import numpy as np

from reelmill.curation.pulse import beat
from reelmill.curation.stage import FrameAnalyser, FrameStage, WeightsStore
from reelmill.datasets.media.decode import DecodeSummary, Frame, MediaInfo

BATCH = 32  # frames

Guard = Callable[[str], AbstractContextManager[None]]


class Viewing:
    """Analysers of several stages over one asset's shared decode.

    Small frames are kept and shown 32 at a time, to one stage after the other: decoding a frame
    clears a core's caches of all else, and a stage that then looks at one small picture takes about
    twice as long as with its code and tables at hand. Stages that
    look at the picture as coded are shown each frame at once, since a kept one would hold a large
    picture of the decoder's.

    guard: what each stage runs in, by its name. weights: where stages find theirs. seconds: spent
    by each stage so far.
    """

    def __init__(
        self,
        stages: Sequence[FrameStage],
        info: MediaInfo,
        guard: Guard,
        weights: WeightsStore | None = None,
    ) -> None:
        self._guard = guard
        self._analysers = {
            stage.name: stage.open(info) if weights is None else stage.open_with(info, weights)
            for stage in stages
        }
        self._coded = [stage.name for stage in stages if stage.coded]
        self._small = [stage.name for stage in stages if not stage.coded]
        self._kept: list[Frame] = []
        self.seconds = dict.fromkeys(self._analysers, 0.0)

    def frame(self, frame: Frame) -> None:
        """Takes the next frame."""
        beat()
        for name in self._coded:
            self._show(name, (frame,))
        self._kept.append(replace(frame, luma=_undeclared, vectors=_undeclared))
        if len(self._kept) == BATCH:
            self._show_kept()

    def finish(self, summary: DecodeSummary) -> dict[str, dict[str, np.ndarray]]:
        """Tracks by stage, after the last frame."""
        self._show_kept()
        tracks = {}
        for name, analyser in self._analysers.items():
            with self._guard(name):
                tracks[name] = analyser.finish(summary)
        return tracks

    def _show_kept(self) -> None:
        kept, self._kept = self._kept, []
        for name in self._small:
            beat()
            self._show(name, kept)

    def _show(self, name: str, frames: Iterable[Frame]) -> None:
        analyser: FrameAnalyser = self._analysers[name]
        start = time.perf_counter()
        with self._guard(name):
            for frame in frames:
                analyser.frame(frame)
        self.seconds[name] += time.perf_counter() - start


def _undeclared() -> Any:
    raise RuntimeError("a stage that looks at the picture as coded declares `coded = True`")
