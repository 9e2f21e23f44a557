"""Memory of refining 1080p in windows, and of doing it whole.

    python benchmarks/refiner_memory.py [--frames 9] [--window 3 68 80] [--whole]

One step of an untrained tiny Refiner (its weights do not matter here) on latents of 1088 x 1920
pixels of 16 channels: the most memory that the process held, above what it held before.
"""

from __future__ import annotations

import argparse
import os
import resource
import time

import torch

from reelmill.model.config import preset
from reelmill.model.mmdit import MMDiT
from reelmill.model.modality import Text
from reelmill.model.refiner import RefineOptions, refine, refiner_canvas, refiner_of
from reelmill.model.windows import Windows

STRIDE = (4, 8, 8)


def peak() -> float:
    """MB, the most so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=9, help="1 + a multiple of 8")
    parser.add_argument("--height", type=int, default=1088)
    parser.add_argument("--width", type=int, default=1920)
    parser.add_argument("--window", type=int, nargs=3, default=(3, 68, 80), help="of latents")
    parser.add_argument("--preset", default="tiny")
    parser.add_argument("--whole", action="store_true", help="without windows")
    options = parser.parse_args()
    torch.set_num_threads(1)
    base = preset(options.preset)
    model = refiner_of(MMDiT(base), residual=True).eval()
    rows, columns = options.height // STRIDE[1], options.width // STRIDE[2]
    low = torch.randn(1, base.video.out_ch, 1 + (options.frames - 1) // 8, rows // 2, columns // 2)
    canvas = refiner_canvas(low, rows, columns)
    size = tuple(options.window)
    windows = None if options.whole else Windows(size, tuple(min(8, n // 4) for n in size))
    how = RefineOptions(steps=1, strength=1.0, windows=windows)
    before, began = peak(), time.process_time()
    made = refine(model, Text(torch.zeros(1, 8, 64)), canvas, seeds=[0], options=how)
    spent, used = time.process_time() - began, peak() - before
    shape = tuple(made.shape[2:])
    tokens = shape[0] * shape[1] * shape[2] // 4
    parts = [shape] if windows is None else windows.boxes(shape)
    largest = shape if windows is None else tuple(map(min, shape, size))
    window = largest[0] * largest[1] * largest[2] // 4
    dim = base.video.dim
    print(
        f"{options.preset}, {options.frames} frames of {options.width} x {options.height}: "
        f"{tokens:,} tokens in {len(parts)} window(s) of {window:,}"
    )
    print(
        f"{used:.0f} MB above {before:.0f} MB before; {used * 2**20 / window / dim / 4:.0f} floats "
        f"per token of a window and channel of the model; {spent:.1f} CPU s; load "
        f"{os.getloadavg()[0]:.1f}"
    )


if __name__ == "__main__":
    main()
