"""A rater's whole session in a real browser: interrupted, resumed, finished, and blind."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.evaluation.review.studio import PROMPTS, SYSTEMS, clips_of, names_in

from reelmill.evaluation.review.round import RoundFolder

CHROMIUM = Path("/usr/bin/chromium")
ARGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CHROMIUM.exists(), reason="there is no Chromium"),
]


@pytest.fixture(scope="module")
def chromium():
    api = pytest.importorskip("playwright.sync_api")
    with api.sync_playwright() as playwright:
        yield playwright.chromium


def arena(*words: object) -> dict:
    """One command, its answer."""
    code = "from reelmill.cli import main; main()"
    line = [sys.executable, "-c", code, "arena", *map(str, words), "--json"]
    run = subprocess.run(line, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout.splitlines()[-1])


@contextmanager
def serving(root: Path, port: int):
    """The command that serves the round, and the links that it says."""
    code = "from reelmill.cli import main; main()"
    line = [sys.executable, "-c", code, "arena", "serve", str(root), "-p", str(port), "--json"]
    process = subprocess.Popen(line, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield process, json.loads(process.stdout.readline())["links"]
    finally:
        if process.poll() is None:
            process.terminate()
        process.wait(timeout=20)
        assert process.stdout is not None
        process.stdout.close()


def free_port() -> int:
    with socket.socket() as line:
        line.bind(("127.0.0.1", 0))
        return line.getsockname()[1]


class Rater:
    """A browser with its own profile, and all that it was told over the wire."""

    def __init__(self, chromium, profile: Path):
        self.context = chromium.launch_persistent_context(
            str(profile), executable_path=str(CHROMIUM), args=ARGS, accept_downloads=True,
            viewport={"width": 1366, "height": 768},
        )  # fmt: skip
        self.page = self.context.pages[0] if self.context.pages else self.context.new_page()
        self.faults: list[str] = []
        self.heard: list[str] = []
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.on("response", self._hear)

    def _hear(self, response) -> None:
        self.heard.append(f"{response.url} {json.dumps(response.headers)}")

    def open(self, link: str) -> None:
        self.page.goto(link)
        self.page.wait_for_selector("body[data-ready]")

    def press(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)

    def answer(self) -> None:
        rows = self.page.locator("#answers .row").count()
        paired = self.page.locator("#clips figure:visible").count() == 2
        self.press(*(["1"] if paired else ["4"]) * rows, "Enter")

    def text(self, selector: str) -> str:
        return self.page.inner_text(selector)

    def wait(self, expression: str) -> None:
        """Till it holds. The page's policy forbids the polling that Playwright would put in it."""
        for _ in range(300):
            if self.page.evaluate(expression):
                return
            self.page.wait_for_timeout(50)
        pytest.fail(f"never came true: {expression}")

    def until(self, told: str) -> None:
        self.wait(f"document.getElementById('saved').textContent.includes('{told}')")

    def close(self) -> None:
        assert names_in(self.page.content().encode()) == []
        assert names_in("".join(self.heard).encode()) == []
        assert self.faults == []
        self.context.close()


def count(root: Path) -> int:
    votes = root / "votes.jsonl"
    return len(votes.read_bytes().splitlines()) if votes.exists() else 0


