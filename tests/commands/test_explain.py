"""The commands that explain, as a user and as a script meet them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.small_run import RECIPE, curate, make_corpus

pytestmark = pytest.mark.long


def reelmill(*args: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "reelmill.cli", *map(str, args)],
        capture_output=True,
        text=True,
        env=dict(os.environ),
        check=False,
    )


def answer(*args: object, exit_code: int = 0) -> dict:
    run = reelmill(*args, "--json")
    assert run.returncode == exit_code, run.stderr
    (line,) = run.stdout.splitlines()
    return json.loads(line)


@pytest.fixture(scope="module")
def work(tmp_path_factory) -> Path:
    """A workspace with two runs, beside its media and its recipe."""
    root = tmp_path_factory.mktemp("explain")
    make_corpus(root / "media")
    curate(root / "media", root / "w")
    curate(root / "media", root / "w", "Blur.min_sharpness=1000")
    (root / "recipe.yaml").write_text(RECIPE)
    return root


def test_why_shows_the_path_with_values_and_bounds(work):
    text = reelmill("why", "quiet.mp4", "-w", work / "w").stdout
    assert "Blur: blurred at" in text
    assert "bound min_volume: mean_volume >= -50: broken" in text
    found = answer("why", "quiet.mp4", "-w", work / "w")
    assert found["clips"][0]["outcome"] == "rejected"


def test_where_names_bytes(work):
    found = answer("where", "fine.mp4", "-w", work / "w")
    assert found["clips"][0]["outcome"] == "rejected"
    assert found["shards"] == []
    assert "no shard" in reelmill("where", "fine.mp4", "-w", work / "w").stdout


def test_rejected_exports_what_can_be_seen(work, tmp_path):
    out = tmp_path / "out"
    found = answer("rejected", "-w", work / "w", "--stage", "Blur", "--export", out)
    assert found["total"] == len(found["rejected"]) == 4
    assert {f for item in found["rejected"] for f in item["files"]} <= {
        p.name for p in out.iterdir()
    }
    assert (out / "rejected.jsonl").is_file()


def test_diff_names_the_rule(work):
    first, last = sorted(p.stem for p in (work / "w" / "ledger" / "runs").iterdir())
    found = answer("diff", first, last, "-w", work / "w")
    assert found["sides"]["clip"] == {"lost": 2, "won": 0, "same": 1}
    assert (
        "Blur.min_sharpness 0.015 -> 1000.0"
        in reelmill("diff", first, "last", "-w", work / "w").stdout
    )


def test_plan_says_what_and_why(work):
    args = ("plan", work / "media", "-w", work / "w", "--recipe", work / "recipe.yaml")
    assert answer(*args, "--set", "Blur.min_sharpness=1000")["todo"] == 0
    text = reelmill(*args, "--set", "PHash.fps=2").stdout
    assert "fields: fps 4.0 -> 2.0" in text


@pytest.mark.slow
def test_retry_and_forget_say_what_they_did(work):
    found = answer("retry", "--failed", "-w", work / "w")
    assert [f["stage"] for f in found["forgotten"]] == ["Integrity"]
    assert answer("retry", "-w", work / "w", exit_code=2)["error"] == "UsageError"
    looked = answer("forget", "fog.mp4", "-w", work / "w", "--dry-run")
    assert looked["removed"] is False
    done = answer("forget", "fog.mp4", "-w", work / "w")
    assert done["removed"] is True
    assert done["rows"] > 0
    assert "saw no" in reelmill("why", "fog.mp4", "-w", work / "w").stderr


@pytest.mark.parametrize(
    "args",
    [
        ("why", "nope"),
        ("where", "nope"),
        ("why", "fine.mp4", "--run", "nope"),
        ("diff", "a", "b"),
        ("rejected", "--stage", "Nope"),
        ("forget", "nope"),
    ],
)
def test_what_is_not_there_is_a_usage_error(work, args):
    assert answer(*args, "-w", work / "w", exit_code=2)["error"] == "UsageError"


@pytest.mark.parametrize("command", [("why", "x"), ("where", "x"), ("rejected",), ("forget", "x")])
def test_a_folder_that_is_no_workspace_is_refused_and_not_made(tmp_path, command):
    found = answer(*command, "-w", tmp_path / "w", exit_code=1)
    assert found["error"] == "WorkspaceError"
    assert not (tmp_path / "w").exists()
