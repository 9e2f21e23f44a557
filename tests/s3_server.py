"""A real S3 server on loopback, in a process of its own, which can fail on request."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

# A request for /-/N makes every N-th one after it fail with 503 before the store sees it; it is
# answered with how many have failed so far.
CODE = """
import sys, threading
from moto.server import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import run_simple

store = DomainDispatcherApplication(create_backend_app)
lock, every, seen, failed = threading.Lock(), 0, 0, 0

def serve(environ, start):
    global every, seen, failed
    path = environ["PATH_INFO"]
    with lock:
        if path.startswith("/-/"):
            every, seen = int(path[3:]), 0
            start("200 OK", [("Content-Type", "text/plain")])
            return [str(failed).encode()]
        seen += 1
        if every and seen % every == 0:
            failed += 1
            start("503 Slow Down", [("Content-Length", "0")])
            return [b""]
    return store(environ, start)

run_simple("127.0.0.1", int(sys.argv[1]), serve, threaded=True, request_handler=MotoRequestHandler)
"""


@contextmanager
def s3_server() -> Iterator[str]:
    """Its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", CODE, str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        for _ in range(600):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(10)


def fail_every(server: str, count: int) -> int:
    """From now on every count-th request fails (0: none); returns how many have failed."""
    with urllib.request.urlopen(f"{server}/-/{count}", timeout=60) as reply:
        return int(reply.read())


def point_to(server: str, environment) -> None:
    """Credentials and place come from the environment, as a user's. environment: a MonkeyPatch."""
    environment.setenv("AWS_ENDPOINT_URL", server)
    environment.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    environment.setenv("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMISECRET")
    environment.setenv("AWS_DEFAULT_REGION", "us-east-1")
