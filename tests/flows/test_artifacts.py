"""What a flow shows in Prefect while it runs and when it has ended, as the server has it."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from tests.media import noise_video

from reelmill.reports.page import load

SCRIPT = """
import json, sys
from pathlib import Path
from reelmill.flows import settings
settings.start(Path(sys.argv[1]))
from reelmill.flows import artifacts
from reelmill.flows.curate import curate
artifacts.PROGRESS_S = 0.0
with settings.connected():
    print(curate(**json.loads(sys.argv[2])).report)
"""


@pytest.mark.slow
def test_a_run_shows_its_progress_its_stages_and_its_report(tmp_path: Path):
    for seed in range(3):
        noise_video(tmp_path / "media" / f"{seed}.mp4", seconds=1.0, seed=seed)
    (tmp_path / "mine.yaml").write_text("kind: video\nstages: [Probe, WholeFile, Blur, Cut]\n")
    given = {
        "sources": [str(tmp_path / "media")], "workspace": str(tmp_path / "work"),
        "recipe": str(tmp_path / "mine.yaml"), "workers": 1,
    }  # fmt: skip
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT, tmp_path / "home", json.dumps(given)],
        capture_output=True, text=True, env=clean, timeout=240, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    with closing(sqlite3.connect(tmp_path / "home" / "prefect.db")) as database:
        rows = database.execute("select key, type, data from artifact").fetchall()
    found = {key: (kind, json.loads(str(data))) for key, kind, data in rows}
    assert {"curate-counts", "curate-stages", "curate-summary", "curate-report"} <= set(found)
    steps = ("ingest", "probe", "video-shared-decode", "video-cut", "video-shards", "report")
    for step in steps:
        assert found[f"progress-{step}"] == ("progress", 100)
    report = load(Path(run.stdout.splitlines()[-1]).parent)
    table = found["curate-stages"][1]
    table = json.loads(table) if isinstance(table, str) else table
    assert [(row["stage"], row["in"], row["kept"], row["measured"]) for row in table] == [
        (s.slug, s.tally.into.count, s.tally.kept.count, s.measured) for s in report.stages
    ]
