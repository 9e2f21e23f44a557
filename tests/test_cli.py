"""The command line as a user meets it: messages, exit codes, one JSON object."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.long


def reelmill(*args: object, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "reelmill.cli", *map(str, args)],
        capture_output=True,
        text=True,
        env={**os.environ, **(env or {})},
        check=False,
    )


def test_an_unknown_option_is_a_usage_error():
    run = reelmill("recipe", "show", "video", "--nope")
    assert run.returncode == 2
    assert "No such option" in run.stderr
    assert run.stdout == ""


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("Shotz.threshold=3", "did you mean 'Shots'"),
        ("Shots.treshold=3", "did you mean 'threshold'"),
        ("Shots.threshold=high", "must be a number"),
        ("Shots", "Stage.field=value"),
    ],
)
def test_a_wrong_setting_is_told_with_its_remedy_and_no_traceback(setting: str, told: str):
    run = reelmill("recipe", "check", "video", "--set", setting)
    assert run.returncode == 2
    assert told in run.stderr
    assert "Traceback" not in run.stderr


def test_an_error_is_one_object_too():
    run = reelmill("recipe", "check", "nowhere.yaml", "--json")
    answer = json.loads(run.stdout.splitlines()[-1])
    assert answer["error"] == "RecipeError"
    assert answer["exit_code"] == run.returncode == 2
    assert "nowhere.yaml" in answer["message"]


def test_the_traceback_is_there_for_who_asks():
    run = reelmill("recipe", "check", "nowhere.yaml", env={"REELMILL_TRACEBACK": "1"})
    assert run.returncode == 1
    assert "Traceback" in run.stderr


def test_a_recipe_that_was_printed_can_be_read_again(tmp_path: Path):
    printed = reelmill("recipe", "show", "video").stdout
    file = tmp_path / "mine.yaml"
    file.write_text(printed)
    digests = {
        json.loads(reelmill("recipe", "check", name, "--json").stdout)["digest"]
        for name in ("video", file)
    }
    assert len(digests) == 1


def test_sources_that_are_not_there_are_named(tmp_path: Path):
    run = reelmill("curate", tmp_path / "absent", "--workspace", tmp_path / "w")
    assert run.returncode == 2
    assert "absent" in run.stderr
    assert "Traceback" not in run.stderr


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_from_outside_exits_with_75_and_says_how_to_go_on(tmp_path: Path, how: int):
    """The signal comes while a step is at work."""
    media = tmp_path / "media"
    media.mkdir()
    (media / "clip.mp4").write_bytes(b"\0" * 1000)
    stopped = (
        "import os, signal, sys\n"
        "from reelmill.curation import engine\n"
        "def step(self, *a):\n"
        f"    os.kill(os.getpid(), {int(how)})\n"
        "    signal.pause()\n"
        "engine.Step.run = step\n"
        "from reelmill.cli import main\n"
        "main()\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", stopped, "curate", media, "--workspace", tmp_path / "w"],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert run.returncode == 75
    assert "same command" in run.stderr
    assert "Traceback" not in run.stderr


def test_doctor_finds_what_the_package_brings():
    run = reelmill("doctor", "--json")
    findings = {f["name"]: f for f in json.loads(run.stdout.splitlines()[-1])["findings"]}
    assert findings["codecs"]["level"] == "ok"
    assert findings["ports"]["level"] == "ok"
    assert re.match(r"\d+ of \d+ here", findings["weights"]["text"])
    assert findings["python"]["text"].startswith(sys.version.split()[0])


def test_flow_commands_take_the_options_of_their_direct_ones():
    """`reelmill flow NAME` takes the options of `reelmill NAME`."""
    import typer

    from reelmill.cli import app

    root = typer.main.get_command(app)
    flows = root.commands["flow"].commands
    for name, command in flows.items():
        direct = root.commands[name]
        assert [p.opts for p in command.params] == [p.opts for p in direct.params]
