"""Tasks are tried again where that can help, and nowhere else."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from reelmill.errors import DatasetError, UsageError
from reelmill.flows.tasks import may_pass

SCRIPT = """
import errno, json, sys
from pathlib import Path
from reelmill.flows import settings
settings.start(Path(sys.argv[1]))
from prefect import flow
from reelmill.errors import UsageError
from reelmill.flows import tasks

tasks.WAITS_S = [0.05, 0.1]
tries = []

def failing(error, times):
    def work():
        tries.append(1)
        if len(tries) <= times:
            raise error
        return "done"
    return work

@flow
def one(error, times, resumes):
    return tasks.run_task("t", failing(error, times), lambda r: r, resumes=resumes)

found = []
with settings.connected():
    for error, times, resumes in (
        (OSError(errno.EIO, "gone for a while"), 1, True),
        (OSError(errno.EIO, "gone for a while"), 1, False),
        (OSError(errno.ENOSPC, "full"), 1, True),
        (UsageError("wrong"), 1, True),
        (OSError(errno.EIO, "gone for good"), 9, True),
    ):
        tries.clear()
        try:
            ended = one(error, times, resumes)
        except (OSError, UsageError) as raised:
            ended = type(raised).__name__
        found.append([ended, len(tries)])
print(json.dumps(found))
"""


@pytest.mark.parametrize(
    ("error", "helps"),
    [
        (OSError(errno.EIO, "x"), True),
        (TimeoutError(errno.ETIMEDOUT, "x"), True),
        (ConnectionResetError(errno.ECONNRESET, "x"), True),
        (OSError(errno.ENOSPC, "x"), False),
        (PermissionError(errno.EACCES, "x"), False),
        (FileNotFoundError(errno.ENOENT, "x"), False),
        (OSError("no number"), False),
        (MemoryError(), False),
        (UsageError("x"), False),
        (KeyError("x"), False),
    ],
)
def test_only_what_may_pass_is_tried_again(error, helps):
    assert may_pass(error) is helps
    outer = DatasetError("cannot be read")
    outer.__cause__ = error
    assert may_pass(outer) is helps


@pytest.mark.slow
def test_a_task_is_tried_as_often_as_it_may_and_then_fails(tmp_path: Path):
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT, tmp_path], capture_output=True, text=True, env=clean,
        timeout=280, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout.splitlines()[-1]) == [
        ["done", 2], ["OSError", 1], ["OSError", 1], ["UsageError", 1], ["OSError", 3],
    ]  # fmt: skip
