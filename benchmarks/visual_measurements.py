"""CPU time of all visual measurements together, against data-juicer's operators one by one.

    python benchmarks/visual_measurements.py --juicer PYTHON FILE...

PYTHON is an interpreter that has py-data-juicer (with scenedetect, opencv and a PyAV that it works
with). Its operators that measure pictures and need no weights and no ffmpeg program run in it at
their defaults: motion score, duration, resolution, aspect ratio, the video deduplicator's hash, and
the scene detection of its splitting mapper (without the splitting). They read the file once each.
Ours is the one shared decode with every FrameStage of the video recipe: those measurements and
many that data-juicer has not. One thread each, imports not counted, files in turns.

Target: at least 4 times fewer CPU seconds.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import cv2

from reelmill.curation.recipes import video
from reelmill.curation.stage import FrameStage
from reelmill.curation.viewing import Viewing
from reelmill.datasets.media.decode import decode, probe

THEIRS = """
import json, sys, time
import av, cv2, scenedetect
from importlib.metadata import version
from data_juicer.ops.deduplicator.video_deduplicator import VideoDeduplicator
from data_juicer.ops.filter.video_aspect_ratio_filter import VideoAspectRatioFilter
from data_juicer.ops.filter.video_duration_filter import VideoDurationFilter
from data_juicer.ops.filter.video_motion_score_filter import VideoMotionScoreFilter
from data_juicer.ops.filter.video_resolution_filter import VideoResolutionFilter
from data_juicer.utils.constant import Fields
cv2.setNumThreads(1)
reader = {"video_backend": "av"}
filters = [VideoMotionScoreFilter(), VideoDurationFilter(**reader),
           VideoResolutionFilter(**reader), VideoAspectRatioFilter(**reader)]
ways = {type(f).__name__: f.compute_stats_single for f in filters}
ways["VideoDeduplicator"] = VideoDeduplicator().compute_hash
ways["scenes of VideoSplitBySceneMapper"] = lambda sample: scenedetect.detect(
    sample["videos"][0], scenedetect.ContentDetector(27.0, 15), start_in_scene=True)
names = ("py-data-juicer", "av", "scenedetect")
print(json.dumps({name: version(name) for name in names} | {"opencv": cv2.__version__}), flush=True)
ways["VideoDurationFilter"]({"videos": [sys.argv[1]], "text": "", Fields.stats: {}})  # warm
for path in sys.argv[1:]:
    spent = {}
    for name, run in ways.items():
        sample = {"videos": [path], "text": "", Fields.stats: {}}
        start = time.process_time()
        run(sample)
        spent[name] = time.process_time() - start
    print(json.dumps(spent), flush=True)
"""


def ours(path: Path) -> float:
    stages = [stage for stage in video().stages if isinstance(stage, FrameStage)]
    start = time.process_time()
    info = probe(path)
    viewing = Viewing(stages, info, lambda name: nullcontext())
    viewing.finish(decode(path, info, viewing.frame))
    return time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("media", nargs="*", type=Path)
    parser.add_argument("--juicer", type=Path, help="python with py-data-juicer")
    options = parser.parse_args()
    if options.juicer is None or not options.media:
        print("give --juicer PYTHON and files: without data-juicer there is nothing to compare")
        return
    cv2.setNumThreads(1)
    files = [str(path.resolve()) for path in options.media]
    command = [str(options.juicer), "-c", THEIRS, *files]
    total = {"ours": 0.0, "theirs": 0.0}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as peer:
        assert peer.stdout is not None
        print("data-juicer:", json.loads(peer.stdout.readline()))
        ours(options.media[0])  # warm
        print(f"{'file':28} {'ours':>8} {'theirs':>8}  of which")
        for path in options.media:
            spent = json.loads(peer.stdout.readline())
            mine, sum_ = ours(path), sum(spent.values())
            total["ours"] += mine
            total["theirs"] += sum_
            parts = ", ".join(f"{name} {seconds:.2f}" for name, seconds in spent.items())
            print(f"{path.name[:28]:28} {mine:8.2f} {sum_:8.2f}  {parts}", flush=True)
    if peer.returncode:
        sys.exit(f"data-juicer ended with {peer.returncode}")
    ratio = total["theirs"] / total["ours"]
    print(f"{'all':28} {total['ours']:8.2f} {total['theirs']:8.2f}  {ratio:.1f} times, target 4")


if __name__ == "__main__":
    main()
