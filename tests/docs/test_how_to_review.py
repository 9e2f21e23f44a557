"""The commands of docs/how-to-run-a-review.md, in their order, from clips to results."""

from __future__ import annotations

import json
import re
import shlex
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

from tests.evaluation.review.studio import PROMPTS, SYSTEMS, clips_of

from reelmill.evaluation.review.page import KEYS
from reelmill.evaluation.review.round import Round, RoundFolder

PAGE = Path(__file__).parent.parent.parent / "docs" / "how-to-run-a-review.md"
PORT = re.compile(r" --port \d+")  # the test takes a free one
CODE = """
import json, sys
from reelmill.cli import main
for line in json.loads(sys.argv[1]):
    sys.argv = ["reelmill", *line]
    try:
        main()
    except SystemExit as end:
        if end.code:
            raise
"""


def commands() -> list[list[str]]:
    blocks = re.findall(r"```bash\n(.*?)```", PAGE.read_text(), re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    assert all(line.startswith("reelmill arena ") for line in lines)
    return [shlex.split(PORT.sub("", line))[1:] for line in lines]


def start(lines: list[list[str]], cwd: Path) -> subprocess.Popen:
    """The commands, one after the other in one process, each answering with one object."""
    said = json.dumps([[*line, "--json"] for line in lines])
    return subprocess.Popen([sys.executable, "-c", CODE, said], cwd=cwd, text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE)  # fmt: skip


def finish(process: subprocess.Popen) -> list[dict]:
    said, told = process.communicate(timeout=120)
    assert process.returncode == 0, told
    return [json.loads(line) for line in said.splitlines()]


def votes_of(round_: Round, rater: str) -> list[bytes]:
    """The left, and 4 of 5, for everything that a rater is asked."""
    seat = round_.seat(rater)
    assert seat is not None
    return [
        json.dumps(
            {"round": round_.id, "rater": rater, "item": item.id,
             "answers": dict.fromkeys(item.rows, "left" if item.paired else 4)}
        ).encode()
        for item in seat.items
    ]  # fmt: skip


def test_the_commands_of_the_page_run_a_review(tmp_path: Path):
    clips_of(tmp_path / "clips", PROMPTS[:1], seconds=0.3)
    build, serve, *rest = commands()
    assert [line[1] for line in (build, serve, *rest)] == [
        "build", "serve", "add", "status", "close", "report",
    ]  # fmt: skip
    finish(start([build], tmp_path))
    round_ = RoundFolder(tmp_path / "round").round()

    server = start([serve], tmp_path)
    assert server.stdout is not None
    link = json.loads(server.stdout.readline())["links"]["anna"]
    for vote in votes_of(round_, "anna"):
        told = {"Content-Type": "application/json"}
        with urllib.request.urlopen(urllib.request.Request(f"{link}votes", vote, told)) as reply:
            assert json.load(reply) == {"kept": 1}
    server.send_signal(signal.SIGINT)
    finish(server)

    (tmp_path / rest[0][-1]).write_bytes(b"\n".join(votes_of(round_, "ben")))
    added, status, closed, reported = finish(start(rest, tmp_path))
    assert added["added"] == len(votes_of(round_, "ben"))
    assert all(r["answered"] == r["asked"] > 0 for r in status["raters"].values())
    assert closed["results"]["without"] == []
    assert reported["results"]["without"] == ["ben"]
    page = (tmp_path / "round" / "results.html").read_text()
    assert all(system in page for system in SYSTEMS)


def test_the_page_names_every_key():
    told = re.search(r"\| key \| does \|\n(.*?)\n\n", PAGE.read_text(), re.DOTALL)[1]
    keys = {key for row in told.splitlines() for key in row.split("|")[1].split()}
    for group, _ in KEYS:
        assert set(group.split()) <= keys, group
