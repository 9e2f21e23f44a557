"""A Ray cluster of several nodes on this machine, and what its processes are."""

from __future__ import annotations

import os
import time
import warnings
from pathlib import Path
from typing import Any

STORE_BYTES = 100_000_000


class Nodes:
    """Nodes of one core each. The first is the head, which must not be killed."""

    def __init__(self, count: int):
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from ray.cluster_utils import Cluster

            self._cluster: Any = Cluster(
                initialize_head=True,
                head_node_args={
                    "num_cpus": 1,
                    "object_store_memory": STORE_BYTES,
                    "include_dashboard": False,
                },
            )
        self.address: str = self._cluster.address
        self._others = [self.add() for _ in range(count - 1)]

    def add(self, gpus: int = 0) -> Any:
        return self._cluster.add_node(num_cpus=1, num_gpus=gpus, object_store_memory=STORE_BYTES)

    def remove(self, node: Any) -> None:
        self._cluster.remove_node(node, allow_graceful=False)

    def kill(self) -> None:
        """kill -9 of all processes of one node, at once."""
        node = self._others.pop()
        families = [i for each in self._raylets([node]) for i in below(each)]
        self._cluster.remove_node(node, allow_graceful=False)
        wait_until_gone(families)

    def refill(self, count: int) -> None:
        """Brings the cluster back to so many nodes."""
        while len(self._others) < count - 1:
            self._others.append(self.add())

    def _raylets(self, nodes: list[Any]) -> list[int]:
        return [node.all_processes["raylet"][0].process.pid for node in nodes]

    def working(self) -> list[int]:
        """Processes of runs on this cluster: benches, nurseries and workers."""
        nodes = [self._cluster.head_node, *self._others]
        below_them = [i for raylet in self._raylets(nodes) for i in below(raylet)]
        return [i for i in below_them if "Bench" in command(i) or "nursery" in command(i)]

    def close(self) -> None:
        self._cluster.shutdown()


def command(process: int) -> str:
    try:
        return Path(f"/proc/{process}/cmdline").read_text().replace("\0", " ")
    except OSError:
        return ""


def below(process: int) -> list[int]:
    """Ids of all processes that descend from one."""
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(path.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        children.setdefault(parent, []).append(int(path.parent.name))
    found, new = [], [process]
    while new:
        new = [child for each in new for child in children.get(each, [])]
        found += new
    return found


def wait_until_gone(ids: list[int], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while left := [i for i in ids if _lives(i)]:
        if time.monotonic() > end:
            told = [(i, command(i)[:60]) for i in left]
            raise AssertionError(f"{told} outlived their run")
        time.sleep(0.1)


def _lives(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