def test_from_the_first_vote_to_the_closed_round(chromium, tmp_path):
    root, port = tmp_path / "round", free_port()
    clips_of(tmp_path / "clips", PROMPTS, seconds=1.0)
    built = arena("build", tmp_path / "clips", "--out", root, "--rater", "anna", "--rater", "ben",
                  "--mode", "both", "--each", "2")  # fmt: skip
    asked = built["raters"]["anna"]["questions"]

    anna = Rater(chromium, tmp_path / "profile")
    with serving(root, port) as (process, links):
        anna.open(links["anna"])
        assert anna.text("#count") == f"1 of {asked}"
        play_and_switch(anna)
        anna.press("1", "Enter")
        assert "Please answer" in anna.text("#missing")
        assert count(root) == 0
        anna.answer()
        anna.answer()
        anna.until("Saved")
        assert count(root) == 2
        anna.press("2", "3")  # half an answer
        # The server dies in the middle of the third, which is then sent in vain.
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        anna.press("1", "1", "1", "1", "1", "1", "Enter")
        anna.until("not saved")
        anna.press("3")
        told = anna.text("#count")
    anna.context.close()  # and so does the browser

    anna = Rater(chromium, tmp_path / "profile")
    with serving(root, port) as (_, links):
        anna.open(links["anna"])
        anna.until("Saved")
        assert count(root) == 3
        assert anna.text("#count") == told
        assert anna.page.locator("#answers input:checked").count() == 1
        anna.press("p")
        assert anna.page.locator("#answers input:checked").count() > 1
        anna.press("n")
        while not anna.page.locator("#done:visible").count():
            anna.answer()
        anna.until("Saved")
        assert "Every vote is saved" in anna.text("#done")
        assert count(root) == asked
        another = Rater(chromium, tmp_path / "another")  # of the same rater, on another machine
        another.open(links["anna"])
        assert "Every vote is saved" in another.text("#done")
        another.close()
    anna.close()

    ben_votes_without_a_server(chromium, tmp_path, root, built["raters"]["ben"]["page"])

    closed = arena("close", root)
    page = Path(closed["report"]).read_text()
    assert all(name in page for name in SYSTEMS)
    assert closed["results"]["answered"] == closed["results"]["asked"]
    votes = [json.loads(line) for line in (root / "votes.jsonl").read_text().splitlines()]
    assert len({(v["rater"], v["item"]) for v in votes}) == len(votes)
    assert sum(v["plays"] > 0 for v in votes) >= 1
    assert {v["rater"] for v in votes} == {"anna", "ben"}
    assert RoundFolder(root).closed


def play_and_switch(rater: Rater) -> None:
    """Both play on one clock, one is heard, keys move both, and the end is counted."""
    page = rater.page
    rater.wait("[...document.querySelectorAll('video')].every(v => v.readyState >= 3)")
    times = "[...document.querySelectorAll('video')].map(v => v.currentTime)"
    muted = "[...document.querySelectorAll('video')].map(v => v.muted)"
    assert page.evaluate(muted) == [False, True]
    rater.press("s")
    assert page.evaluate(muted) == [True, False]
    rater.press("a")
    assert page.evaluate(muted) == [False, True]
    page.uncheck("#loop")
    page.locator("#answers").focus()
    rater.press("ArrowRight", ".")
    left, right = page.evaluate(times)
    assert left == pytest.approx(0.54, abs=0.02)
    assert right == pytest.approx(left, abs=1e-3)
    rater.press("r")
    rater.wait("document.getElementById('clip-left').currentTime > 0.5")
    left, right = page.evaluate(times)
    assert abs(left - right) < 0.15
    rater.wait("document.getElementById('play').textContent === 'Play'")
    left, right = page.evaluate(times)
    assert left == pytest.approx(1.0, abs=0.07)
    assert right == pytest.approx(1.0, abs=0.07)


def ben_votes_without_a_server(chromium, tmp_path: Path, root: Path, page: str) -> None:
    """From a copy of the folder, opened as a file; votes stay in the browser till exported."""
    ben = Rater(chromium, tmp_path / "ben")
    ben.open(f"file://{Path(page).resolve()}")
    ben.wait("document.getElementById('clip-left').readyState >= 2")
    ben.answer()
    ben.context.close()
    ben = Rater(chromium, tmp_path / "ben")
    ben.open(f"file://{Path(page).resolve()}")
    assert ben.text("#count").startswith("2 of")
    while not ben.page.locator("#done:visible").count():
        ben.answer()
    with ben.page.expect_download() as download:
        ben.page.click("#export-done")
    exported = tmp_path / download.value.suggested_filename
    download.value.save_as(exported)
    assert exported.name == "votes-ben.jsonl"
    ben.close()
    first, second = arena("add", root, exported), arena("add", root, exported)
    assert first["added"] == first["read"] > 0
    assert second["added"] == 0
