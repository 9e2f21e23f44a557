"""Rejected: the list, and files that can be looked at."""

from __future__ import annotations

import json
import os
import shutil

import numpy as np
import pytest
from tests.media import read_plain
from tests.small_run import curate

from reelmill.curation.explain.rejects import export, rejects
from reelmill.curation.explain.verdict_table import VerdictTable
from reelmill.datasets.workspace import open_workspace
from reelmill.errors import UsageError


def test_rejects_of_a_stage_come_with_value_and_bound(ran):
    table = VerdictTable(open_workspace(ran))
    (quiet,) = rejects(table, stage="Loudness")
    assert (quiet.reason, quiet.path.endswith("quiet.mp4")) == ("silent", True)
    assert float(quiet.value) < -50
    reasons = sorted(r.reason for r in rejects(table))
    assert reasons == ["blurred", "exact_duplicate", "not_media", "silent"]
    assert "corrupt" in {r.reason for r in rejects(table, failed=True)}
    assert rejects(table, reason="silent") == [quiet]
    with pytest.raises(UsageError, match="had no stage 'Loud'"):
        rejects(table, stage="Loud")


def test_previews_show_the_clip(ran, tmp_path):
    table = VerdictTable(open_workspace(ran))
    (done,) = export(table, rejects(table, stage="Blur"), tmp_path / "out")
    player = next(f for f in done.files if f.endswith(".mp4"))
    plain = read_plain(tmp_path / "out" / player)
    assert len(plain.rgb) == pytest.approx(24, abs=2)  # two seconds at 12 frames
    assert np.abs(np.diff(plain.gray, axis=2)).mean() < 12  # fog
    (line,) = (tmp_path / "out" / "rejected.jsonl").read_text().splitlines()
    assert json.loads(line)["files"] == list(done.files)


def test_copies_are_whole_clips_and_whole_files(ran, corpus, tmp_path):
    table = VerdictTable(open_workspace(ran))
    found = {r.reason: r for r in export(table, rejects(table, failed=True), tmp_path, copies=True)}
    assert len(read_plain(tmp_path / found["silent"].files[0]).rgb) == 32
    copy = tmp_path / found["corrupt"].files[0]
    assert copy.read_bytes() == (corpus / "cut-off.mp4").read_bytes()


def test_a_source_that_is_gone_or_changed_is_said_and_not_shown(corpus, tmp_path):
    media = shutil.copytree(corpus, tmp_path / "media", copy_function=os.link)
    curate(media, tmp_path / "w")
    (media / "fog.mp4").unlink()
    (media / "quiet.mp4").unlink()
    (media / "quiet.mp4").write_bytes((corpus / "fine.mp4").read_bytes())
    table = VerdictTable(open_workspace(tmp_path / "w"))
    found = {r.reason: r for r in export(table, rejects(table), tmp_path / "out")}
    assert "cannot be read" in found["blurred"].note
    assert "other bytes" in found["silent"].note
    assert not found["blurred"].files
    assert not found["silent"].files
