"""CPU time of the fused visual pass over bare decode of the same files.

    python benchmarks/decode_pass.py [--repeat 5] FILE_OR_FOLDER...

Four ways through every file, interleaved, CPU seconds of all threads, medians over the repeats:

    bare         PyAV decodes every frame and throws it away (the floor)
    frames       `decode` with a callback that does nothing: scaling and bookkeeping
    fused        `decode` with every FrameStage of the video recipe: the product's visual pass
    scenedetect  PySceneDetect's own command line, shots alone; the start of its interpreter is
                 measured by `scenedetect version` and taken off

The claim is fused / bare <= 1.25 for pictures of 720 lines and more. The frame stages look at
pictures of 256 pixels, whatever the file's size: a file that is not much larger costs little more
to decode than to look at.
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

from reelmill.curation.measure import naming
from reelmill.curation.recipes import video
from reelmill.curation.stage import FrameStage
from reelmill.curation.viewing import Viewing
from reelmill.datasets.media.decode import MediaInfo, decode, probe
from reelmill.datasets.sample import Kind
from reelmill.errors import MediaError


def bare(path: Path, info: MediaInfo) -> None:
    with av.open(str(path), metadata_errors="replace") as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        for _ in container.decode(stream):
            pass


def frames(path: Path, info: MediaInfo) -> None:
    decode(path, info, lambda frame: None)


def fused(path: Path, info: MediaInfo) -> None:
    stages = [s for s in video().stages if isinstance(s, FrameStage)]
    viewing = Viewing(stages, info, partial(naming, path=str(path)))
    viewing.finish(decode(path, info, viewing.frame))


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


def readable(given: list[Path]) -> tuple[dict[Path, MediaInfo], int]:
    """Videos among files and folders that both this product and PySceneDetect can read whole."""
    infos: dict[Path, MediaInfo] = {}
    found = [f for p in given for f in (sorted(p.rglob("*")) if p.is_dir() else [p])]
    files = [f for f in found if f.is_file()]
    for path in files:
        try:
            info = probe(path)
            if info.kind == Kind.VIDEO:
                bare(path, info)
                scenedetect(path)
                infos[path] = info
        except (MediaError, av.FFmpegError, subprocess.CalledProcessError):
            continue
    return infos, len(files) - len(infos)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("media", nargs="+", type=Path)
    parser.add_argument("--repeat", type=int, default=5)
    options = parser.parse_args()
    cv2.setNumThreads(1)
    infos, skipped = readable(options.media)
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
    print(f"frame stages: {', '.join(stages)}")
    print(f"{len(infos)} videos; {skipped} files are none, or cannot be read whole\n")
    print(f"{'file':32} {'size':>10} " + " ".join(f"{name:>11}" for name in ways) + "  fused/bare")
    classes = {"all": 0, "720 lines or more": 720}
    total = {name: dict.fromkeys(ways, 0.0) for name in classes}
    for path, info in infos.items():
        row = {name: median(spent[name, path]) for name in ways}
        row["scenedetect"] = max(0.0, row["scenedetect"] - median(start))
        lines = min(info.video.width, info.video.height) if info.video else 0
        for kind, least in classes.items():
            for name in ways:
                total[kind][name] += row[name] * (lines >= least)
        size = f"{info.video.width}x{info.video.height}" if info.video else ""
        cells = " ".join(f"{row[name]:11.3f}" for name in ways)
        print(f"{path.name[:32]:32} {size:>10} {cells}  {row['fused'] / row['bare']:10.3f}")
    for kind, spent_in in total.items():
        if spent_in["bare"]:
            cells = " ".join(f"{spent_in[name]:11.3f}" for name in ways)
            print(f"{kind:43} {cells}  {spent_in['fused'] / spent_in['bare']:10.3f}")
    for kind, spent_in in total.items():
        if spent_in["bare"]:
            print(
                f"\n{kind}: fused / bare = {spent_in['fused'] / spent_in['bare']:.3f}, target 1.25"
            )
            print(
                f"{kind}: scenedetect / fused = {spent_in['scenedetect'] / spent_in['fused']:.3f}"
            )


if __name__ == "__main__":
    main()
