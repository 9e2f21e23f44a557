"""What orchestration costs at 1,000, 10,000 and 100,000 clips.

    python benchmarks/scale_clips.py [--clips 1000 10000 100000] [--save FILE] [--profile]

For each size a workspace is made whose ledger holds every measurement (synthetic_clips.py). Then
each of these runs in a process of its own, through the public interface of the engine:

    curate   a run that measures nothing: files hashed, all decided, shards written, report
    plan     `reelmill plan` with a moved bound: all decided again, nothing written
    moved    a run with a moved bound: files looked at, all decided, shards written, report
    render   the report page from the run's JSON

What is claimed: seconds per clip of `curate` at each size at most 1.3 x those at the size before
it (what a run of no clips costs makes them fall at first); memory below 1.5 GiB; deciding with
a moved bound below 5 s and without opening media; the report in 20 s, 1 GiB and 5 MB.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import av

from reelmill.curation.engine import CurateOptions, Curation
from reelmill.curation.explain.plan import make_plan
from reelmill.reports import page

SIZES = (1_000, 10_000, 100_000)
JOBS = ("curate", "plan", "moved", "render")
MOVED = "Blur.min_sharpness=0.5"
QUOTA = "Balance.max_share=0.13"


@contextmanager
def counting_opens() -> Iterator[list[str]]:
    """Names of the media that are opened meanwhile."""
    opened: list[str] = []
    real = av.open

    def noting(file: Any, *args: Any, **more: Any) -> Any:
        opened.append(str(file))
        return real(file, *args, **more)

    av.open = noting
    try:
        yield opened
    finally:
        av.open = real


def options(folder: Path, *overrides: str) -> CurateOptions:
    return CurateOptions(
        sources=(str(folder / "media"),),
        workspace=folder / "workspace",
        recipe="video",
        overrides=(QUOTA, "Cut.crop=false", *overrides),  # boxes of bars are drawn too
        allow_missing=True,
        max_failed=1.0,
        workers=0,
    )


def curate(given: CurateOptions) -> dict[str, Any]:
    """Runs all steps. cpu_parts: CPU seconds; those between the steps are those of deciding."""
    parts: dict[str, float] = {}
    opens: dict[str, int] = {}
    begin, last = time.perf_counter(), time.process_time()

    def note(name: str) -> None:
        nonlocal last
        now = time.process_time()
        parts[name] = parts.get(name, 0.0) + now - last
        last = now

    with counting_opens() as opened:
        curation = Curation(given)
        note("find files")
        for step in curation.steps():
            note("decide")
            before = len(opened)
            step.run()
            note(step.name)
            opens[step.name] = opens.get(step.name, 0) + len(opened) - before
        note("decide")
    result = curation.result()
    return {
        "seconds": time.perf_counter() - begin,
        "cpu_parts": {name: round(s, 3) for name, s in parts.items()},
        "opens": {name: n for name, n in opens.items() if n},
        "clips": result.clips.to_json(),
        "measured": result.redone,
        "run": result.run,
    }


def job(name: str, folder: Path) -> dict[str, Any]:
    cpu = time.process_time()
    if name == "curate":
        found = curate(options(folder))
    elif name == "moved":
        found = curate(options(folder, MOVED))
    elif name == "plan":
        with counting_opens() as opened:
            begin = time.perf_counter()
            plan = make_plan(options(folder, MOVED))
            found = {"seconds": time.perf_counter() - begin, "to_measure": plan.todo}
        found["opens"] = {"plan": len(opened)} if opened else {}
    else:
        run = max((folder / "workspace" / "runs").iterdir())
        begin = time.perf_counter()
        made = page.render(run)
        found = {"seconds": time.perf_counter() - begin, "bytes": made.stat().st_size}
    found["cpu_seconds"] = round(time.process_time() - cpu, 3)
    found["rss_mib"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    found["seconds"] = round(found["seconds"], 3)
    return found


def measure(clips: int, folder: Path, profile: bool) -> dict[str, Any]:
    """All jobs at one size, each in a process of its own."""
    here = [sys.executable, __file__, "--folder", str(folder)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    rows: dict[str, Any] = {"clips": clips}
    for name in ("make", *JOBS):
        command = [*here, "--job", name, "--clips", str(clips)]
        command += ["--profile"] if profile and name != "make" else []
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True)
        if name != "make":
            rows[name] = json.loads(done.stdout.splitlines()[-1])
            print(f"{clips:>8} {name:8} {json.dumps(rows[name])}", flush=True)
    return rows


def summary(rows: list[dict[str, Any]]) -> list[str]:
    told = [
        "",
        f"{'clips':>8} {'job':8} {'seconds':>8} {'cpu s':>8} {'cpu us/clip':>12} {'MiB':>6}",
    ]
    for row in rows:
        for name in JOBS:
            seconds, cpu, memory = (row[name][n] for n in ("seconds", "cpu_seconds", "rss_mib"))
            each = cpu / row["clips"] * 1e6
            told.append(
                f"{row['clips']:>8} {name:8} {seconds:>8.2f} {cpu:>8.2f} {each:>12.0f} {memory:>6}"
            )
    for small, large in pairwise(rows):
        for name in JOBS[:3]:
            for what in ("seconds", "cpu_seconds"):
                a, b = (row[name][what] / row["clips"] for row in (small, large))
                text = f"{what} a clip at {large['clips']} over {small['clips']}: {b / a:.2f}"
                told.append(f"{name}: {text}")
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, nargs="+", default=list(SIZES))
    parser.add_argument("--save", type=Path)
    parser.add_argument("--profile", action="store_true", help="print where the time went")
    parser.add_argument("--job", choices=("make", *JOBS), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.job == "make":
        from synthetic_clips import make_workspace

        make_workspace(options(given.folder), given.clips[0])
    elif given.job:
        if given.profile:
            import cProfile
            import pstats

            profile = cProfile.Profile()
            found = profile.runcall(job, given.job, given.folder)
            pstats.Stats(profile, stream=sys.stderr).sort_stats("cumulative").print_stats(45)
        else:
            found = job(given.job, given.folder)
        print(json.dumps(found))
    else:
        rows = []
        for clips in given.clips:
            with tempfile.TemporaryDirectory() as folder:
                rows.append(measure(clips, Path(folder), given.profile))
        print("\n".join(summary(rows)))
        if given.save:
            about = {
                "date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
                "machine": f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()}",
                "python": platform.python_version(),
                "command": "python " + " ".join(["benchmarks/scale_clips.py", *sys.argv[1:]]),
            }
            given.save.write_text(json.dumps({**about, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
