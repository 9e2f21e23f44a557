"""The embedded server comes up without being asked, and goes without being told."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

SCRIPT = """
import sys, time
from pathlib import Path
from reelmill.flows import settings
settings.start(Path(sys.argv[1]))
from prefect import flow
from reelmill.flows import artifacts
from reelmill.flows.tasks import run_task

@flow
def little():
    for i in range(3):
        run_task(f"task {i}", lambda: i, lambda r: "found", reused=lambda r: r == 2)
    artifacts.summary("little", "Little", {"a": 1})
    print("server", __import__("os").environ["REELMILL_EMBEDDED_SERVER"], flush=True)
    time.sleep(float(sys.argv[2]))
    return 7

with settings.connected():
    assert little() == 7
"""


WRONG = """
import os, sys
from pathlib import Path
from reelmill.flows import settings
try:
    with settings.begun(Path(sys.argv[1])):
        print(os.environ["REELMILL_EMBEDDED_SERVER"], Path(sys.argv[1]).is_dir())
        raise ValueError("a wrong option")
except ValueError:
    print(*sorted(path.name for path in Path(sys.argv[2]).rglob("*")))
"""


def clean_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}


def count(database: sqlite3.Connection, table: str) -> int:
    return int(database.execute(f"select count(*) from {table}").fetchone()[0])


def alive(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


@pytest.mark.parametrize("there", ["", "new", "new/workspace"])
def test_a_wrong_option_ends_the_server_and_leaves_no_folder_of_its(tmp_path: Path, there: str):
    (tmp_path / there).mkdir(parents=True, exist_ok=True)
    run = subprocess.run(
        [sys.executable, "-c", WRONG, tmp_path / "new" / "workspace" / ".prefect", tmp_path],
        capture_output=True,
        text=True,
        env=clean_environment(),
        timeout=60,
        check=True,
    )
    begun, left = run.stdout.splitlines()
    pid, made = begun.split()
    assert made == "True"
    assert left == there.replace("/", " ")
    assert not alive(int(pid))


@pytest.mark.slow
def test_a_flow_runs_with_no_server_and_leaves_nothing_behind(tmp_path: Path):
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT, tmp_path / "home", "0"],
        capture_output=True,
        text=True,
        env=clean_environment(),
        timeout=240,
        check=False,
    )
    assert (run.returncode, run.stderr) == (0, "")
    assert not alive(int(run.stdout.split()[1]))
    assert (tmp_path / "home" / "server.log").read_text() == ""
    with closing(sqlite3.connect(tmp_path / "home" / "prefect.db")) as database:
        tasks = "select name, state_name from task_run order by name"
        ended = [("task 0", "Completed"), ("task 1", "Completed"), ("task 2", "Reused")]
        assert database.execute(tasks).fetchall() == ended
        assert count(database, "task_run_state") == 9  # each was pending, running, and ended
        assert database.execute("select state_name from flow_run").fetchall() == [("Completed",)]
        assert database.execute("select key from artifact").fetchall() == [("little",)]
        assert count(database, "log") >= 3
        assert count(database, "events") >= 12


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_the_server_dies_with_its_parent(tmp_path: Path, how: int):
    run = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, tmp_path / "home", "200"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=clean_environment(),
    )
    try:
        assert run.stdout is not None
        server = int(run.stdout.readline().split()[1])
        assert alive(server)
        run.send_signal(how)
        run.wait(60)
        end = time.monotonic() + 30
        while alive(server) and time.monotonic() < end:
            time.sleep(0.1)
        assert not alive(server)
    finally:
        run.kill()
        run.communicate()
