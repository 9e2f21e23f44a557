"""A Prefect server and its workers on this machine, on SQLite or on PostgreSQL."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from typing import Any

from tests.ray_nodes import wait_until_gone

ROOT = Path(__file__).parents[1]
MARK = "REELMILL_TEST_MARK"
FINAL = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
POOLS = ("reelmill-cpu", "reelmill-gpu")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def postgres_programs() -> Path | None:
    """The folder of Debian's initdb and postgres, if they are installed."""
    found = shutil.which("initdb")
    places = [Path(found).resolve().parent] if found else []
    places += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((p for p in places if (p / "initdb").exists() and (p / "postgres").exists()), None)


class Postgres:
    """A PostgreSQL server of its own, on loopback, its files in a folder that ends with it."""

    def __init__(self) -> None:
        programs = postgres_programs()
        assert programs is not None
        self.port = free_port()
        self.folder = Path(tempfile.mkdtemp(prefix="reelmill-postgres-"))
        who: dict[str, Any] = {}
        if os.getuid() == 0:  # initdb refuses to run as root
            names = {entry.pw_name: entry for entry in pwd.getpwall()}
            user = names.get("postgres") or names["nobody"]
            os.chown(self.folder, user.pw_uid, user.pw_gid)
            who = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
        who["cwd"] = self.folder
        data = self.folder / "data"
        make = [programs / "initdb", "-D", data, "-U", "prefect", "-A", "trust", "-E", "UTF8"]
        subprocess.run([*make, "--no-sync"], check=True, capture_output=True, **who)
        serve = [programs / "postgres", "-D", data, "-p", str(self.port), "-k", self.folder]
        serve += ["-c", "listen_addresses=127.0.0.1", "-c", "fsync=off"]
        with (self.folder / "log").open("wb") as log:
            self._process = subprocess.Popen(serve, stdout=log, stderr=log, **who)
        self.url = f"postgresql+asyncpg://prefect@127.0.0.1:{self.port}/postgres"

    def stop(self) -> None:
        self._process.send_signal(signal.SIGINT)  # PostgreSQL's fast shutdown
        self._process.wait(30)
        shutil.rmtree(self.folder)


def bearing(mark: str) -> list[int]:
    """Processes that were started, by whomever, with this in their environment."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if mark.encode() in path.read_bytes():
                found.append(int(path.parent.name))
    return found


class Server:
    """A Prefect server on loopback, and workers of our two pools.

    database: a SQLAlchemy URL; None is SQLite in `home`. Raises AssertionError with the end of the
    logs where something does not come in time.
    """

    def __init__(self, home: Path, database: str | None = None):
        self.home, self.port = home, free_port()
        self.page = f"http://127.0.0.1:{self.port}"
        self.url = f"{self.page}/api"
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "REELMILL_"))}
        self.env = clean | {
            "PREFECT_API_URL": self.url,
            "PREFECT_HOME": str(home),
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_WORKER_QUERY_SECONDS": "2",
            "DO_NOT_TRACK": "1",
            "OMP_NUM_THREADS": "1",
        }
        if database is not None:
            self.env["PREFECT_API_DATABASE_CONNECTION_URL"] = database
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self.mark = f"mark-{self.port}-{time.monotonic_ns()}"

    def start(self) -> None:
        """Server, pools, deployments, workers."""
        self._begin("server", "server", "start", "--host", "127.0.0.1", "--port", str(self.port))
        self.wait("the server", lambda: self.ask("GET", "health"))
        for pool in POOLS:
            self.prefect("work-pool", "create", pool, "--type", "process")
        self.prefect("deploy", "--all")
        for pool in POOLS:
            self.start_worker(pool)

    def start_worker(self, pool: str) -> None:
        self._begin(pool, "worker", "start", "--pool", pool, "--limit", "2")

    def prefect(self, *args: str) -> str:
        """Prefect's own command line, as a user would type it in the repository."""
        run = subprocess.run(
            [sys.executable, "-m", "prefect", "--no-prompt", *args],
            env=self.env, cwd=ROOT, capture_output=True, text=True, check=False, timeout=240,
        )  # fmt: skip
        assert run.returncode == 0, run.stdout + run.stderr
        return run.stdout

    def _begin(self, name: str, *args: str) -> None:
        mark = {} if name == "server" else {MARK: self.mark}
        with (self.home / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(
                [sys.executable, "-m", "prefect", *args],
                env=self.env | mark, cwd=self.home, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    def ask(self, method: str, path: str, body: object = None) -> Any:
        """The API's answer."""
        request = urllib.request.Request(
            f"{self.url}/{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        for _ in range(40):
            try:
                with urllib.request.urlopen(request, timeout=30) as answer:
                    return json.loads(answer.read() or "null")
            except urllib.error.HTTPError as error:
                if error.code != HTTPStatus.SERVICE_UNAVAILABLE:  # SQLite is busy: ask again
                    raise
                time.sleep(0.5)
        raise AssertionError(f"{method} {path}: the server was busy for too long")

    def wait(self, what: str, condition: Callable[[], Any], seconds: float = 240) -> Any:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            with contextlib.suppress(OSError):
                if found := condition():
                    return found
            time.sleep(0.5)
        logs = "\n".join(f"{p}:\n{p.read_text()[-3000:]}" for p in self.home.glob("*.log"))
        raise AssertionError(f"{what} did not come:\n{logs}")

    def deployment(self, name: str) -> dict[str, Any]:
        return self.ask("GET", f"deployments/name/{name}/{name}")

    def begin(self, deployment: str, **values: object) -> str:
        """Asks for a run through the API; its id."""
        path = f"deployments/{self.deployment(deployment)['id']}/create_flow_run"
        return str(self.ask("POST", path, {"parameters": values})["id"])

    def run(self, deployment: str, **values: object) -> dict[str, Any]:
        """Asks for a run through the API, and waits for its end."""
        return self.ended(self.begin(deployment, **values))

    def ended(self, flow_run: str, seconds: float = 300) -> dict[str, Any]:
        def done() -> dict[str, Any] | None:
            run = self.ask("GET", f"flow_runs/{flow_run}")
            return run if run["state_type"] in FINAL else None

        return self.wait(f"the end of run {flow_run}", done, seconds)

    def runs(self, deployment: str) -> list[dict[str, Any]]:
        """All runs of a deployment, in the order in which they were asked for."""
        found = {"deployments": {"name": {"any_": [deployment]}}, "sort": "START_TIME_ASC"}
        return self.ask("POST", "flow_runs/filter", found)

    def set_state(self, flow_run: str, type_: str, name: str) -> None:
        """What the page's buttons Cancel and Retry do."""
        body = {"state": {"type": type_, "name": name}, "force": type_ == "SCHEDULED"}
        answer = self.ask("POST", f"flow_runs/{flow_run}/set_state", body)
        assert answer["status"] == "ACCEPT", answer

    def working(self) -> list[int]:
        """Processes of flow runs: all that the workers started, wherever they are now."""
        own = {process.pid for process in self._processes.values()}
        return [pid for pid in bearing(self.mark) if pid not in own]

    def kill_worker(self, pool: str) -> None:
        """kill -9 of a worker and of all that runs for it, as when a machine goes down."""
        worker = self._processes.pop(pool)
        doomed = [worker.pid, *self.working()]
        for pid in doomed:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        worker.wait()
        wait_until_gone(doomed)

    def stop(self) -> None:
        for process in reversed(self._processes.values()):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
        for process in reversed(self._processes.values()):
            try:
                process.wait(8)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
