"""The damage ladder on real clips: what every metric says of damage that it claims to see.

    python benchmarks/evaluate_ladder.py [--seconds 3] [--height 144] [--shift CLIP]... CLIP...
    python benchmarks/evaluate_ladder.py --shift-seconds 10 --faces yunet.onnx [--shift CLIP]...

Every clip is damaged in every way at five levels, encoded and measured. Per metric and damage: in
how many clips it applied to all six levels, in how many of those it ranks the original first, and
the least and the median rank correlation (Spearman) of level and value. Clips of --shift are only
for shifted sound, which needs clear events, or with --faces a face that speaks: a clip that has
neither is named with why.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from datetime import date
from pathlib import Path
from statistics import median

import cv2

from reelmill.evaluation.bench import Prompt
from reelmill.evaluation.damage import Damage
from reelmill.evaluation.ladder import Rungs, climb, damaged_clips, read_footage
from reelmill.evaluation.metric import Metric
from reelmill.evaluation.metrics.lips import LipLag
from reelmill.evaluation.suite import weight_free

ONE_SHOT = Prompt.model_validate(
    {
        "id": "one-shot",
        "language": "en",
        "content": "social",
        "sound": "effects",
        "camera": "static",
        "subject": "object",
        "scene": "indoor",
        "tempo": "fast",
        "text": "Something is heard. <sfx>it</sfx>",
    }
)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("clips", type=Path, nargs="*")
    parser.add_argument("--shift", type=Path, action="append", default=[])
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--height", type=int, default=144)
    parser.add_argument("--shift-seconds", type=float, default=30.0)
    parser.add_argument("--faces", type=Path, help="face detector of OpenCV (YuNet): adds LipLag")
    args = parser.parse_args()
    cv2.setNumThreads(1)
    found: dict[tuple[Damage, str], list[tuple[str, Rungs]]] = {}
    silent: list[str] = []
    plan = [(path, args.seconds, set(Damage) - {Damage.SHIFTED_SOUND}) for path in args.clips]
    suite: tuple[Metric, ...] = weight_free()
    if args.faces:
        suite += (LipLag(detector=str(args.faces)),)
    plan += [(path, args.shift_seconds, {Damage.SHIFTED_SOUND}) for path in args.shift]
    for path, seconds, damages in plan:
        print(f"... {path.name}", file=sys.stderr, flush=True)
        footage = read_footage(path, seconds, args.height)
        for damage in (d for d in Damage if d in damages):
            with tempfile.TemporaryDirectory() as folder:
                clips = damaged_clips(Path(folder), footage, damage, ONE_SHOT)
                for metric in suite:
                    if damage not in metric.claims:
                        continue
                    rungs = climb(metric, clips)
                    if isinstance(rungs, Rungs):
                        found.setdefault((damage, metric.name), []).append((path.name, rungs))
                    else:
                        silent.append(f"{damage}, {metric.name}, {path.name}: {rungs.why}")
    print(f"{date.today()}, {len(args.clips)} clips of {args.seconds:g} s at {args.height} lines,")
    print(f"{len(args.shift)} whole clips for shifted sound\n")
    print(f"| {'damage':15} | {'metric':15} | applied | original first | least | median |")
    print("|---|---|---|---|---|---|")
    for (damage, metric), results in sorted(found.items(), key=lambda kv: kv[0]):
        rhos = [rungs.correlation for _, rungs in results]
        first = sum(rungs.original_first for _, rungs in results)
        of = len(args.shift if damage is Damage.SHIFTED_SOUND else args.clips)
        print(
            f"| {damage:15} | {metric:15} | {len(results)}/{of} | {first}/{len(results)} "
            f"| {min(rhos):.2f} | {median(rhos):.2f} |"
        )
    shifted = {
        n: r for (d, _), found_ in found.items() if d is Damage.SHIFTED_SOUND for n, r in found_
    }
    print(f"\nShifted sound applied to: {', '.join(sorted(shifted)) or 'none'}")
    for (damage, metric), results in found.items():
        for name, rungs in results:
            if not rungs.holds:
                told = ", ".join(f"{b:.4g}" for b in rungs.badness)
                print(f"does not hold: {damage}, {metric}, {name}: {told}")
    for line in silent:
        print(f"not applicable: {line}")


if __name__ == "__main__":
    main()
