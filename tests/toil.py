"""A run that takes its time and leaves traces: which files were begun, and how often."""

from __future__ import annotations

import os
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from reelmill.curation import engine
from reelmill.curation.asset.integrity import Integrity
from reelmill.curation.asset.probe import Probe
from reelmill.curation.audio.loudness import Loudness
from reelmill.curation.cut_stage import Cut
from reelmill.curation.engine import CurateOptions, Curation
from reelmill.curation.near_duplicate import NearDuplicate
from reelmill.curation.recipe import Recipe
from reelmill.curation.result import CurateResult
from reelmill.curation.stage import Fact, Facts, FrameStage, Stage, Tracks
from reelmill.curation.video.blur import Blur
from reelmill.curation.video.exposure import Exposure
from reelmill.curation.video.motion import Motion
from reelmill.curation.video.phash import PHash
from reelmill.curation.video.shots import Shots
from reelmill.curation.whole import WholeFile
from reelmill.datasets.media.decode import DecodeSummary, Frame, MediaInfo
from reelmill.datasets.sample import Clip, Kind

PARTITIONS = {"short": 2, "real": 3}  # files in one, by recipe


@dataclass(frozen=True, kw_only=True)
class Toil(FrameStage):
    """Counts frames, and takes `seconds` for a file. marks: folder for a file at every start."""

    adds: ClassVar = (Fact("counted", "frames", "Frames seen.", 0, 500, int),)
    marks: str
    seconds: float = 0.4

    def open(self, info: MediaInfo) -> _Analyser:
        (Path(self.marks) / f"{info.bytes}-{uuid.uuid4().hex}").touch()
        return _Analyser(self.seconds)

    def facts(self, tracks: Tracks, clip: Clip, info: MediaInfo) -> Facts:
        return {"counted": int(tracks["counted"][0])}


class _Analyser:
    def __init__(self, seconds: float):
        self._seconds, self._count = seconds, 0

    def frame(self, frame: Frame) -> None:
        if not self._count:
            time.sleep(self._seconds)
        self._count += 1

    def finish(self, summary: DecodeSummary) -> dict[str, np.ndarray]:
        return {"counted": np.array([self._count], np.int64)}


def bulk(megabytes: int) -> bytes:
    return bytes(megabytes * 1_000_000)


def visible_gpu(seconds: float) -> str:
    time.sleep(seconds)
    return os.environ.get("CUDA_VISIBLE_DEVICES", "")


class Doomed:
    """A bench that dies at its start."""

    def __init__(self, setting: object):
        os._exit(1)

    def greet(self) -> None: ...


class Told(list):
    """Items that know how far they were read."""

    reached = -1

    def __getitem__(self, index):
        self.reached = max(self.reached, index)
        return super().__getitem__(index)


def short(marks: str) -> tuple[Stage, ...]:
    """For made films: hardly more than Toil."""
    return Probe(), WholeFile(), Toil(marks=marks), Cut()


def real(marks: str) -> tuple[Stage, ...]:
    """For real clips, whose decode takes its time without being asked to."""
    seen = Shots(), Exposure(), Blur(), Motion(), Toil(marks=marks, seconds=0.0)
    return Probe(), Integrity(), *seen, Loudness(), PHash(), NearDuplicate(), Cut()


RECIPES = {"short": short, "real": real}


def curation(
    sources: list[str], workspace: str, marks: str, recipe: str = "short", **options
) -> Curation:
    """A run of a recipe with Toil, in partitions of PARTITIONS files."""
    stages = RECIPES[recipe](marks)
    engine.video = lambda: Recipe(Kind.VIDEO, stages)  # type: ignore[assignment]
    engine.ASSETS_A_GROUP = PARTITIONS[recipe]
    return Curation(
        CurateOptions(sources=tuple(sources), workspace=Path(workspace), recipe="video", **options)
    )


def curate(sources: list[str], workspace: str, marks: str, **options) -> CurateResult:
    made = curation(sources, workspace, marks, **options)
    for step in made.steps():
        print(step.label, step.run().measured, flush=True)
    return made.result()
