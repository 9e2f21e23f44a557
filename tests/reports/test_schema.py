from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from tests.reports.planted_run import plant

from reelmill.errors import ConservationError, DatasetError, UsageError
from reelmill.reports.page import load, save
from reelmill.reports.schema import (
    Amount,
    Example,
    Preview,
    RunReport,
    StageReport,
    Tally,
)

amounts = st.builds(
    Amount,
    count=st.integers(0, 10**6),
    seconds=st.floats(0, 1e7),
    bytes=st.integers(0, 10**12),
)


@given(amounts, amounts, amounts)
def test_a_tally_holds_what_adds_up(kept, rejected, failed):
    tally = Tally(into=kept + rejected + failed, kept=kept, rejected=rejected, failed=failed)
    assert Tally.model_validate_json(tally.model_dump_json()) == tally
    assert json.loads(tally.model_dump_json())["in"]["count"] == tally.into.count


@given(amounts, amounts, st.sampled_from(["count", "seconds", "bytes"]))
def test_a_tally_refuses_one_too_many(kept, failed, part):
    into = kept + failed
    more = into.model_copy(update={part: getattr(into, part) + max(1, getattr(into, part) // 100)})
    with pytest.raises(ConservationError, match="came in, but"):
        Tally(into=more, kept=kept, failed=failed)


def _tampered(tmp_path, change):
    plant(tmp_path, clips=80, previews=0)
    path = tmp_path / "run.json"
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))
    return tmp_path


FAILED = {"path": "a.mp4", "stage": "Blur", "cause": "corrupt"}


def _stage(data, name):
    return next(s for s in data["stages"] if s["name"] == name)


def _lose_between_stages(data):
    stage = _stage(data, "Motion")
    for part in ("in", "kept"):
        stage["tally"][part]["count"] -= 1
    histogram = stage["histograms"][0]
    histogram["kept"][next(i for i, n in enumerate(histogram["kept"]) if n)] -= 1
    histogram["shipped"] = histogram["only"] = None


def _lose_at_the_end(data):
    for part in ("in", "kept"):
        data["totals"]["clips"][part]["bytes"] -= 1


def _reason_too_few(data):
    _stage(data, "Exposure")["reasons"][0]["count"] -= 1
    _stage(data, "Exposure")["reasons"][0]["only"] = 0


def _histogram_too_few(data):
    _stage(data, "Mos")["histograms"][0]["not_applicable"] += 1


@pytest.mark.parametrize(
    ("change", "where"),
    [
        (_lose_between_stages, "came into video-Motion|came into video-SilenceRatio"),
        (_lose_at_the_end, "clips in"),
        (_reason_too_few, "its reasons add up"),
        (_histogram_too_few, "histogram of mos"),
    ],
)
def test_a_loss_anywhere_is_an_error(tmp_path, change, where):
    with pytest.raises(ConservationError, match=where):
        load(_tampered(tmp_path, change))


def test_an_unfinished_run_is_not_held_to_its_end(tmp_path):
    def cut(data):
        data["finished"] = None
        data["stages"] = data["stages"][:4]

    report = load(_tampered(tmp_path, cut))
    assert report.finished is None
    assert [s.slug for s in report.stages][-1] == "video-Blur"


@pytest.mark.parametrize(
    ("change", "where"),
    [
        (lambda d: d.update(schema_version=2), "schema_version"),
        (lambda d: d.update(surprise=1), "surprise"),
        (lambda d: d["stages"][0].update(name="../x"), "stages.0.name"),
        (lambda d: d["stages"][1]["histograms"][0]["kept"].pop(), "counts, not bins"),
        (lambda d: d["stages"][1]["histograms"][0].update(high=-1), "must be below"),
        (lambda d: d.update(failures_total=0, failures=[FAILED]), "failures_total"),
        (lambda d: d["stages"].append(d["stages"][-1]), "same name"),
    ],
)
def test_a_report_of_another_shape_is_named(tmp_path, change, where):
    with pytest.raises(DatasetError, match=where):
        load(_tampered(tmp_path, change))


def test_no_report_and_no_json(tmp_path):
    with pytest.raises(UsageError, match="holds no run"):
        load(tmp_path)
    (tmp_path / "run.json").write_text("[1, 2")
    with pytest.raises(DatasetError, match="not a run report"):
        load(tmp_path)


def test_saved_and_loaded_again(tmp_path):
    planted = plant(tmp_path, clips=80, previews=0)
    assert load(tmp_path) == planted.report
    for stage in planted.report.stages:
        text = (tmp_path / stage.slug / "stage.json").read_bytes()
        assert StageReport.model_validate_json(text) == stage
    again = tmp_path / "again"
    save(load(tmp_path), again)
    assert (again / "run.json").read_bytes() == (tmp_path / "run.json").read_bytes()


@pytest.mark.parametrize(
    "path", ["/etc/passwd", "../x.jpg", "a/../../x.jpg", "a\\b.jpg", "http://x/y.jpg", "", "."]
)
def test_a_preview_outside_the_run_is_refused(path):
    with pytest.raises(ValidationError, match="relative path"):
        Preview(poster=path)


def test_undecodable_names_survive_as_text():
    example = Example(id="a", path="x\udcff.mp4", outcome="kept", group="kept")
    assert example.path == "x\\udcff.mp4"
    assert Example.model_validate_json(example.model_dump_json()) == example


def test_the_planted_run_is_worth_testing(tmp_path):
    report = plant(tmp_path, previews=0).report
    assert isinstance(report, RunReport)
    assert report.totals.clips.into.count == 640
    assert report.totals.clips.rejected.count > 100
    assert report.totals.clips.failed.count > 0
