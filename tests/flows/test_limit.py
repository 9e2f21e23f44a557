"""A run that takes too long ends, says so, and can be gone on with; on Prefect's real engine."""

from __future__ import annotations

import hashlib
import json
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
from tests.media import noise_video

from reelmill.curation.engine import CurateOptions, Curation
from reelmill.errors import TimedOut
from reelmill.flows.limit import NONE, Limit
from reelmill.flows.tasks import may_pass

SCRIPT = """
import json, os, sys, time
from pathlib import Path
from reelmill.flows import settings
settings.start(Path(sys.argv[1]) / "home")
from prefect import flow
from reelmill.errors import TimedOut
from reelmill.flows.curate import curate
from reelmill.flows.limit import Limit
from reelmill.flows.tasks import run_task

@flow
def sleeping(run_s, step_s):
    limit = Limit(run_s, step_s)
    run_task("short", lambda: time.sleep(0.1), lambda r: "done", limit=limit)
    run_task("long", lambda: time.sleep(60), lambda r: "done", limit=limit, resumes=True)

found = []
given = json.loads(sys.argv[2])
with settings.connected():
    for run_s, step_s in ((1.5, None), (None, 0.6), (30, 0.5)):
        try:
            sleeping(run_s, step_s)
        except TimedOut as error:
            found.append(str(error))
    timeout, commits = 4.0, Path(given["workspace"]) / "ledger" / "commits"
    while not any("facts/Probe" in commit.read_text() for commit in commits.glob("*.json")):
        try:
            curate(**given, timeout=timeout)
        except TimedOut as error:
            found[3:] = [str(error)]
        timeout *= 1.4  # a busy machine needs longer to get anywhere
    curate(**given)
print(json.dumps(found))
"""


def test_within_the_limit_nothing_happens():
    with NONE.within("a"), Limit(60, 30).within("b"):
        pass
    assert NONE.left is None


@pytest.mark.parametrize(("limit", "passed"), [((0.1,), "0.1 s of the run"), ((60, 0.1), "0.1 s")])
def test_what_takes_too_long_is_named_with_its_limit(limit: tuple[float, ...], passed: str):
    told = f"^a step was not done within {passed}[.] What is "
    inner = Limit(*limit)
    with pytest.raises(TimedOut, match=told), Limit(30).within("all"), inner.within("a step"):
        time.sleep(5)


def test_a_run_that_is_over_has_no_time_for_a_step():
    limit = Limit(0.05)
    time.sleep(0.1)
    with pytest.raises(TimedOut, match="next"), limit.within("next"):
        time.sleep(5)


def test_a_limit_is_no_fault_that_passes_by_trying_again():
    assert not may_pass(TimedOut("too long"))
    assert TimedOut("too long").exit_code == 75


def shards(work: Path) -> dict[str, str]:
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in (work / "shards").rglob("*.tar")
    }


@pytest.mark.slow
def test_a_run_ends_as_timed_out_and_the_next_goes_on_from_there(tmp_path: Path):
    """The engine's first commits are there after the first try; the second measures the rest."""
    for seed in range(12):
        noise_video(tmp_path / "media" / f"{seed}.mp4", seconds=20.0, seed=seed)
    given = {
        "sources": [str(tmp_path / "media")], "workspace": str(tmp_path / "work"),
        "recipe": "video", "allow_missing": True, "max_failed": 1.0, "workers": 1,
    }  # fmt: skip
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT, tmp_path, json.dumps(given)],
        capture_output=True, text=True, check=False, timeout=280,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    whole, step, both, stopped = json.loads(run.stdout.splitlines()[-1])
    assert whole.startswith("long was not done within 1.5 s of the run. What is committed stays")
    assert step.startswith("long was not done within 0.6 s. ")
    assert both.startswith("long was not done within 0.5 s. ")
    assert "s of the run. What is committed stays" in stopped
    with closing(sqlite3.connect(tmp_path / "home" / "prefect.db")) as database:
        tasks = database.execute(
            "select name, state_name from task_run where name in ('short', 'long') order by name"
        ).fetchall()
        # None was tried again.
        assert tasks == [("long", "TimedOut")] * 3 + [("short", "Completed")] * 3
        ended = database.execute(
            "select r.state_name, s.message from flow_run r join flow_run_state s "
            "on r.state_id = s.id join flow f on r.flow_id = f.id where f.name = 'curate' "
            "order by r.start_time"
        ).fetchall()
        *stopped_before, last = [name for name, _ in ended]
        assert (set(stopped_before), last) == ({"TimedOut"}, "Completed")
        assert "What is committed stays" in ended[0][1]
        names = "select distinct state_name from task_run where state_name != 'Completed'"
        assert {name for (name,) in database.execute(names)} <= {"TimedOut", "Reused"}
    (report,) = (tmp_path / "work" / "runs").glob("*/run.json")
    clean = Curation(
        CurateOptions(
            **given | {"sources": tuple(given["sources"]), "workspace": tmp_path / "clean"}
        )
    )
    for one in clean.steps():
        one.run()
    assert shards(tmp_path / "work") == shards(tmp_path / "clean")
    fresh = json.loads(Path(clean.result().report).with_name("run.json").read_bytes())
    again = json.loads(report.read_bytes())
    assert again["totals"] == fresh["totals"]
    done = [sum(s["measured"] or 0 for s in told["stages"]) for told in (again, fresh)]
    assert done[0] < done[1]  # what was committed before it ran out of time
