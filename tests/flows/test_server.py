"""A real Prefect server with workers: schedule, form, events, cancel, kill and retry.

Once on SQLite, once on PostgreSQL where it is installed.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
import yaml
from tests.media import noise_video
from tests.prefect_server import ROOT, Postgres, Server, postgres_programs
from tests.ray_nodes import wait_until_gone

from reelmill.curation.engine import CurateOptions, Curation
from reelmill.datasets.approval import check
from reelmill.datasets.corpus.render import render_scene
from reelmill.datasets.corpus.scene import random_scene
from reelmill.datasets.corpus.sound import scene_audio
from reelmill.datasets.media.encode import write_video

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]
CHROMIUM = Path("/usr/bin/chromium")
ARGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
RECIPE = """
kind: video
stages:
  - Probe
  - Shots: {min_seconds: 0.5}
  - Blur
  - Loudness: {min_volume: -90.0}
  - Cut
"""


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    if request.param == "postgresql" and postgres_programs() is None:
        pytest.skip("no PostgreSQL on this machine")
    database = Postgres() if request.param == "postgresql" else None
    made = Server(tmp_path_factory.mktemp("prefect"), database.url if database else None)
    try:
        made.start()
        yield made
    finally:
        made.stop()
        if database is not None:
            database.stop()


def film(path: Path, seed: int) -> None:
    """A bouncing shape with its sound: something to train on."""
    scene = random_scene(seed, seconds=2.2, size=(64, 64), contrast=8.0)
    write_video(
        path, render_scene(scene, 16), fps=16, audio=scene_audio(scene, 48_000), audio_rate=48_000
    )


def ask_for(tmp_path: Path) -> dict[str, Any]:
    """Parameters of a curate run over tmp_path/media."""
    (tmp_path / "mine.yaml").write_text(RECIPE)
    return {
        "sources": [str(tmp_path / "media")],
        "workspace": str(tmp_path / "work"),
        "recipe": str(tmp_path / "mine.yaml"),
        "max_failed": 1.0,
    }


def curated_here(tmp_path: Path, workspace: str) -> Path:
    """The same run by the engine itself; its workspace."""
    given = ask_for(tmp_path)
    curation = Curation(
        CurateOptions(
            sources=tuple(given["sources"]),
            workspace=tmp_path / workspace,
            recipe=given["recipe"],
            max_failed=1.0,
        )
    )
    for step in curation.steps():
        step.run()
    curation.result()
    return tmp_path / workspace


def reports(work: Path) -> list[dict[str, Any]]:
    """run.json of all runs, the oldest first."""
    return [json.loads(path.read_bytes()) for path in sorted((work / "runs").glob("*/run.json"))]


def measured(report: dict[str, Any], stage: str) -> int:
    return next(s["measured"] for s in report["stages"] if s["name"] == stage)


def shards(work: Path) -> dict[str, str]:
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in (work / "shards").rglob("*.tar")
    }


def test_from_the_schedule_over_the_form_to_the_trained_model(server: Server, tmp_path: Path):
    """A schedule curates, then one new file; approval encodes and trains; cancelled, it goes on."""
    films, work = tmp_path / "media", tmp_path / "work"
    films.mkdir()
    for seed in range(12):
        film(films / f"{seed}.mp4", seed)
    deployment = server.deployment("curate")["id"]
    every = {"interval": 25.0, "anchor_date": datetime.now(UTC).isoformat()}
    made = [{"active": True, "schedule": every, "parameters": ask_for(tmp_path)}]
    (schedule,) = server.ask("POST", f"deployments/{deployment}/schedules", made)
    server.wait("the scheduled run", lambda: reports(work))
    film(films / "late.mp4", 99)
    server.wait(
        "the run that finds one new file",
        lambda: [r for r in reports(work) if r["totals"]["files"]["in"]["count"] == 13],
    )
    server.ask("DELETE", f"deployments/{deployment}/schedules/{schedule['id']}")
    first, *_, last = reports(work)
    assert measured(first, "Blur") == 12
    found = [measured(r, "Blur") for r in reports(work)[1:]]
    assert sum(found) == 1
    assert last["totals"]["clips"]["kept"]["count"] == 13
    assert all(run["auto_scheduled"] for run in server.runs("curate"))
    server.wait("the end of scheduled runs", lambda: not active(server, "curate"))

    given = {"workspace": str(work), "reviewer": "R. Viewer"}
    refused = server.run("approve", decision="approve", run="none such", **given)
    assert refused["state_type"] == "FAILED", refused["state"]
    assert "no run 'none such'" in refused["state"]["message"]
    assert not server.runs("encode")
    if CHROMIUM.exists():
        approve_in_the_page(server, work)
    else:
        server.begin("approve", decision="approve", note="seen", **given)
    server.wait("the approval", lambda: len(server.runs("approve")) == 2)
    approved = server.ended(server.runs("approve")[-1]["id"])
    assert approved["state_type"] == "COMPLETED", approved["state"]
    approval = check(work / "shards" / "video")
    assert approval is not None
    assert (approval.reviewer, approval.note) == ("R. Viewer", "seen")

    (encode,) = server.wait("the encode that approval starts", lambda: server.runs("encode"))
    assert server.ended(encode["id"])["state_type"] == "COMPLETED"
    (train,) = server.wait("the training that follows", lambda: server.runs("train"))
    metrics = work / "checkpoints" / "demo" / "sync" / "metrics.jsonl"
    server.wait("training", lambda: metrics.exists() and len(metrics.read_text().split("\n")) > 9)
    server.set_state(train["id"], "CANCELLING", "Cancelling")
    assert server.ended(train["id"])["state_type"] == "CANCELLED"
    wait_until_gone(server.working())
    done = len(metrics.read_text().splitlines())

    again = server.ended(server.begin("train", **train["parameters"]), 900)
    assert again["state_type"] == "COMPLETED", again["state"]
    assert (work / "checkpoints" / "demo" / "export").is_dir()
    steps = [json.loads(line) for line in metrics.read_text().splitlines()]
    steps = [line["step"] for line in steps if "held_out" not in line]
    assert steps == list(range(150))
    assert done < 150


def approve_in_the_page(server: Server, work: Path) -> None:
    """Fills in Prefect's form of `approve` as a reviewer does, by mouse and keys."""
    api = pytest.importorskip("playwright.sync_api")
    form = f"{server.page}/deployments/deployment/{server.deployment('approve')['id']}/run"
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=ARGS)
        page = browser.new_page()
        page.goto(form)
        for told, value in (
            ("Folder of the run.", str(work)),
            ("Who looked at the report.", "R. Viewer"),
            ("What was seen.", "seen"),
        ):
            label = page.get_by_text(told)
            label.wait_for(timeout=90_000)
            label.locator("xpath=following::textarea[1]").fill(value)
        decision = page.get_by_text("May these shards be trained on?")
        decision.locator("xpath=following::button[contains(@class, 'p-select')][1]").click()
        page.keyboard.press("ArrowDown")  # to the first choice, approve
        page.keyboard.press("Enter")
        page.get_by_role("button", name="Submit").click()
        page.wait_for_url("**/deployments/deployment/*?tab=Runs", timeout=60_000)
        browser.close()


