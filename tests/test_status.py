"""`reelmill status` reads what runs wrote."""

import json
import os

import pytest
from tests.reports.planted_run import plant
from typer.testing import CliRunner

from reelmill.cli import app
from reelmill.datasets.workspace import open_workspace


def test_a_run_is_listed_with_its_counts(tmp_path):
    workspace = open_workspace(tmp_path / "w")
    planted = plant(workspace.runs / "one", clips=40, previews=1)
    result = CliRunner().invoke(app, ["status", "-w", str(workspace.root), "--json"])
    assert result.exit_code == 0, result.output
    (run,) = json.loads(result.stdout.strip().splitlines()[-1])["runs"]
    clips = planted.report.totals.clips
    assert run["clips"]["in"] == clips.into.count
    assert run["clips"]["kept"] == clips.kept.count
    costs = {stage.slug: stage.cost_seconds for stage in planted.report.stages}
    assert run["cost_seconds"] == pytest.approx(costs, abs=0.001)
    said = CliRunner().invoke(app, ["status", "-w", str(workspace.root)]).stdout
    dearest = max(costs, key=lambda stage: costs[stage])
    assert f"of the last run: {dearest} {costs[dearest]:.1f} s" in said


def test_who_writes_is_told(tmp_path):
    workspace = open_workspace(tmp_path / "w")

    def told():
        run = CliRunner().invoke(app, ["status", "-w", str(workspace.root), "--json"])
        return json.loads(run.stdout.strip().splitlines()[-1])["running"]

    assert told() == ""
    with workspace.lock():
        assert told() == f"process {os.getpid()}"
    assert told() == ""
