"""Sources beyond folders, through the whole engine: the same media give the same shards."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from tests.loopback import serving
from tests.media import noise_video
from tests.s3_server import fail_every, point_to, s3_server
from tests.trees import digests

from reelmill.curation.engine import CurateOptions, Curation
from reelmill.curation.explain.plan import make_plan
from reelmill.curation.explain.removal import Removal
from reelmill.curation.result import CurateResult
from reelmill.datasets.index import ShardIndex
from reelmill.datasets.ingest.remote import Rules
from reelmill.datasets.workspace import open_workspace

pytestmark = pytest.mark.long

RECIPE = """
kind: video
max_failed: 1.0
stages: [Probe, WholeFile, Cut]
"""
RULES = Rules(attempts=12, backoff=0.001, patience=0.5, max_bytes=8 << 20)


@pytest.fixture(scope="module")
def media(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("media")
    for number in range(3):
        noise_video(folder / f"film {number}.mp4", seconds=0.5, seed=number)
    (folder / "film 1.txt").write_text("a red ball bounces")
    return folder


def options(workspace: Path, *sources: str) -> CurateOptions:
    recipe = workspace.parent / "recipe.yaml"
    recipe.write_text(RECIPE)
    return CurateOptions(
        sources=sources, workspace=workspace, recipe=str(recipe), workers=0, ingest=RULES
    )


def curate(workspace: Path, *sources: str) -> CurateResult:
    curation = Curation(options(workspace, *sources))
    for step in curation.steps():
        step.run()
    return curation.result()


def shards(result: CurateResult) -> dict[str, str]:
    return {Path(p).name: hashlib.sha256(Path(p).read_bytes()).hexdigest() for p in result.shards}


def records(result: CurateResult) -> list[dict]:
    with ShardIndex.read(Path(result.shards[0]).parent) as index:
        return [json.loads(index.sample(key)["json"]) for key in index.keys]


@pytest.fixture(scope="module")
def local(media, tmp_path_factory) -> CurateResult:
    return curate(tmp_path_factory.mktemp("local") / "w", str(media))


def test_files_over_http_give_the_shards_of_a_folder(media, local, tmp_path):
    """Every third request fails, and the sources that cannot be had are failed by name."""
    with serving(media) as site:
        site.fail_every = 3
        names = [f"/film%20{n}.mp4" for n in (0, 2)]
        (tmp_path / "list.csv").write_text(
            f"url,caption\n{site.url('/once/film%201.mp4')},a red ball bounces\n"
        )
        lost = [site.url("/gone.mp4"), site.url("/endless/film%200.mp4")]
        sources = [*(site.url(n) for n in names), str(tmp_path / "list.csv"), *lost]
        made = curate(tmp_path / "w", *sources)
    assert made.files.failed == 2
    run = json.loads((Path(made.report).parent / "run.json").read_text())
    assert sorted(f["path"] for f in run["failures"]) == sorted(lost)
    assert [r["file"] for r in records(made)] == [r["file"] for r in records(local)]
    plain = [{n: v for n, v in r.items() if n != "manifest"} for r in records(made)]
    assert plain == records(local)
    assert made.clips.kept == 3


def test_a_store_that_fails_every_third_call_gives_the_shards_of_a_folder(
    media, local, tmp_path, monkeypatch
):
    """A run over s3:// from listing to shards, killed off by nothing that passes."""
    import s3fs

    with s3_server() as server:
        point_to(server, monkeypatch)
        s3fs.S3FileSystem.clear_instance_cache()
        store = s3fs.S3FileSystem(use_listings_cache=False)
        store.mkdir("films")
        for file in sorted(media.iterdir()):
            store.pipe_file(f"films/here/{file.name}", file.read_bytes())
        s3fs.S3FileSystem.clear_instance_cache()
        fail_every(server, 3)
        made = curate(tmp_path / "w", "s3://films/here")
        again = curate(tmp_path / "w", "s3://films/here")
        assert fail_every(server, 0) >= 3
    s3fs.S3FileSystem.clear_instance_cache()
    assert (made.files.failed, made.clips.kept, again.redone) == (0, 3, 0)
    assert digests(tmp_path / "w" / "shards") == digests(Path(local.workspace) / "shards")


def test_a_second_run_over_http_fetches_nothing_and_measures_nothing(media, local, tmp_path):
    with serving(media) as site:
        sources = [site.url(f"/film%20{n}.mp4") for n in (0, 2)]
        plan = make_plan(options(tmp_path / "w", *sources))
        assert plan.waiting == 2
        first = curate(tmp_path / "w", *sources)
        sent = dict(site.asked)
        again = curate(tmp_path / "w", *sources)
        assert make_plan(options(tmp_path / "w", *sources)).todo == 0
    assert again.redone == 0
    assert shards(first) == shards(again)
    assert site.asked == {path: 2 * count for path, count in sent.items()}  # asked, not sent


def test_a_fetched_file_that_is_forgotten_leaves_the_cache(media, tmp_path):
    with serving(media) as site:
        url = site.url("/film%200.mp4")
        made = curate(tmp_path / "w", url, site.url("/film%202.mp4"))
    place = open_workspace(tmp_path / "w")
    data = (media / "film 0.mp4").read_bytes()

    def held() -> list[Path]:
        return [p for p in place.root.rglob("*") if p.is_file() and p.read_bytes() == data]

    assert len(held()) == 1
    removal = Removal.look(place, url)
    assert removal.samples == 1
    removal.carry_out(place)
    assert held() == []
    assert made.clips.kept == 2


def test_own_columns_reach_the_shard_and_its_index(media, local, tmp_path):
    (media / "films.csv").write_text(
        "path,licence,source\nfilm 0.mp4,CC-BY,archive\nfilm 1.mp4,CC0,\nfilm 2.mp4,CC0,here\n"
    )
    try:
        made = curate(tmp_path / "w", str(media / "films.csv"))
        found = {record["file"]: record["manifest"] for record in records(made)}
        assert found["film 0.mp4"] == [{"licence": "CC-BY", "source": "archive"}]
        assert found["film 1.mp4"] == [{"licence": "CC0", "source": ""}]
        with ShardIndex.read(Path(made.shards[0]).parent) as index:
            column = index.rows["manifest"].to_pylist()
        assert json.loads(column[0]) in found.values()
        captions = [record["caption"] for record in _texts(made)]
        assert captions == [record["caption"] for record in _texts(local)]
        # Another licence is written anew, and measures nothing.
        text = (media / "films.csv").read_text()
        (media / "films.csv").write_text(text.replace("archive", "museum"))
        again = curate(tmp_path / "w", str(media / "films.csv"))
        assert again.redone == 0
        assert {"licence": "CC-BY", "source": "museum"} in [
            r["manifest"][0] for r in records(again)
        ]
    finally:
        (media / "films.csv").unlink()


def _texts(result: CurateResult) -> list[dict]:
    with ShardIndex.read(Path(result.shards[0]).parent) as index:
        return [{"caption": index.sample(key).get("txt")} for key in index.keys]
