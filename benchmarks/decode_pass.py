"""CPU time of the fused visual pass over bare decode of the same files.

    python benchmarks/decode_pass.py [--repeat 5] FILE...

Four ways through every file, interleaved, CPU seconds of all threads, medians over the repeats:

    bare         PyAV decodes every frame and throws it away (the floor)
    frames       `decode` with a callback that does nothing: scaling and bookkeeping
    fused        `decode` with every FrameStage of the video recipe: the product's visual pass
    scenedetect  PySceneDetect's own command line, shots alone; the start of its interpreter is
                 measured by `scenedetect version` and taken off

The claim is fused / bare <= 1.25 (docs: one decode for all frame stages).
"""

from __future__ import annotations

import argparse
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path
from statistics import median

import av
import cv2

from reelmill.curation.recipes import video
from reelmill.curation.stage import FrameStage
from reelmill.datasets.media.decode import MediaInfo, decode, probe


def bare(path: Path, info: MediaInfo) -> None:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        for _ in container.decode(stream):
            pass


def frames(path: Path, info: MediaInfo) -> None:
    decode(path, info, lambda frame: None)


def fused(path: Path, info: MediaInfo) -> None:
    analysers = [s.open(info) for s in video().stages if isinstance(s, FrameStage)]

    def on_frame(frame) -> None:
        for analyser in analysers:
            analyser.frame(frame)

    summary = decode(path, info, on_frame)
    for analyser in analysers:
        analyser.finish(summary)


def scenedetect(path: Path | None) -> None:
    what = ["version"] if path is None else ["-i", str(path), "detect-content"]
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            [sys.executable, "-m", "scenedetect", *what],
            cwd=folder,
            check=True,
            capture_output=True,
        )


def cpu(run: Callable[[], None]) -> float:
    """CPU seconds of this process and its children."""

    def now() -> float:
        children = resource.getrusage(resource.RUSAGE_CHILDREN)
        return time.process_time() + children.ru_utime + children.ru_stime

    start = now()
    run()
    return now() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("media", nargs="+", type=Path)
    parser.add_argument("--repeat", type=int, default=5)
    options = parser.parse_args()
    cv2.setNumThreads(1)
    infos = {path: probe(path) for path in options.media}
    ways: dict[str, Callable[[Path, MediaInfo], None]] = {
        "bare": bare,
        "frames": frames,
        "fused": fused,
        "scenedetect": lambda path, info: scenedetect(path),
    }
    for path, info in infos.items():
        fused(path, info)  # warm: imports, page cache
    spent: dict[tuple[str, Path], list[float]] = {}
    start: list[float] = []
    for turn in range(options.repeat):
        start.append(cpu(lambda: scenedetect(None)))
        for path, info in infos.items():
            names = list(ways)
            for name in names[turn % 4 :] + names[: turn % 4]:
                spent.setdefault((name, path), []).append(cpu(partial(ways[name], path, info)))
    stages = [s.name for s in video().stages if isinstance(s, FrameStage)]
    print(
        f"{platform.machine()}, Python {platform.python_version()}, PyAV {av.__version__}", end=""
    )
    print(f", OpenCV {cv2.__version__}, PySceneDetect {version('scenedetect')}", end="")
    print(f", median of {options.repeat}, CPU seconds, 1 thread")
    print(f"frame stages: {', '.join(stages)}\n")
    print(f"{'file':32} {'size':>10} " + " ".join(f"{name:>11}" for name in ways) + "  fused/bare")
    total = dict.fromkeys(ways, 0.0)
    for path, info in infos.items():
        row = {name: median(spent[name, path]) for name in ways}
        row["scenedetect"] = max(0.0, row["scenedetect"] - median(start))
        for name in ways:
            total[name] += row[name]
        size = f"{info.video.width}x{info.video.height}" if info.video else ""
        cells = " ".join(f"{row[name]:11.3f}" for name in ways)
        print(f"{path.name[:32]:32} {size:>10} {cells}  {row['fused'] / row['bare']:10.3f}")
    cells = " ".join(f"{total[name]:11.3f}" for name in ways)
    print(f"{'all':43} {cells}  {total['fused'] / total['bare']:10.3f}")
    print(f"\nfused / bare = {total['fused'] / total['bare']:.3f} (target 1.25)")
    print(f"scenedetect / fused = {total['scenedetect'] / total['fused']:.3f}")


if __name__ == "__main__":
    main()