def active(server: Server, deployment: str) -> list[dict[str, Any]]:
    return [r for r in server.runs(deployment) if r["state_type"] in ("RUNNING", "PENDING")]


def test_moved_bounds_start_the_run_that_decides_anew(server: Server, tmp_path: Path):
    work, before = tmp_path / "work", len(server.runs("curate"))
    for seed in range(3):
        noise_video(tmp_path / "media" / f"{seed}.mp4", seconds=1.0, seed=seed)
    backfill = {"only": [str(tmp_path / "media")], "since": "2000-01-01"}
    assert server.run("curate", **backfill, **ask_for(tmp_path))["state_type"] == "COMPLETED"
    given = {"workspace": str(work), "decision": "reject", "reviewer": "R. Viewer"}
    wrong = server.run("approve", bounds=["Blur.min_shrapnel=1"], **given)
    assert wrong["state_type"] == "FAILED", wrong["state"]
    assert "min_shrapnel" in wrong["state"]["message"]
    assert not (work / "approvals").exists()
    told = server.run("approve", bounds=["Blur.min_sharpness=1000.0"], **given)
    assert told["state_type"] == "COMPLETED", told["state"]
    server.wait("the run that decides anew", lambda: len(server.runs("curate")) == before + 2)
    run = server.runs("curate")[-1]
    assert server.ended(run["id"])["state_type"] == "COMPLETED"
    assert run["parameters"]["overrides"] == ["Blur.min_sharpness=1000.0"]
    assert {name: run["parameters"][name] for name in backfill} == backfill
    first, second = reports(work)
    assert first["totals"]["clips"]["kept"]["count"] == 3
    assert second["totals"]["clips"]["rejected"]["count"] == 3
    assert measured(first, "Blur") == 3
    assert measured(second, "Blur") == 0


