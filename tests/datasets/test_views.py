"""Views: what stages of training see of clips that were cut once."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.scene_shards import film_sample, still_sample, write_set
from typer.testing import CliRunner

from reelmill.cli import app
from reelmill.datasets.index import ShardIndex
from reelmill.datasets.latents import LatentDataset
from reelmill.datasets.views import (
    View,
    Want,
    read_views,
    save_views,
    size_of,
    spans,
    views,
    views_of,
)
from reelmill.datasets.workspace import open_workspace
from reelmill.errors import DatasetError
from reelmill.training.encode import EncodeOptions, encode
from reelmill.training.paper import PAPER, wants


def seen(stage: str, seconds: float, width: int, height: int, fps: float = 24.0) -> list[View]:
    return list(views_of(stage, wants()[stage], "k", seconds, width, height, fps))


def test_sizes_of_the_papers_tiers():
    wide = {tier: size_of(tier, 16 / 9) for tier in (256, 480, 720, 1080)}
    assert wide == {256: (256, 448), 480: (480, 848), 720: (720, 1280), 1080: (1072, 1920)}
    assert size_of(480, 9 / 16) == (848, 480)
    assert size_of(720, 1.0) == (960, 960)
    assert size_of(480, 1.8) == (480, 848)


@given(st.sampled_from([256, 480, 720, 1080]), st.floats(0.3, 3.0))
def test_buckets_of_a_tier_have_one_area(tier, aspect):
    height, width = size_of(tier, aspect)
    assert height % 16 == width % 16 == 0
    assert 0.88 <= height * width / (tier * tier * 16 / 9) <= 1.0


@given(st.floats(0.1, 40), st.sampled_from([(2, 10), (2, 15), (3, 15), (5, 15)]))
def test_parts_are_within_the_range_and_apart(seconds, bounds):
    parts = spans(seconds, *bounds)
    assert bool(parts) == (seconds + 1e-6 >= bounds[0])
    ends = [start + length for start, length in parts]
    assert all(bounds[0] - 1e-5 <= length <= bounds[1] + 1e-5 for _, length in parts)
    assert all(end <= start + 1e-6 for end, (start, _) in zip(ends, parts[1:], strict=False))
    assert not parts or ends[-1] <= seconds + 1e-6


def test_lengths_of_one_cut_by_stage():
    cut = 12.0
    told = {s: [(v.start_s, v.frames) for v in seen(s, cut, 848, 480)] for s in wants()}
    assert told["video_2"] == [(0.0, 89), (6.0, 89)]  # 2 to 10 s
    assert told["video_3"] == [(0.0, 185)]  # 2 to 15 s: 191 frames at 16 a second
    assert {v.tier for v in seen("video_4", cut, 848, 480)} == {256, 480}
    assert told["joint"] == []  # wants 720 lines
    assert told["video_1"] == []  # stills only
    assert [v.frames for v in seen("video_1", 0.0, 848, 480)] == [1]
    assert seen("joint", 0.0, 1920, 1080) == []
    assert seen("video_5", 2.5, 1920, 1080) == []
    assert {v.tier for v in seen("video_5", 3.0, 1920, 1080)} == {480, 720, 1080}


def test_nothing_is_enlarged_and_no_frame_is_shown_twice():
    assert {v.tier for v in seen("video_5", 5.0, 1280, 714)} == {480, 720}  # by two per cent
    assert {v.tier for v in seen("video_5", 5.0, 1280, 690)} == {480}
    assert seen("video_5", 5.0, 1920, 1080, fps=15.0) == []
    assert len(seen("video_5", 5.0, 1920, 1080, fps=15.98)) == 3
    assert seen("refiner", 5.0, 1920, 1080, fps=25.0) == []


def test_every_row_with_pictures_has_its_tiers_and_lengths():
    for stage in PAPER:
        if stage.heights:
            want = wants()[stage.name]
            assert want.heights == stage.heights + ((stage.keyframes,) if stage.keyframes else ())
            assert want.seconds == (stage.seconds if stage.clips else None)
    assert "audio" not in wants()


def shards(folder):
    """Two clips of 64 x 48 at 16 fps, of 1.5 and 3 s, and a still; with what a cut tells."""
    samples = []
    for seed, seconds in ((1, 1.5), (2, 3.0)):
        sample = film_sample(seed, seconds=seconds, size=(64, 48))
        cut = {"seconds": seconds, "width": 64, "height": 48, "fps": 16.0, "frames": 16}
        samples.append(replace(sample, record=sample.record | {"cut": cut}))
    still = still_sample(3, size=(64, 48))
    cut = {"width": 64, "height": 48, "frames": 1}
    samples.append(replace(still, record=still.record | {"cut": cut}))
    return write_set(folder, samples)


WANT = Want((32,), (1.0, 2.0))


def test_views_come_from_the_index_and_are_encoded_from_the_one_cut(tmp_path):
    folder = shards(tmp_path / "video")
    with ShardIndex.read(folder) as index:
        found = views(index, {"small": WANT})
        index.sample = None  # no sample is read
        assert views(index, {"small": WANT}) == found
    height, width = size_of(32, 4 / 3)
    assert [(v.start_s, v.frames) for v in found] == [(0.0, 17), (0.0, 17), (1.5, 17), (0.0, 1)]
    assert {(v.height, v.width) for v in found} == {(height, width)}
    path = tmp_path / "views.parquet"
    save_views(path, found)
    assert read_views(path) == found
    options = EncodeOptions(
        shards=(folder,), output=tmp_path / "latents", height=height, width=width, views=path
    )
    result = encode(options)
    assert result.samples == 4
    with LatentDataset(tmp_path / "latents") as data:
        metas = [data.read(row).meta for row in range(4)]
    told = sorted((m["clip"], m["start_frame"], m["frames"]) for m in metas)
    assert told == sorted((v.key, round(v.start_s * 16), v.frames) for v in found)
    assert encode(options).reused == 1
    save_views(path, found[:1])
    assert encode(options).reused == 0
    with pytest.raises(DatasetError, match="has no view of 64 x 64"):
        encode(replace(options, height=64, width=64))


def test_a_file_that_holds_no_views_is_refused(tmp_path):
    (tmp_path / "x.parquet").write_bytes(b"PAR1")
    with pytest.raises(DatasetError, match="cannot be read"):
        read_views(tmp_path / "x.parquet")
    save_views(tmp_path / "none.parquet", [])
    assert read_views(tmp_path / "none.parquet") == []


def test_the_command_counts_and_writes_them(tmp_path):
    place = open_workspace(tmp_path / "w")
    shards(place.shards("video"))
    out = tmp_path / "views.parquet"
    runner = CliRunner()
    told = runner.invoke(app, ["views", "-w", str(place.root), "-o", str(out), "--json"])
    assert told.exit_code == 0, told.output
    rows = json.loads(told.stdout.strip().splitlines()[-1])["views"]
    assert {row["stage"] for row in rows} == set(wants())
    assert sum(row["views"] for row in rows) == len(read_views(out)) == 0  # 48 lines are too few
    told = runner.invoke(app, ["views", "-w", str(place.root), "--stage", "video_9"])
    assert told.exit_code != 0
