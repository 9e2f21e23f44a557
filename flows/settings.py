"""Prefect as Reelmill runs it: with an embedded server unless PREFECT_API_URL names another.

The embedded server is a child of this process on a loopback port. It keeps its database in the
workspace, logs to a file there, sends nothing anywhere, ends after Prefect has sent its last
event, and dies with its parent. Call `start` before Prefect is imported.
"""

from __future__ import annotations

import atexit
import ctypes
import http.client
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from reelmill.errors import ReelmillError
from reelmill.flows.database import make_database

STARTUP_S = 180
SHUTDOWN_S = 10
BESIDE = 5  # niceness of the server, once it answers: what it writes can wait for a free core
PR_SET_PDEATHSIG = 1

QUIET = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    "PREFECT_CLI_PROMPT": "false",
    "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
}
EMBEDDED = {
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",  # our own log lines say what happens
    "PREFECT_SERVER_LOGGING_LEVEL": "ERROR",
    "PREFECT_API_SERVICES_SCHEDULER_ENABLED": "false",
}
SERVER = {
    "PREFECT_UI_ENABLED": "false",
    "PREFECT_API_BLOCKS_REGISTER_ON_START": "false",
    "PREFECT__SERVER_EPHEMERAL": "1",
    "PREFECT__SERVER_FINAL": "1",
    # Nobody can trigger anything on a server of one run.
    "PREFECT_SERVER_SERVICES_TRIGGERS_ENABLED": "false",
    # All that a run tells is written, but in batches: alone, a task's three states cost 30 ms.
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE": "50",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_FLUSH_INTERVAL": "2",
    "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_BATCH_SIZE": "100",
    "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_FLUSH_INTERVAL": "2",
}


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _stop(server: subprocess.Popen[bytes]) -> None:
    server.terminate()
    try:
        server.wait(SHUTDOWN_S)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()


def start(home: Path) -> subprocess.Popen[bytes] | None:
    """Points Prefect at a server: the one that PREFECT_API_URL names, or an embedded one.

    home: folder of the embedded server's database and log. It answers a few seconds later:
    `connected` waits for it, so that the work in between is not lost. Returns the embedded server.
    """
    os.environ.update(QUIET)
    if os.environ.get("PREFECT_API_URL"):
        return None
    if "prefect" in sys.modules:
        raise RuntimeError("Prefect was imported before its settings were made")
    home.mkdir(parents=True, exist_ok=True)
    os.environ.update(EMBEDDED, PREFECT_HOME=str(home.resolve()))
    migrate = "false" if make_database(home) else "true"
    with socket.socket() as port, (home / "server.log").open("ab") as log:
        port.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{port.getsockname()[1]}/api"
        command = [sys.executable, "-P", "-m", "uvicorn", "--factory"]
        command += ["prefect.server.api.server:create_app", "--fd", str(port.fileno())]
        command += ["--log-level", "error", "--lifespan", "on"]
        server = subprocess.Popen(
            command,
            env={**os.environ, **SERVER, "PREFECT_API_DATABASE_MIGRATE_ON_START": migrate},
            pass_fds=[port.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,  # Ctrl-C is for us: Prefect still has to record it
            preexec_fn=_die_with_parent,
        )
    # Registered before Prefect is imported, so it runs after Prefect's own exit handlers.
    atexit.register(_stop, server)
    os.environ["PREFECT_API_URL"] = url
    os.environ["REELMILL_EMBEDDED_SERVER"] = str(server.pid)
    return server


@contextmanager
def begun(home: Path) -> Iterator[None]:
    """`start`, and inside, while the server comes up, what is asked for is looked at.

    When that raises, the server is stopped, and no folder is left that was made for it.
    """
    made = [folder for folder in (home, *home.parents) if not folder.exists()]
    server = start(home)
    try:
        yield
    except BaseException:
        if server is not None:
            _stop(server)
            if home in made:
                shutil.rmtree(home)
            for folder in made[1:]:
                with suppress(OSError):  # something else came to be in it
                    folder.rmdir()
        raise


def _healthy(url: str) -> bool:
    host = url.removeprefix("http://").removesuffix("/api")
    connection = http.client.HTTPConnection(host, timeout=2)
    try:
        connection.request("GET", "/api/health")
        return connection.getresponse().status == http.client.OK
    except OSError:
        return False
    finally:
        connection.close()


@contextmanager
def connected() -> Iterator[None]:
    """Waits for the embedded server; inside, flows run without the heartbeat that costs a second.

    A heartbeat tells a lasting server that a run still lives; the embedded one dies with the run.
    Raises ReelmillError when the server does not come up.
    """
    pid = os.environ.get("REELMILL_EMBEDDED_SERVER")
    if pid is None:
        yield
        return
    from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

    url = os.environ["PREFECT_API_URL"]
    log = Path(os.environ["PREFECT_HOME"]) / "server.log"
    end = time.monotonic() + STARTUP_S
    while not _healthy(url):
        gone = os.waitpid(int(pid), os.WNOHANG)[0]
        if gone or time.monotonic() > end:
            raise ReelmillError(
                f"Prefect's embedded server did not start; {log} says why. The command without "
                "`flow` needs no server."
            )
        time.sleep(0.05)
    with suppress(OSError):  # gone just now: the flow will say so
        os.setpriority(os.PRIO_PROCESS, int(pid), BESIDE)
    with temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
        yield
