"""What it costs to measure clips with every metric that needs no weights.

    python benchmarks/evaluate_clips.py [--clips 40] CLIP...

The first five seconds of each CLIP given are brought to 256 lines and encoded; copies of these,
each with a sample of its own so that none is measured twice, make up `--clips` clips. They are
measured as `reelmill evaluate clips --workers 1` does, in two calls to show that nothing is redone.
The time for 1,000 clips is their CPU seconds over two processors that have nothing else to do: an
extrapolation.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from datetime import date
from fractions import Fraction
from pathlib import Path

import numpy as np

from reelmill.datasets.media.encode import write_video
from reelmill.evaluation.bench import own_bench
from reelmill.evaluation.clips import find_clips
from reelmill.evaluation.ladder import read_footage
from reelmill.evaluation.measure import measure
from reelmill.evaluation.suite import weight_free

SECONDS, LINES = 5.0, 256
ALL, PROCESSORS = 1000, 2


def cpu() -> float:
    used = [resource.getrusage(w) for w in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in used)


def make(folder: Path, sources: list[Path], count: int) -> None:
    prompts = own_bench().prompts
    footages = [read_footage(path, SECONDS, LINES) for path in sources]
    for i in range(count):
        footage = footages[i % len(footages)]
        samples = footage.samples.copy()
        samples[:, 0] = np.float32((i + 1) / count / 100)
        model, n = f"model-{i % 2}", i // 2
        path = folder / model / f"{prompts[n % len(prompts)].id}_{n // len(prompts)}.mp4"
        path.parent.mkdir(exist_ok=True)
        write_video(
            path,
            footage.frames,
            fps=Fraction(footage.fps).limit_denominator(1001),
            audio=samples,
            audio_rate=footage.rate,
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sources", type=Path, nargs="+")
    parser.add_argument("--clips", type=int, default=40)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        folder, out = Path(home) / "clips", Path(home) / "scores"
        folder.mkdir()
        make(folder, args.sources, args.clips)
        entries = find_clips(folder)
        suite, bench = weight_free(), own_bench()
        before, clock = cpu(), time.monotonic()
        half = measure(entries[: len(entries) // 2], suite, out, bench=bench, workers=1)
        whole = measure(entries, suite, out, bench=bench, workers=1)
        used, wall = cpu() - before, time.monotonic() - clock
        size = sum(path.stat().st_size for path in out.iterdir())
    each = used / args.clips
    minutes = each * ALL / PROCESSORS / 60
    print(
        f"{date.today()}, {len(suite)} metrics, {args.clips} clips of {SECONDS:g} s, {LINES} lines"
    )
    print(f"CPU seconds per clip:     {each:.2f}")
    print(f"wall, one process:        {wall:.0f} s")
    print(f"measured in two calls:    {half.redone} + {whole.redone}")
    print(f"what is written:          {size / 1e3:.0f} kB")
    print(f"{ALL} clips, {PROCESSORS} free processors: {minutes:.1f} min, extrapolated")


if __name__ == "__main__":
    main()
