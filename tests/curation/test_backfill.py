"""Backfills add up: chosen files are measured once, and the last run has them all."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest
from tests.media import noise_video
from tests.trees import digests

from reelmill.curation.engine import CurateOptions, Curation
from reelmill.curation.explain.plan import make_plan
from reelmill.curation.request import read_request
from reelmill.curation.result import CurateResult
from reelmill.datasets.ingest.select import Selection

RECIPE = """
kind: video
max_failed: 1.0
stages: [Probe, WholeFile, Cut]
"""


def options(workspace: Path, source: Path, select: Selection) -> CurateOptions:
    recipe = workspace.parent / "recipe.yaml"
    recipe.write_text(RECIPE)
    return CurateOptions(
        sources=(str(source),), workspace=workspace, recipe=str(recipe), workers=0, select=select
    )


def curate(given: CurateOptions) -> CurateResult:
    curation = Curation(given)
    for step in curation.steps():
        step.run()
    return curation.result()


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four films, two a month by folder and by the manifest's column."""
    folder = tmp_path_factory.mktemp("media")
    rows = ["path,shot"]
    for seed, month in enumerate(("10", "10", "11", "11")):
        noise_video(folder / month / f"{seed}.mp4", seconds=0.5, seed=seed)
        rows.append(f"{month}/{seed}.mp4,2026-{month}-0{seed + 1}")
    (folder / "films.csv").write_text("\n".join(rows) + "\n")
    return folder


def test_backfills_by_prefix_and_day_come_to_what_one_run_gives(media: Path, tmp_path: Path):
    films, work = media / "films.csv", tmp_path / "work"
    october = Selection((), date(2026, 10, 1), date(2026, 10, 31), "shot")
    first = curate(options(work, films, october))
    assert (first.files.into, first.clips.kept) == (2, 2)
    assert first.notes[0] == (
        "Only from 2026-10-01 to 2026-10-31 by shot, beside what earlier runs took up: 2 files; 2 "
        "wait for another run."
    )
    more = options(work, films, Selection((str(media / "11" / "2"), str(media / "1") + "/")))
    assert make_plan(more).files == 3
    second = curate(more)
    assert (second.files.into, second.clips.kept) == (3, 3)
    assert second.redone * 2 == first.redone  # one film, not two
    assert read_request(Path(second.report).parent).select == more.select
    again = curate(more)
    assert (again.redone, again.files.into) == (0, 3)
    whole = options(work, films, Selection())
    last = curate(whole)
    assert (last.files.into, last.redone, last.notes) == (4, second.redone, ())
    curate(options(tmp_path / "clean", films, Selection()))
    assert digests(work / "shards") == digests(tmp_path / "clean" / "shards")
