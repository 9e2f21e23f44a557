"""prefect.yaml says what Prefect understands; a real server, worker, form and trigger carry it."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from reelmill.datasets.corpus.corpus import make_corpus

ROOT = Path(__file__).parents[2]
FILE = ROOT / "prefect.yaml"


def deployments() -> list[dict[str, Any]]:
    return yaml.safe_load(FILE.read_text())["deployments"]


def test_every_key_is_one_that_prefect_reads():
    """Prefect leaves out what it does not know, so a typing error would deploy."""
    from prefect.cli.deploy._models import (
        ConcurrencyLimitSpec,
        DeploymentConfig,
        PrefectYamlModel,
        RawScheduleConfig,
        WorkPoolConfig,
    )
    from prefect.cli.deploy._triggers import _initialize_deployment_triggers

    def known(model: type, found: dict[str, Any], extra: frozenset[str] = frozenset()) -> None:
        assert set(found) <= set(model.model_fields) | extra, found

    known(PrefectYamlModel, yaml.safe_load(FILE.read_text()), frozenset({"definitions"}))
    for one in deployments():
        known(DeploymentConfig, one)
        known(WorkPoolConfig, one["work_pool"])
        known(ConcurrencyLimitSpec, one.get("concurrency_limit") or {})
        for schedule in one.get("schedules", []):
            RawScheduleConfig.model_validate(schedule)
            assert schedule["active"] is False
        for trigger in _initialize_deployment_triggers(one["name"], one.get("triggers", [])):
            assert set(trigger.parameters or {}) <= set(parameters(one))
    assert len({one["name"] for one in deployments()}) == len(deployments())


def parameters(one: dict[str, Any]) -> dict[str, Any]:
    """The form of a deployment's flow: the properties of its parameters' schema."""
    from prefect.utilities.callables import parameter_schema

    module, name = one["entrypoint"].split(":")
    schema = parameter_schema(getattr(importlib.import_module(module), name))
    for field in schema.properties.values():
        assert field.get("description"), field
    return schema.properties


@pytest.mark.parametrize("one", deployments(), ids=lambda one: one["name"])
def test_entrypoints_exist_and_take_the_parameters_given(one: dict[str, Any]):
    assert set(one["parameters"]) <= set(parameters(one))
    assert one["description"]


def test_every_flow_is_deployed():
    from prefect import Flow

    found = set()
    for path in sorted((ROOT / "flows").glob("*.py")):
        module = importlib.import_module(f"reelmill.flows.{path.stem}")
        found |= {
            f"{module.__name__}:{name}"
            for name, value in vars(module).items()
            if isinstance(value, Flow) and value.fn.__module__ == module.__name__
        }
    assert found == {one["entrypoint"] for one in deployments()}


def test_what_is_approved_was_made_with_the_bounds_it_has(tmp_path: Path):
    from reelmill.errors import UsageError
    from reelmill.flows.approve import approve

    with pytest.raises(UsageError, match="rejecting"):
        approve.fn(tmp_path, "approve", "R", bounds=["Blur.min_sharpness=0.1"])


class Server:
    """A Prefect server of its own, on loopback, and a worker of one pool."""

    def __init__(self, home: Path):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/api"
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "REELMILL_"))}
        self.env = clean | {
            "PREFECT_API_URL": self.url,
            "PREFECT_HOME": str(home),
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "DO_NOT_TRACK": "1",
            "OMP_NUM_THREADS": "1",
        }
        self.home = home
        self.started: list[subprocess.Popen[bytes]] = []

    def prefect(self, *args: str, check: bool = True) -> str:
        run = subprocess.run(
            [sys.executable, "-m", "prefect", "--no-prompt", *args],
            env=self.env,
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
            timeout=240,
        )
        assert not check or run.returncode == 0, run.stdout + run.stderr
        return run.stdout

    def begin(self, *args: str) -> None:
        with (self.home / f"{args[0]}.log").open("ab") as log:
            self.started.append(
                subprocess.Popen(
                    [sys.executable, "-m", "prefect", *args],
                    env=self.env,
                    cwd=self.home,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
            )

    def ask(self, method: str, path: str, body: object = None) -> Any:
        request = urllib.request.Request(
            f"{self.url}/{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.loads(answer.read() or "null")

    def wait(self, what: str, condition: Any, seconds: float = 240) -> Any:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            with contextlib.suppress(OSError):
                if found := condition():
                    return found
            time.sleep(0.5)
        logs = "\n".join(p.read_text()[-3000:] for p in self.home.glob("*.log"))
        raise AssertionError(f"{what} did not come:\n{logs}")

    def run(self, deployment: str, **values: object) -> dict[str, Any]:
        """Asks for a run through the API, and waits for its end."""
        found = self.ask("GET", f"deployments/name/{deployment}/{deployment}")
        made = self.ask(
            "POST", f"deployments/{found['id']}/create_flow_run", {"parameters": values}
        )
        return self.ended(made["id"])

    def ended(self, flow_run: str) -> dict[str, Any]:
        def done() -> dict[str, Any] | None:
            run = self.ask("GET", f"flow_runs/{flow_run}")
            final = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
            return run if run["state_type"] in final else None

        return self.wait(f"the end of run {flow_run}", done)

    def stop(self) -> None:
        for process in reversed(self.started):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
        for process in reversed(self.started):
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    made = Server(tmp_path_factory.mktemp("prefect"))
    try:
        made.begin("server", "start", "--host", "127.0.0.1", "--port", str(made.port))
        made.wait("the server", lambda: made.ask("GET", "health"))
        for pool in ("reelmill-cpu", "reelmill-gpu"):
            made.prefect("work-pool", "create", pool, "--type", "process")
        made.prefect("deploy", "--all")
        for pool in ("reelmill-cpu", "reelmill-gpu"):
            made.begin("worker", "start", "--pool", pool)
        yield made
    finally:
        made.stop()


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_from_the_schedule_to_the_approved_latents(server: Server, tmp_path: Path):
    """curate by the API, a second run that finds one new file, the form, the triggered encode."""
    corpus, work = tmp_path / "corpus", tmp_path / "work"
    make_corpus(corpus, training_clips=4)
    late = next(corpus.rglob("train*.mp4"), None) or sorted(corpus.rglob("*.mp4"))[-1]
    aside = tmp_path / late.name
    late.rename(aside)
    given = {
        "sources": [str(corpus)],
        "workspace": str(work),
        "allow_missing": True,
        "max_failed": 1.0,
    }
    assert server.run("curate", **given)["state_type"] == "COMPLETED"
    first = sorted((work / "runs").glob("*/run.json"))
    aside.rename(late)
    assert server.run("curate", **given)["state_type"] == "COMPLETED"
    second = sorted((work / "runs").glob("*/run.json"))
    assert len(second) == len(first) + 1

    before = len(server.ask("POST", "flow_runs/filter", {}))
    refused = server.run("approve", workspace=str(work), decision="approve", reviewer="R", run="x")
    assert refused["state_type"] == "FAILED"
    approved = server.run("approve", workspace=str(work), decision="approve", reviewer="R. Viewer")
    assert approved["state_type"] == "COMPLETED", approved["state"]

    def triggered() -> dict[str, Any] | None:
        runs = server.ask("POST", "flow_runs/filter", {})
        assert len(runs) >= before
        return next(
            (r for r in runs if "encode" in r["name"] or r["parameters"].get("shards")), None
        )

    encode = server.wait("the triggered encode", triggered)
    ended = server.ended(encode["id"])
    assert ended["state_type"] == "COMPLETED", ended["state"]
    assert (work / "latents" / "manifest.json").is_file()
    assert encode["parameters"]["shards"]
