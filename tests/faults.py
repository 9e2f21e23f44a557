"""What a broken decoder does to its process, on purpose: for functions and for a stage."""

from __future__ import annotations

import ctypes
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from reelmill.curation.pulse import beat
from reelmill.curation.stage import Fact, Facts, FrameStage, Tracks
from reelmill.datasets.media.decode import DecodeSummary, Frame, MediaInfo
from reelmill.datasets.sample import Clip
from reelmill.errors import MediaError


def segfault() -> None:
    ctypes.string_at(0)


def hang() -> None:
    while True:
        time.sleep(60)


def eat() -> None:
    """Takes memory without end, 20 MB at a time."""
    taken = []
    while True:
        taken.append(np.ones(20_000_000, np.uint8))
        time.sleep(0.01)


def be_killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


FAULTS = {"segfault": segfault, "hang": hang, "eat": eat, "be_killed": be_killed}


def do(what: str, value: int, folder: str = "") -> int:
    """value squared; a fault where one is named, `once` only while the folder shows none."""
    if what.startswith("once "):
        try:
            (Path(folder) / f"{value}").touch(exist_ok=False)
        except FileExistsError:
            return value * value
        what = what.removeprefix("once ")
    if what == "refuse":
        raise MediaError(f"value {value} is refused", cause="transient")
    if what in FAULTS:
        FAULTS[what]()
    return value * value


def pause(seconds: float, value: int) -> int:
    time.sleep(seconds)
    return value


def toil(seconds: float, value: int) -> int:
    """Work that shows signs of life."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(0.02)
        beat()
    return value


_leaked: list[np.ndarray] = []


def leak(megabytes: int) -> int:
    """Keeps memory, up to that much in all; returns the process."""
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    _leaked.append(np.ones(max(0, megabytes * 1_000_000 - resident), np.uint8))
    return os.getpid()


def process(value: int) -> int:
    return os.getpid()


@dataclass(frozen=True, kw_only=True)
class Fault(FrameStage):
    """Counts frames. At the third frame of a file of `on_bytes` bytes it does `what`."""

    adds: ClassVar = (Fact("counted", "frames", "Frames seen.", 0, 500, int),)
    what: str = ""
    on_bytes: int = 0
    folder: str = ""

    def open(self, info: MediaInfo) -> _Analyser:
        return _Analyser(self, info.bytes == self.on_bytes)

    def facts(self, tracks: Tracks, clip: Clip, info: MediaInfo) -> Facts:
        return {"counted": int(tracks["counted"][0])}


class _Analyser:
    def __init__(self, stage: Fault, bad: bool):
        self._stage, self._bad, self._count = stage, bad, 0

    def frame(self, frame: Frame) -> None:
        self._count += 1
        if self._bad and self._count == 3:
            do(self._stage.what, self._count, self._stage.folder)

    def finish(self, summary: DecodeSummary) -> dict[str, np.ndarray]:
        return {"counted": np.array([self._count], np.int64)}
