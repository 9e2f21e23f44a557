"""Approvals apply to the bytes that were looked at, and to no others."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from reelmill.datasets.approval import approve, check, manifest_digest, reject, run_folder
from reelmill.datasets.shards import ShardSample, write_shards
from reelmill.datasets.workspace import open_workspace
from reelmill.errors import DatasetError, UsageError

RUN = "20260101-000000-abcd"


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A workspace with two shard folders and the report that describes them."""
    root = tmp_path / "w"
    workspace = open_workspace(root)
    listed = []
    for kind in ("audio", "video"):
        sample = ShardSample("a", ".flac", f"media of {kind}".encode(), {"kind": kind})
        made = write_shards(
            [sample], workspace.shards(kind), prefix=kind, max_samples=9, max_bytes=1 << 20
        )
        listed += [asdict(shard) for shard in made]
    report = workspace.runs / RUN / "run.json"
    report.parent.mkdir(parents=True)
    report.write_text(json.dumps({"run": RUN, "shards": listed}))
    return root


def change(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b" ")


def test_nothing_is_approved_until_somebody_says_so(work: Path):
    assert check(work / "shards" / "video") is None
    made = approve(work, RUN, "A. Reviewer", "fine")
    assert [a.kind for a in made] == ["audio", "video"]
    found = check(work / "shards" / "video")
    assert found == made[1]
    assert found is not None
    assert found.dataset == manifest_digest(work / "shards" / "video")


@pytest.mark.parametrize("path", ["shards/video/manifest.json", f"runs/{RUN}/run.json"])
def test_one_changed_byte_voids_an_approval(work: Path, path: str):
    approve(work, RUN, "A. Reviewer")
    change(work / path)
    assert check(work / "shards" / "video") is None


def test_other_shards_keep_their_approval(work: Path):
    approve(work, RUN, "A. Reviewer")
    change(work / "shards" / "video" / "manifest.json")
    assert check(work / "shards" / "audio") is not None


def test_a_rejection_takes_an_approval_back(work: Path):
    approve(work, RUN, "A. Reviewer")
    reject(work, RUN, "B. Reviewer", "too dark")
    assert check(work / "shards" / "video") is None


def test_a_copied_approval_is_worth_nothing_for_other_shards(work: Path):
    (approval, _) = approve(work, RUN, "A. Reviewer")
    change(work / "shards" / "video" / "manifest.json")
    digest = manifest_digest(work / "shards" / "video")
    folder = work / "approvals"
    (folder / f"{digest}.json").write_bytes((folder / f"{approval.dataset}.json").read_bytes())
    assert check(work / "shards" / "video") is None


def test_a_report_of_other_shards_cannot_approve_these(work: Path):
    report = work / "runs" / RUN / "run.json"
    report.write_text(json.dumps({"run": RUN, "shards": [{"sha256": "0" * 64}]}))
    with pytest.raises(DatasetError, match="later run"):
        approve(work, RUN, "A. Reviewer")


@pytest.mark.parametrize("run", ["nope", "../runs/" + RUN, ""])
def test_a_run_that_is_not_there_is_named(work: Path, run: str):
    with pytest.raises(UsageError, match=RUN):
        approve(work, run, "A. Reviewer")


def test_a_damaged_approval_is_an_error_and_no_pass(work: Path):
    (approval, _) = approve(work, RUN, "A. Reviewer")
    (work / "approvals" / f"{approval.dataset}.json").write_text('{"decision": "approved"}')
    with pytest.raises(DatasetError, match="damaged"):
        check(work / "shards" / "audio")


def test_an_approval_needs_a_name(work: Path):
    with pytest.raises(UsageError, match="--reviewer"):
        approve(work, RUN, "  ")


def test_the_last_run_is_the_newest_with_a_report(work: Path):
    (work / "runs" / "20270101-000000-abcd").mkdir()
    assert run_folder(work, "last").name == RUN