class Hook(BaseHTTPRequestHandler):
    """Keeps the texts that are posted to it."""

    texts: ClassVar[list[str]] = []

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.texts.append(json.loads(body)["text"])
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def automated(server: Server, folder: Path) -> Iterator[list[dict[str, Any]]]:
    """The automations, made twice, with a webhook that keeps what it is told in Hook.texts."""
    Hook.texts.clear()
    hook = ThreadingHTTPServer(("127.0.0.1", 0), Hook)
    threading.Thread(target=hook.serve_forever, daemon=True).start()
    said = yaml.safe_load((ROOT / "docs" / "automations.yaml").read_text())["automations"]
    names = {spec["name"] for spec in said}
    try:
        make = [sys.executable, ROOT / "docs" / "automate.py"]
        for arguments in ([f"http://127.0.0.1:{hook.server_port}/"], []):
            done = subprocess.run(
                [*make, *arguments], env=server.env, cwd=folder, capture_output=True, text=True,
                check=False,
            )  # fmt: skip
            assert done.returncode == 0, done.stderr
        made = server.ask("POST", "automations/filter", {})
        yield [one for one in made if one["name"] in names]
    finally:
        hook.shutdown()
        hook.server_close()
        for one in server.ask("POST", "automations/filter", {}):
            if one["name"] in names:
                server.ask("DELETE", f"automations/{one['id']}")


def test_automations_tell_of_failures_timeouts_and_reports(server: Server, tmp_path: Path):
    """As docs/automate.py makes them; called again, they are the same."""
    noise_video(tmp_path / "media" / "a.mp4", seconds=1.0, seed=0)
    with automated(server, tmp_path) as ours:
        assert len(ours) == 4
        (block,) = {
            action["block_document_id"]
            for one in ours
            for action in one["actions"]
            if action["type"] == "send-notification"
        }
        found = server.ask("GET", f"block_documents/{block}")
        assert (found["name"], found["block_type"]["slug"]) == ("reelmill", "custom-webhook")

        given = ask_for(tmp_path)
        assert server.run("curate", **given)["state_type"] == "COMPLETED"
        ready = f"A report is ready\n{tmp_path / 'work'}: `reelmill report serve"
        server.wait("the report's notice", lambda: [t for t in Hook.texts if ready in t])
        late = server.run("curate", timeout=0.001, **given)
        assert late["state_name"] == "TimedOut"
        wrong = server.run("curate", **given | {"sources": [str(tmp_path / "none")]})
        assert wrong["state_type"] == "FAILED"
        for words in ("was not done within 0.001 s of the run", "none does not exist"):
            server.wait(
                f"the notice of {words}",
                lambda words=words: [
                    t for t in Hook.texts if "curate has failed" in t and words in t
                ],
            )


