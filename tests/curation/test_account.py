"""What a report knows beyond its own run: reviewers' votes, drift, what the run was asked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.media import noise_video

from reelmill.curation.engine import CurateOptions, Curation
from reelmill.curation.request import read_request
from reelmill.datasets.media.encode import write_video
from reelmill.errors import DatasetError, UsageError
from reelmill.reports.page import load
from reelmill.reports.schema import Reviewed, RunReport, StageReport
from reelmill.reports.votes import Vote, VoteLog

pytestmark = pytest.mark.long
RECIPE = """
kind: video
stages:
  - Probe
  - Shots: {min_seconds: 0.2}
  - Blur
  - Cut
"""
CLIPS = 32


class Ran:
    """A workspace over the folder `media` beside it."""

    def __init__(self, folder: Path):
        self.folder = folder
        (folder / "mine.yaml").write_text(RECIPE)

    def run(self, *overrides: str) -> tuple[RunReport, Path]:
        options = CurateOptions(
            sources=(str(self.folder / "media"),),
            workspace=self.folder / "work",
            recipe=str(self.folder / "mine.yaml"),
            overrides=overrides,
            workers=0,
        )
        curation = Curation(options)
        for step in curation.steps():
            step.run()
        run = self.folder / "work" / "runs" / curation.result().run
        return load(run), run


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    folder = tmp_path_factory.mktemp("account")
    for seed in range(CLIPS):
        noise_video(folder / "media" / f"{seed}.mp4", seconds=0.5, size=(72, 96), seed=seed,
                    sound=False)  # fmt: skip
    return Ran(folder)


def stage(report: RunReport, name: str) -> StageReport:
    return next(s for s in report.stages if s.name == name)


def test_votes_count_in_later_runs_while_the_verdict_stands(ran: Ran):
    first, run = ran.run()
    assert stage(first, "Blur").reviewed == {}
    assert [n for n in first.notes if "Drift" in n] == []
    card = next(e for e in stage(first, "Blur").examples if e.group == "kept")
    asset = next(e for e in stage(first, "Probe").examples if e.group == "kept")
    log = VoteLog(ran.folder / "work")
    for slug, example, word in (("video-Blur", card, "disagree"), ("video-Probe", asset, "agree")):
        log.add(
            Vote(run=run.name, stage=slug, unit=example.id, outcome="kept", group="kept",
                 word=word, reviewer="Ada")
        )  # fmt: skip
    second, _ = ran.run()
    assert stage(second, "Blur").reviewed == {"kept": Reviewed(disagree=1)}
    assert stage(second, "Probe").reviewed == {"kept": Reviewed(agree=1)}
    stricter, _ = ran.run("Blur.min_sharpness=1000")
    assert stage(stricter, "Blur").reviewed == {}


def test_what_came_new_and_unlike_is_told_as_drift(ran: Ran):
    before, _ = ran.run()
    grey = np.full((8, 72, 96, 3), 128, np.uint8)
    for n in range(CLIPS):
        grey[:, :, : n + 1] = n
        write_video(ran.folder / "media" / f"grey{n}.mp4", grey, fps=16)
    after, _ = ran.run()
    told = [note for note in after.notes if note.startswith(f"Drift since run {before.run}")]
    assert any("video-Blur: sharpness has moved" in note for note in told), after.notes
    again, _ = ran.run()
    assert [n for n in again.notes if "Drift" in n] == []


def test_categories_are_counted_over_all_and_over_what_is_shipped(ran: Ran):
    report, _ = ran.run()
    codec = next(c for c in stage(report, "Probe").categories if c.fact == "codec")
    assert codec.counts == {"h264": stage(report, "Probe").tally.into.count}


def test_a_run_can_be_asked_again_with_a_bound_moved(ran: Ran):
    _, run = ran.run("Blur.min_sharpness=0.5")
    request = read_request(run)
    given = request.moved(ran.folder / "work", ["Blur.min_sharpness=0.7", "Cut.crop=false"])
    assert given["overrides"] == ["Blur.min_sharpness=0.7", "Cut.crop=false"]
    assert given["sources"] == [str((ran.folder / "media").absolute())]
    assert given["recipe"] == str(ran.folder / "mine.yaml")
    assert given["workers"] == 0
    secret = request.model_copy(update={"lacking": ("https://host/a.mp4",)})
    with pytest.raises(UsageError, match="secret"):
        secret.moved(ran.folder, [])


def test_a_request_that_is_gone_or_damaged_is_told(tmp_path: Path):
    with pytest.raises(UsageError, match="does not say"):
        read_request(tmp_path)
    (tmp_path / "request.json").write_text('{"sources": 1}')
    with pytest.raises(DatasetError, match="damaged"):
        read_request(tmp_path)
