"""Why: the path of a unit, with values and bounds, as the run decided them."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from tests.small_run import curate

from reelmill.curation.explain.history import History
from reelmill.curation.run_record import known_runs
from reelmill.datasets.workspace import open_workspace
from reelmill.errors import DatasetError, UsageError


def line(history: History, stage: str):
    units = [*history.clips, *([history.asset] if history.asset else [])]
    return next(s for unit in units for s in unit.stages if s.stage == stage)


def test_a_rejected_clip_names_stage_value_and_bound(ran):
    found = History.of(open_workspace(ran), "quiet.mp4")
    (clip,) = found.clips
    assert clip.outcome == "rejected"
    loud = line(found, "Loudness")
    assert loud.outcome == "rejected"
    assert loud.verdict["reason"] == "silent"
    assert float(loud.verdict["value"]) < -50
    (bound,) = [b for b in loud.bounds if b.field == "min_volume"]
    assert bound.holds is False
    assert "-50" in bound.text
    volume = next(f for f in loud.facts if f.name == "mean_volume")
    assert volume.value == pytest.approx(float(loud.verdict["value"]))
    assert [s.outcome for s in clip.stages] == [
        "passed", "passed", "rejected", *(["not reached"] * 5)
    ]  # fmt: skip


def test_stages_after_the_verdict_say_why_they_have_no_value(ran):
    found = History.of(open_workspace(ran), "quiet.mp4")
    assert {f.status for f in line(found, "MOS").facts} == {"not measured"}
    assert line(found, "PHash").facts[0].status == "measured"  # it shared the decode


def test_a_kept_clip_passed_all_and_an_asset_its_own_stages(ran):
    found = History.of(open_workspace(ran), "fine.mp4")
    assert found.asset is not None
    assert [s.stage for s in found.asset.stages] == ["Probe", "Integrity"]
    assert {s.outcome for s in (*found.asset.stages, *found.clips[0].stages)} == {"passed"}


def test_a_failed_file_says_what_is_wrong_with_it(ran):
    found = History.of(open_workspace(ran), "cut-off.mp4")
    assert line(found, "Integrity").outcome == "failed"
    assert "ends early" in line(found, "Integrity").verdict["detail"]
    assert found.clips == ()


def test_files_that_no_recipe_saw_say_so(ran):
    text = History.of(open_workspace(ran), "notes.md")
    assert text.asset is not None
    assert text.asset.stages[0].verdict["reason"] == "not_media"
    twice = History.of(open_workspace(ran), "good.mp4")
    assert [(f["reason"], Path(f["path"]).name) for f in twice.files] == [
        ("exact_duplicate", "good.mp4")  # `again.mp4` comes first
    ]


def test_an_asset_is_found_by_clip_digest_and_path(ran, corpus, monkeypatch):
    place = open_workspace(ran)
    clip = History.of(place, "fine.mp4").clips[0].unit
    sha256 = History.of(place, clip).sha256
    monkeypatch.chdir(corpus)
    names = (sha256, sha256[:8], str(corpus / "fine.mp4"), "./fine.mp4", "media/fine.mp4")
    for name in names:
        assert History.of(place, name).sha256 == sha256


@pytest.mark.parametrize(("name", "says"), [("nope", "saw no"), (".mp4", "saw no")])
def test_what_the_run_never_saw_is_a_usage_error(ran, name, says):
    with pytest.raises(UsageError, match=says):
        History.of(open_workspace(ran), name)


def test_a_name_that_two_assets_share_is_refused(tmp_path, corpus):
    for folder in ("a", "b"):
        (tmp_path / "m" / folder).mkdir(parents=True)
    (tmp_path / "m/a/x.md").write_text("one")
    (tmp_path / "m/b/x.md").write_text("two")
    curate(tmp_path / "m", tmp_path / "w")
    with pytest.raises(UsageError, match="2 assets"):
        History.of(open_workspace(tmp_path / "w"), "x.md")
    assert History.of(open_workspace(tmp_path / "w"), "a/x.md").asset is not None


def test_an_earlier_run_is_explained_by_its_own_bounds(workspace, corpus):
    curate(corpus, workspace.root, "Loudness.min_volume=-200")
    first, last = known_runs(workspace)
    assert History.of(workspace, "quiet.mp4", first).clips[0].outcome == "rejected"
    now = History.of(workspace, "quiet.mp4", last)
    assert now.clips[0].outcome == "kept"
    assert line(now, "MOS").outcome == "passed"


def test_the_answer_is_plain_json(ran):
    json.dumps(asdict(History.of(open_workspace(ran), "quiet.mp4")))


def test_what_is_said_is_what_the_verdicts_hold(ran):
    place = open_workspace(ran)
    (run,) = known_runs(place)
    rows = pq.read_table(place.ledger / "verdicts" / f"{run}.parquet").to_pylist()
    for row in rows:
        if row["level"] == "clip":
            (clip,) = History.of(place, row["unit"]).clips
            assert clip.outcome == row["outcome"]


def test_damaged_verdicts_are_our_error(workspace):
    (run,) = known_runs(workspace)
    (workspace.ledger / "verdicts" / f"{run}.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(DatasetError, match="verdicts"):
        History.of(workspace, "quiet.mp4")
