"""Bars are cut off on the way into the shards, and stay where that is switched off."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from tests.media import smooth_noise
from tests.small_run import curate, recipe_file

from reelmill.datasets.corpus import defects
from reelmill.datasets.index import ShardIndex
from reelmill.datasets.media.encode import write_video

RECIPE = """
kind: video
max_failed: 0.0
stages: [Probe, {Shots: {min_seconds: 0.5}}, Letterbox, Cut]
"""


def cuts(workspace: Path) -> dict[str, dict]:
    with ShardIndex.read(workspace / "shards" / "video") as index:
        records = [json.loads(index.sample(key)["json"]) for key in index.keys]
    return {record["file"]: record["cut"] for record in records}


def test_bars_do_not_reach_the_shards(tmp_path):
    media = tmp_path / "media"
    media.mkdir()
    frames = smooth_noise(32, (144, 256), drift=3)
    write_video(media / "bars.mp4", defects.letterboxed(frames, 24), fps=16)
    write_video(media / "full.mp4", np.ascontiguousarray(frames[:, ::-1]), fps=16)
    recipe = recipe_file(tmp_path, RECIPE)
    result = curate(media, tmp_path / "w", recipe=recipe, workers=0)
    found = cuts(Path(result.workspace))
    whole = found["full.mp4"]
    assert (whole["box"], whole["width"], whole["height"]) == ([], 256, 144)
    barred = found["bars.mp4"]
    x, y, width, height = barred["box"]
    assert (x, width) == (0, 256)
    assert 24 <= y <= 27
    assert 90 <= height <= 96
    assert barred["width"] == 256
    assert barred["height"] in {n for n in range(height - 3, height + 1) if n % 2 == 0}

    again = curate(media, tmp_path / "w", "Cut.crop=false", recipe=recipe, workers=0)
    assert all(cut["box"] == [] for cut in cuts(Path(again.workspace)).values())
    assert {cut["height"] for cut in cuts(Path(again.workspace)).values()} == {144}
