"""Viewing: every stage sees every frame once, in order, whatever the others look at."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
from tests.frames import moving

from reelmill.curation.stage import Facts, FrameStage
from reelmill.curation.viewing import BATCH, Viewing
from reelmill.datasets.media.decode import Frame, decode, probe
from reelmill.datasets.media.encode import write_video

FRAMES = 2 * BATCH + 3


class _Witness:
    def __init__(self, luma: bool):
        self._luma = luma
        self.seen: list[tuple[int, int, int]] = []

    def frame(self, frame: Frame) -> None:
        total = int(frame.full_luma.sum()) if self._luma else 0
        self.seen.append((frame.index, int(frame.gray.sum()) + int(frame.bgr.sum()), total))

    def finish(self, summary) -> dict[str, np.ndarray]:
        return {"seen": np.array(self.seen, np.int64).reshape(-1, 3)}


@dataclass(frozen=True, kw_only=True)
class Small(FrameStage):
    adds: ClassVar = ()
    luma: bool = False

    def open(self, info) -> _Witness:
        return _Witness(self.luma)

    def facts(self, tracks, clip, info) -> Facts:
        return {}


@dataclass(frozen=True, kw_only=True)
class Coded(Small):
    coded: ClassVar = True
    luma: bool = True


@contextmanager
def unguarded(name: str):
    yield


@pytest.fixture
def clip(tmp_path):
    write_video(tmp_path / "a.mp4", moving(FRAMES, (48, 64)), fps=25)
    return tmp_path / "a.mp4"


def test_each_stage_sees_every_frame_as_decoded(clip):
    info = probe(clip)
    alone = _Witness(luma=True)
    summary = decode(clip, info, alone.frame)
    viewing = Viewing([Small(), Coded()], info, unguarded)
    tracks = viewing.finish(decode(clip, info, viewing.frame))
    expected = alone.finish(summary)["seen"]
    assert len(expected) == FRAMES
    np.testing.assert_array_equal(tracks["Coded"]["seen"], expected)
    np.testing.assert_array_equal(tracks["Small"]["seen"][:, :2], expected[:, :2])
    assert set(viewing.seconds) == {"Small", "Coded"}


def test_a_stage_that_looks_at_the_coded_picture_undeclared_is_told(clip):
    info = probe(clip)
    names = []

    @contextmanager
    def guard(name):
        names.append(name)
        yield

    viewing = Viewing([Small(luma=True)], info, guard)
    with pytest.raises(RuntimeError, match="coded = True"):
        viewing.finish(decode(clip, info, viewing.frame))
    assert names == ["Small"]
