"""A flow gives the bytes that the direct command gives, and says no word too many."""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import json
import os
import re
import sqlite3
import subprocess
import sys
import uuid
from collections import Counter
from dataclasses import fields
from pathlib import Path

import pytest
from tests.media import noise_video, still
from tests.ray_nodes import wait_until_gone

from reelmill.curation.engine import MAX_GROUPS
from reelmill.datasets.corpus.corpus import make_corpus
from reelmill.flows.artifacts import cell, facts_table

pytestmark = pytest.mark.long


def reelmill(*args: object, **environment: str) -> dict:
    """The JSON answer of a command that must succeed without a traceback."""
    run = subprocess.run(
        [sys.executable, "-m", "reelmill.cli", *map(str, args), "--json"],
        capture_output=True,
        text=True,
        env={k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")} | environment,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert "Traceback" not in run.stderr
    assert "prefect" not in run.stderr.lower()
    return json.loads(run.stdout.splitlines()[-1])


def digests(folder: Path) -> dict[str, str]:
    """sha256 of every file below a folder, by its path."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def told(work: Path) -> dict[str, list[str]]:
    """States in which task runs of each name ended, in their order."""
    states: dict[str, list[str]] = {}
    with contextlib.closing(sqlite3.connect(work / ".prefect" / "prefect.db")) as db:
        for name, state in db.execute("select name, state_name from task_run order by start_time"):
            states.setdefault(name, []).append(state)
    return states


@pytest.mark.slow
def test_flows_give_the_bytes_of_direct_commands(tmp_path: Path):
    corpus = tmp_path / "corpus"
    make_corpus(corpus, training_clips=4)
    budget = ("--allow-missing", "--max-failed", 1)
    for way, name in (((), "direct"), (("flow",), "flow")):
        work = tmp_path / name
        first = reelmill(*way, "curate", corpus, "-w", work, *budget)
        assert first["redone"] > 0
        again = reelmill(*way, "curate", corpus, "-w", work, *budget)
        assert again["redone"] == 0
        assert again["clips"] == first["clips"]
        reelmill(*way, "encode", "-w", work)
    database = tmp_path / "flow" / ".prefect" / "prefect.db"
    with contextlib.closing(sqlite3.connect(database)) as db:
        said = [why for (why,) in db.execute(
            "select s.message from flow_run r join flow_run_state s on r.state_id = s.id "
            "join flow f on r.flow_id = f.id where f.name = 'curate' order by r.start_time"
        )]  # fmt: skip
    assert len(said) == 2
    for run, why in zip((first, again), said, strict=True):
        assert f"clips {run['clips']['in']} = {run['clips']['kept']} kept" in why
        assert f"; {run['redone']} measured anew." in why
    states = told(tmp_path / "flow")
    account = "account for everything and render the report"
    for name in ("hash source files", "video: write shards", account):
        assert states[name] == ["Completed", "Completed"]  # it does its work each time
    for part in ("shards", "latents"):
        assert digests(tmp_path / "direct" / part) == digests(tmp_path / "flow" / part)


@pytest.mark.slow
def test_task_runs_grow_with_stages_and_not_with_clips(tmp_path):
    """Beyond so many groups of files the groups grow, and their number does not."""
    runs = []
    for count in (3, 500):
        folder = tmp_path / str(count)
        folder.mkdir()
        for seed in range(count):
            still(folder / f"{seed}.jpg", seed=seed)
        budget = ("--recipe", "image", "--allow-missing", "--max-failed", 1)
        done = reelmill("flow", "curate", folder, "-w", tmp_path / f"w{count}", *budget)
        assert done["files"]["in"] == count
        database = tmp_path / f"w{count}" / ".prefect" / "prefect.db"
        with contextlib.closing(sqlite3.connect(database)) as db:
            names = [name for (name,) in db.execute("SELECT name FROM task_run")]
        runs.append(Counter(re.sub(r" [0-9]+/[0-9]+$", "", name) for name in names))
    few, many = runs
    assert few.keys() == many.keys()
    assert max(many.values()) <= MAX_GROUPS


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_curate_flow_on_ray_gives_the_bytes_of_a_local_run_and_leaves_no_process(tmp_path):
    for seed in range(3):
        noise_video(tmp_path / f"{seed}.mp4", seconds=1.0, seed=seed)
    films = [tmp_path / f"{seed}.mp4" for seed in range(3)]
    budget = ("--recipe", "video", "--allow-missing", "--max-failed", 1)
    local = reelmill("curate", *films, "-w", tmp_path / "local", *budget)
    mark = f"mark-{uuid.uuid4().hex}"
    ray = ("--engine", "ray", "--workers", 2)
    flow = reelmill(
        "flow", "curate", *films, "-w", tmp_path / "flow", *budget, *ray, REELMILL_TEST_MARK=mark
    )
    wait_until_gone(bearing(mark))
    assert flow["clips"] == local["clips"]
    assert flow["redone"] == local["redone"] > 0
    for part in ("shards", "ledger/commits"):
        assert digests(tmp_path / "flow" / part) == digests(tmp_path / "local" / part)


def bearing(mark: str) -> list[int]:
    """Processes that were started, by whomever, with this in their environment."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if mark.encode() in path.read_bytes():
                found.append(int(path.parent.name))
    return found


def test_flows_take_every_option_of_the_engine():
    """A field that an engine call learns must reach its flow, or the two ways would part."""
    from reelmill.curation.engine import CurateOptions
    from reelmill.curation.lips.sync_training import SyncOptions
    from reelmill.flows import curate, encode, generate, sync, train
    from reelmill.training.config import TrainOptions
    from reelmill.training.encode import EncodeOptions
    from reelmill.training.generate import GenerateOptions

    chosen = {"only", "since", "until", "date_column", "step_timeout"}
    for flow, options, made_by_us, in_another in (
        (curate.curate, CurateOptions, {"command", "limits", "select"}, chosen),
        (encode.encode, EncodeOptions, {"sizes"}, {"also"}),  # a form takes texts, 96x64
        # A gate is part of the curriculum. Of how it is computed a form asks for ranks alone; what
        # else the command line takes, `reelmill flow train` refuses.
        (train.train, TrainOptions, {"execution", "log_clips"}, {"gate", "ranks"}),
        (generate.generate, GenerateOptions, set(), set()),
        (sync.sync, SyncOptions, set(), set()),
    ):
        taken = set(inspect.signature(flow.fn).parameters)
        assert taken == {field.name for field in fields(options)} - made_by_us | in_another | {
            "timeout"
        }


def test_text_that_is_not_ours_cannot_break_out_of_a_table():
    hostile = "a|b`c`<script>alert(1)</script>\n| x | y |"
    escaped = cell(hostile)
    assert "<" not in escaped
    assert "`" not in escaped
    assert "\n" not in escaped
    assert escaped.replace("\\|", "").count("|") == 0
    table = facts_table("t", {hostile: hostile})
    assert len(table.splitlines()) == 5