def committed(work: Path, folder: str) -> bool:
    commits = (work / "ledger" / "commits").glob("*.json")
    return any(folder in path.read_text() for path in commits)


def test_a_cancelled_run_on_ray_leaves_no_process_and_can_be_gone_on_with(
    server: Server, tmp_path: Path
):
    for seed in range(6):
        noise_video(tmp_path / "media" / f"{seed}.mp4", seconds=8.0, seed=seed)
    run = server.begin("curate", engine="ray", workers=1, **ask_for(tmp_path))
    server.wait("the first facts", lambda: committed(tmp_path / "work", "facts/Probe"))
    working = server.working()
    assert len(working) > 5  # Ray's own processes too
    server.set_state(run, "CANCELLING", "Cancelling")
    assert server.ended(run)["state_type"] == "CANCELLED"
    wait_until_gone(working)
    assert server.working() == []
    assert not reports(tmp_path / "work")
    clean = curated_here(tmp_path, "clean")
    ended = server.run("curate", **ask_for(tmp_path))
    assert ended["state_type"] == "COMPLETED"
    (report,) = reports(tmp_path / "work")
    assert measured(report, "Probe") == 0  # what was committed before
    assert shards(tmp_path / "work") == shards(clean)


def test_a_run_whose_worker_was_killed_goes_on_when_it_is_retried(server: Server, tmp_path: Path):
    for seed in range(6):
        noise_video(tmp_path / "media" / f"{seed}.mp4", seconds=8.0, seed=seed)
    run = server.begin("curate", **ask_for(tmp_path))
    server.wait("the first facts", lambda: committed(tmp_path / "work", "facts/Probe"))
    server.kill_worker("reelmill-cpu")
    assert server.working() == []
    assert not reports(tmp_path / "work")
    assert server.ask("GET", f"flow_runs/{run}")["state_type"] == "RUNNING"  # nobody could tell
    server.start_worker("reelmill-cpu")
    server.set_state(run, "SCHEDULED", "AwaitingRetry")
    ended = server.wait("the retry", lambda: reports(tmp_path / "work") and server.ended(run))
    assert ended["state_type"] == "COMPLETED", ended["state"]
    (report,) = reports(tmp_path / "work")
    assert measured(report, "Probe") == 0  # what was committed before
    assert shards(tmp_path / "work") == shards(curated_here(tmp_path, "clean"))


def test_a_run_whose_machine_is_gone_is_found_crashed_and_told(server: Server, tmp_path: Path):
    """With a shorter wait than ours: a run's first heartbeat comes when it starts."""
    for seed in range(6):
        noise_video(tmp_path / "media" / f"{seed}.mp4", seconds=8.0, seed=seed)
    with automated(server, tmp_path) as ours:
        (gone,) = (one for one in ours if "heartbeat" in one["name"])
        gone["trigger"]["within"] = 60
        held = ("name", "description", "enabled", "trigger", "actions")
        server.ask("PUT", f"automations/{gone['id']}", {name: gone[name] for name in held})
        run = server.begin("curate", **ask_for(tmp_path))
        server.wait("the first facts", lambda: committed(tmp_path / "work", "facts/Probe"))
        server.kill_worker("reelmill-cpu")
        ended = server.ended(run)
        assert (ended["state_type"], ended["state"]["message"]) == (
            "CRASHED",
            "No heartbeat for ten minutes.",
        )
        name = ended["name"]
        server.wait(
            "the notice", lambda: [t for t in Hook.texts if "curate is stuck" in t and name in t]
        )
    server.start_worker("reelmill-cpu")
    server.set_state(run, "SCHEDULED", "AwaitingRetry")
    retried = server.wait("the retry", lambda: reports(tmp_path / "work") and server.ended(run))
    assert retried["state_type"] == "COMPLETED", retried["state"]
