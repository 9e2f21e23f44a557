"""What the embedded Prefect costs: `reelmill flow curate` against `reelmill curate`.

    python benchmarks/flow_overhead.py [MEDIA...] [--repeat 1] [--save FILE]

MEDIA are files or folders of real clips; without any, all that is below $REELMILL_MEDIA. They are
read once before, so that no way finds a colder disk. Each way runs in processes of its own, in new
workspaces, one after the other, as often as --repeat says, and every second time in the other
order. Told are

    cold, warm    seconds from the start of the process to that of its first task, without and with
                  a database in the workspace (the warm run has nothing left to measure)
    overhead      wall seconds of the flow over those of the direct run, and its share of these;
                  and the same in CPU seconds of all processes, server included, which other work
                  on the machine disturbs less

What is claimed: cold below 10 s; overhead below 2 %; no traceback.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any


def run(way: tuple[str, ...], media: list[str], workspace: Path) -> dict[str, Any]:
    """One process: its wall seconds, those of the engine, and of the way to the first task."""
    command = [sys.executable, "-m", "reelmill.cli", *way, "curate", *media, "--json"]
    command += ["-w", str(workspace), "--allow-missing", "--max-failed", "1"]
    clean = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")}
    began, start, before = datetime.now(UTC), time.perf_counter(), children()
    done = subprocess.run(
        command, env=clean | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False
    )
    wall = time.perf_counter() - start
    if done.returncode or "Traceback" in done.stderr:
        raise SystemExit(done.stderr)
    result = json.loads(done.stdout.splitlines()[-1])
    cpu = children() - before
    found = {"wall": wall, "cpu": cpu, "engine": result["seconds"], "redone": result["redone"]}
    if way:
        found["first_task"] = (first_task(workspace, began) - began).total_seconds()
    return found


def read(media: list[str]) -> int:
    """How many files there are, each read once."""
    paths = [path for name in media for path in (Path(name), *sorted(Path(name).rglob("*")))]
    files = [path for path in paths if path.is_file()]
    for file in files:
        with file.open("rb") as data:
            while data.read(1 << 20):
                pass
    return len(files)


def children() -> float:
    """CPU seconds of all processes that have ended below this one."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def first_task(workspace: Path, since: datetime) -> datetime:
    """When the first task of the newest flow run began, as the embedded server recorded it."""
    with sqlite3.connect(workspace / ".prefect" / "prefect.db") as database:
        rows = database.execute("select start_time from task_run where start_time is not null")
        times = [datetime.fromisoformat(str(row[0])) for row in rows]
    times = [t if t.tzinfo else t.replace(tzinfo=UTC) for t in times]
    return min(t for t in times if t >= since)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("media", nargs="*", default=[os.environ.get("REELMILL_MEDIA")])
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--save", type=Path)
    given = parser.parse_args()
    if not all(given.media):
        parser.error("name MEDIA, or set REELMILL_MEDIA")
    print(read(given.media), "files read", flush=True)
    rows: dict[str, list[dict[str, Any]]] = {"direct": [], "flow": [], "warm": []}
    ways: list[tuple[str, tuple[str, ...]]] = [("flow", ("flow",)), ("direct", ())]
    for repetition in range(given.repeat):
        with tempfile.TemporaryDirectory() as folder:
            work = Path(folder)
            for name, way in ways if repetition % 2 == 0 else reversed(ways):
                rows[name].append(run(way, given.media, work / name))
                print(name, json.dumps(rows[name][-1]), flush=True)
            rows["warm"].append(run(("flow",), given.media, work / "flow"))
            print("warm", json.dumps(rows["warm"][-1]), flush=True)
    direct, flow = (statistics.median(r["wall"] for r in rows[n]) for n in ("direct", "flow"))
    told = {
        "date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()}",
        "cold_s": round(statistics.median(r["first_task"] for r in rows["flow"]), 2),
        "warm_s": round(statistics.median(r["first_task"] for r in rows["warm"]), 2),
        "direct_s": round(direct, 2),
        "flow_s": round(flow, 2),
        "overhead_s": round(flow - direct, 2),
        "overhead_share": round((flow - direct) / direct, 4),
        "overhead_cpu_s": round(
            statistics.median(r["cpu"] for r in rows["flow"])
            - statistics.median(r["cpu"] for r in rows["direct"]),
            2,
        ),
        "rows": rows,
    }
    print(json.dumps({k: v for k, v in told.items() if k != "rows"}, indent=1))
    if given.save:
        given.save.write_text(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    main()
