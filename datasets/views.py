"""Views: which stretches of which clips, at which size and rate, a stage of training may see.

A clip is cut and encoded once. A view is a row that points into it: a span, a size, a number of
frames; the loader or `reelmill encode` resamples when it reads. So a stage of the curriculum that
wants other sizes or lengths costs an index, not another encode.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from reelmill.datasets.index import ShardIndex
from reelmill.datasets.parquet import read_parquet
from reelmill.datasets.sample import Kind
from reelmill.datasets.workspace import commit_bytes
from reelmill.errors import DatasetError

GRID = 16  # sides are multiples of it
STEP = 8  # frames between the lengths of buckets: half a second at 16 fps
ASPECTS = (21 / 9, 16 / 9, 4 / 3, 1.0, 3 / 4, 9 / 16)
SLACK = 0.02  # by which a picture may be smaller than its bucket, or slower than its rate
_EPS = 1e-6
SCHEMA = pa.schema(
    [
        ("stage", pa.string()),
        ("key", pa.string()),
        ("tier", pa.int64()),
        ("start_s", pa.float64()),
        ("frames", pa.int64()),
        ("height", pa.int64()),
        ("width", pa.int64()),
        ("fps", pa.int64()),
    ]
)


@dataclass(frozen=True, slots=True)
class Want:
    """What a stage takes. heights: lines of its tiers. stills: whether it takes any.

    seconds: shortest and longest view of a clip; None: it takes no clips.
    """

    heights: tuple[int, ...]
    seconds: tuple[float, float] | None
    fps: int = 16
    stills: bool = True


@dataclass(frozen=True, slots=True, order=True)
class View:
    """A stretch of a clip. start_s: in the clip. frames: 1 + 8k at `fps`, 1 for a still."""

    stage: str
    key: str
    tier: int
    start_s: float
    frames: int
    height: int
    width: int
    fps: int


def size_of(tier: int, aspect: float) -> tuple[int, int]:
    """(height, width) of the bucket next to an aspect: the area of 16:9 with `tier` lines.

    Sides are rounded down to multiples of 16: 480 lines are 480 x 848, and 544 x 720 for 4:3.
    """
    near = min(ASPECTS, key=lambda one: abs(math.log(one / aspect)))
    lines = math.sqrt(tier * tier * 16 / 9 / near)
    down = lambda side: int((side + _EPS) // GRID) * GRID  # noqa: E731
    return down(lines), down(lines * near)


def spans(seconds: float, shortest: float, longest: float) -> list[tuple[float, float]]:
    """Equal parts of a clip as (start, length), none longer than `longest`; none of a short one."""
    if seconds + _EPS < shortest:
        return []
    count = max(1, math.ceil(seconds / longest - _EPS))
    length = seconds / count
    if length + _EPS < shortest:  # parts would be too short: the longest, from the start
        count, length = int((seconds + _EPS) // longest), longest
    return [(i * length, length) for i in range(count)]


def views_of(
    stage: str, want: Want, key: str, seconds: float, width: int, height: int, fps: float
) -> Iterator[View]:
    """Views of one clip for one stage, of every tier that its picture covers; none is enlarged.

    seconds 0: a still, one frame. fps: of the clip; one slower than the stage's has no views.
    """
    if min(width, height) < 1:
        return
    wanted = want.seconds is not None if seconds else want.stills
    if not wanted or (seconds and fps * (1 + SLACK) < want.fps):
        return
    for tier in sorted(want.heights):
        lines, columns = size_of(tier, width / height)
        if height * (1 + SLACK) < lines or width * (1 + SLACK) < columns:
            continue
        if not seconds or want.seconds is None:
            yield View(stage, key, tier, 0.0, 1, lines, columns, want.fps)
            continue
        for start, length in spans(seconds, *want.seconds):
            frames = 1 + (int(length * want.fps + _EPS) - 1) // STEP * STEP
            yield View(stage, key, tier, round(start, 6), frames, lines, columns, want.fps)


def views(index: ShardIndex, wants: Mapping[str, Want]) -> list[View]:
    """All views of a shard set, from its index alone: no sample is read. In order."""
    rows = index.rows.select(["key", "kind", "seconds", "width", "height", "fps"]).to_pylist()
    clips = {row["key"]: row for row in rows if row["kind"] in (Kind.VIDEO, Kind.IMAGE)}
    found = [
        view
        for row in clips.values()
        for stage, want in wants.items()
        for view in views_of(
            stage, want, row["key"],
            float(row["seconds"] or 0.0) if row["kind"] == Kind.VIDEO else 0.0,
            int(row["width"] or 0), int(row["height"] or 0), float(row["fps"] or 0.0),
        )
    ]  # fmt: skip
    return sorted(found)


def save_views(path: Path, found: Sequence[View]) -> None:
    """Writes views as Parquet, whole or not at all."""
    columns = list(zip(*map(astuple, found), strict=True)) or [()] * len(SCHEMA)
    table = pa.table([list(column) for column in columns], schema=SCHEMA)
    out = io.BytesIO()
    pq.write_table(table, out)
    commit_bytes(path, out.getvalue())


def read_views(path: Path) -> list[View]:
    """Views of a file. Raises DatasetError for one that is none."""
    return [View(**row) for row in read_parquet(path, f"views {path}", schema=SCHEMA).to_pylist()]


def windows_of(path: Path, size: tuple[int, int], fps: int) -> dict[str, list[tuple[int, int]]]:
    """(frames, first frame) of the views of a size (height, width) and rate, by clip, in order.

    Raises DatasetError where there are none.
    """
    found: dict[str, set[tuple[int, int]]] = {}
    for view in read_views(path):
        if (view.height, view.width, view.fps) == (*size, fps):
            window = (view.frames, round(view.start_s * fps))
            found.setdefault(view.key, set()).add(window)
    if not found:
        raise DatasetError(
            f"{path} has no view of {size[1]} x {size[0]} at {fps} frames a second: name a size "
            "that `reelmill views` has written there."
        )
    return {key: sorted(windows) for key, windows in sorted(found.items())}
