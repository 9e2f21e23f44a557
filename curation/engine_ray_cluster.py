"""The Ray cluster that a run works on: one of its own on this machine, or one that is there.

Ray is imported here and in engine_ray.py, when a run asks for it and not before. Its usage reports
are off, its own logs stay in its log files, and a cluster of our own leaves nothing behind.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import signal
import socket
import tempfile
import threading
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reelmill.curation.workers import machine_memory
from reelmill.errors import ReelmillError, UsageError

ENVIRONMENT: Mapping[str, str] = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DISABLE_DOCKER_CPU_WARNING": "1",
}
OWN: Mapping[str, str] = {"RAY_memory_monitor_refresh_ms": "0"}  # workers have limits of their own
OBJECT_STORE_BYTES = 512 << 20
OBJECT_STORE_SHARE = 0.1
LOCAL_HOST = "127.0.0.1"
KNOCK_S = 5.0
FOLDERS, FOLDER = "/tmp", "reelmill-ray-"  # short: the paths of Ray's sockets have a limit


@dataclass(frozen=True)
class Node:
    """A living node. cpus, gpus: free now."""

    id: str
    address: str
    cpus: float
    gpus: float


class Cluster:
    """The connection to Ray.

    address: of a cluster (`host:port`, or `auto` for the one on this machine); None starts one of
    cpus cores on this machine, which ends with the run. Where this process is connected already,
    that connection is used, and left as it was.
    """

    def __init__(self, address: str | None, cpus: int):
        if address is not None and address.startswith("ray://"):
            raise UsageError(
                f"--address {address} is Ray's client protocol, which breaks off runs. Start the "
                "run on a node of the cluster, with --address auto or host:port."
            )
        if address is not None and address != "auto":
            host, _, port = address.rpartition(":")
            if not host or not port.isdecimal():
                raise UsageError(f"--address is {address!r}; it must be HOST:PORT or auto.")
        self._address, self._cpus = address, cpus
        self._connected = False
        self._folder: str | None = None

    def connect(self) -> Any:
        """Connects, if it has not yet, and returns the module `ray`."""
        for name, value in ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        if self._address is None:
            for name, value in OWN.items():
                os.environ.setdefault(name, value)
        import ray

        if self._connected:
            return ray
        if self._address is not None:
            self._knock(self._address)
        if ray.is_initialized():
            there = ray.get_runtime_context().gcs_address
            if self._address not in (None, "auto", there):
                raise UsageError(
                    f"--address {self._address}: this process works on the Ray cluster {there} "
                    "already. Leave that one first (`ray.shutdown()`)."
                )
            return ray
        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}
        if self._address is None:
            _sweep()
            self._folder = tempfile.mkdtemp(prefix=f"{FOLDER}{os.getpid()}-", dir=FOLDERS)
            quiet |= {
                "address": "local",
                "num_cpus": self._cpus,
                "include_dashboard": False,
                "object_store_memory": int(
                    min(OBJECT_STORE_BYTES, OBJECT_STORE_SHARE * machine_memory())
                ),
                "_temp_dir": self._folder,
                "_node_ip_address": LOCAL_HOST,
            }
        else:
            quiet["address"] = self._address
        with _own_sigterm(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                ray.init(**quiet)
            except Exception as e:  # Ray raises bare ones too: a machine too busy to start a node
                self.close()
                text = (str(e).strip() or type(e).__name__).splitlines()[0]
                if self._address is None:
                    raise ReelmillError(
                        f"Ray does not start here ({text}). Run with --engine local instead."
                    ) from e
                raise self._absent(text) from e
        self._connected = True
        ray._private.worker._worker_logs_enabled = False  # it tells of dead actors on our stdout
        return ray

    def _knock(self, address: str) -> None:
        """Ray itself would wait for minutes where nobody listens."""
        host, _, port = address.rpartition(":")
        if host:
            try:
                socket.create_connection((host.strip("[]"), int(port)), KNOCK_S).close()
            except (OSError, OverflowError) as error:
                raise self._absent(str(error)) from error

    def _absent(self, text: str) -> UsageError:
        return UsageError(
            f"--address {self._address}: no Ray cluster to work on there ({text}). "
            "`ray status --address ...` says whether it runs; it needs the same versions of "
            "Python and Ray, and the same token as this machine (~/.ray/auth_token)."
        )

    def nodes(self) -> list[Node]:
        """Living nodes that lend cores, in the order of their ids."""
        import ray
        from ray._private.state import available_resources_per_node

        free = available_resources_per_node()
        return [
            Node(
                node["NodeID"],
                node["NodeManagerAddress"],
                free.get(node["NodeID"], {}).get("CPU", 0.0),
                free.get(node["NodeID"], {}).get("GPU", 0.0),
            )
            for node in sorted(ray.nodes(), key=lambda n: n["NodeID"])
            if node["Alive"] and node["Resources"].get("CPU", 0) >= 1
        ]

    def close(self) -> None:
        """Leaves the cluster; ends it and removes its files where it is our own."""
        if self._connected or self._folder is not None:
            import ray

            self._connected = False
            with _own_sigterm():
                ray.shutdown()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None


def _sweep() -> None:
    """Removes what clusters of runs that were killed left behind."""
    for folder in Path(FOLDERS).glob(f"{FOLDER}[0-9]*-*"):
        owner = folder.name.removeprefix(FOLDER).partition("-")[0]
        if not Path("/proc", owner).exists():
            shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _own_sigterm() -> Iterator[None]:
    """Ray puts its own handler in place of ours; this puts ours back."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if handler is not None:
            signal.signal(signal.SIGTERM, handler)
