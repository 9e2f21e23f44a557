"""What it costs to measure clips with every metric that needs no weights.

    python benchmarks/evaluate_clips.py [--clips 1000] [--workers 2] [--kill-after 60] CLIP...

The first five seconds of each CLIP given are brought to 256 lines and encoded; copies of these,
each with a sample of its own so that none is measured twice, make up `--clips` clips of two
checkpoints. They are measured as `reelmill evaluate checkpoint` does, with its page. With
--kill-after the process and its workers are killed after so many seconds, and a second one goes on
(its time counts too). It is right when as many lines stand in done.jsonl as there are clips, and
when what the first had done was not measured again.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from datetime import date
from fractions import Fraction
from pathlib import Path

import av

from reelmill.datasets.media.encode import write_video
from reelmill.evaluation.bench import own_bench
from reelmill.evaluation.history import clips_of, judge
from reelmill.evaluation.ladder import read_footage
from reelmill.evaluation.suite import weight_free

SECONDS, LINES = 5.0, 256
ALL, PROCESSORS, MINUTES = 1000, 2, 15
NAMES = ("first", "second")


def make(home: Path, sources: list[Path], count: int) -> None:
    """`count` clips: each of the sources is encoded once; copies differ by a comment within."""
    prompts = own_bench().prompts
    masters = []
    for i, path in enumerate(sources):
        footage = read_footage(path, SECONDS, LINES)
        master = home / f"master{i}.mp4"
        write_video(
            master,
            footage.frames,
            fps=Fraction(footage.fps).limit_denominator(1001),
            audio=footage.samples,
            audio_rate=footage.rate,
        )
        masters.append(master)
    for i in range(count):
        folder = clips_of(home, NAMES[i % 2])
        folder.mkdir(parents=True, exist_ok=True)
        n = i // 2
        remux(
            masters[i % len(masters)],
            folder / f"{prompts[n % len(prompts)].id}_{n // len(prompts)}.mp4",
            str(i),
        )


def remux(source: Path, out: Path, comment: str) -> None:
    with av.open(str(source)) as a, av.open(str(out), "w") as b:
        b.metadata["comment"] = comment
        streams = {s.index: b.add_stream_from_template(s) for s in a.streams}
        for packet in a.demux():
            if packet.dts is not None:
                packet.stream = streams[packet.stream.index]
                b.mux(packet)


def evaluate(home: Path, workers: int) -> None:
    suite, bench = weight_free(), own_bench()
    for name in NAMES:
        if clips_of(home, name).is_dir():
            judge(home, name, suite, {}, bench=bench, workers=workers)


def run(home: Path, workers: int, kill_after: float | None) -> float:
    """Seconds. In a process of its own, so that it can be killed with its workers."""
    began = time.monotonic()
    child = subprocess.Popen(
        [sys.executable, __file__, "--measure", str(home), "--workers", str(workers)],
        start_new_session=True,
    )
    try:
        child.wait(kill_after)
        if child.returncode:
            raise SystemExit(f"measuring ended with code {child.returncode}")
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()
    return time.monotonic() - began


def done(home: Path) -> list[str]:
    """Key of every clip that was kept, in order; a line that the kill tore is none."""
    keys = []
    path = home / "scores" / "done.jsonl"
    for line in path.read_bytes().splitlines() if path.exists() else ():
        try:
            keys.append(json.loads(line)["key"])
        except ValueError:
            continue
    return keys


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sources", type=Path, nargs="*")
    parser.add_argument("--clips", type=int, default=40)
    parser.add_argument("--workers", type=int, default=PROCESSORS)
    parser.add_argument("--kill-after", type=float)
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        evaluate(args.measure, args.workers)
        return
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        make(home, args.sources, args.clips)
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        took, killed_at = 0.0, None
        if args.kill_after:
            took = run(home, args.workers, args.kill_after)
            killed_at = len(done(home))
        took += run(home, args.workers, None)
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = used.ru_utime + used.ru_stime - before.ru_utime - before.ru_stime
        kept = done(home)
        found, written = len(set(kept)), len(kept)
        pages = {path.name: path.stat().st_size for path in home.glob("*.html")}
        scores = sum(path.stat().st_size for path in (home / "scores").iterdir())
        online = [n for n in pages if "http" in (home / n).read_text().replace("http-equiv", "")]
    metrics = len(weight_free())
    print(f"{date.today()}, {metrics} metrics, {args.clips} clips of {SECONDS:g} s, {LINES} lines")
    if killed_at is not None:
        print(f"killed after {args.kill_after:g} s with {killed_at} clips done")
    print(f"measured:             {found} of {args.clips}, {written - found} more than once")
    print(f"wall, {args.workers} workers:      {took / 60:.1f} min")
    if not args.kill_after:  # of killed processes nobody is told what they used
        print(f"CPU seconds per clip: {cpu / args.clips:.2f}")
    print(f"pages:                {max(pages.values()) / 1e3:.0f} kB at most, links out: {online}")
    print(f"scores:               {scores / 1e3:.0f} kB")
    if args.clips < ALL:
        minutes = cpu / args.clips * ALL / PROCESSORS / 60
        print(f"{ALL} clips, {PROCESSORS} free processors: {minutes:.1f} min, extrapolated")
    right = found == written == args.clips and max(pages.values()) < 5e6 and not online
    in_time = args.clips < ALL or took < 60 * MINUTES
    print("holds" if right and in_time else "DOES NOT HOLD")
    if not right:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
