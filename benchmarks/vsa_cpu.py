"""Video Sparse Attention against dense attention on the CPU.

    python benchmarks/vsa_cpu.py [--ratio 8] [--seconds 60] [--heads 4] [--backend cpu]

The whole operation (pooling, selection, sparse and coarse half, gated sum) at a FLOP ratio of
`--ratio`, one thread, fp32, against torch's scaled_dot_product_attention on the same tokens;
forward alone, and forward with backward. Interleaved runs in CPU seconds of this process, the
median of each. A busy machine falls harder on the sparse side, which lives in the caches: the load
is told beside. GFLOP/s are those of the attention's products alone (4 N M D forward, 2.5 times that
backward; the recomputing of a backward pass and all else count as nothing), beside what torch
reaches in one large product of matrices.

The claim is dense / sparse >= 4.5 at a ratio of 8. The Refiner's default sparsity is a ratio of 3.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

import torch
import torch.nn.functional as F

from reelmill.kernels.dispatch import Case, choose_sparse
from reelmill.kernels.tiles import TileLayout, tile_layout
from reelmill.kernels.vsa import video_sparse_attention

GRIDS = {4096: (16, 16, 16), 8192: (32, 16, 16), 16384: (16, 32, 32)}


def cases(
    layout: TileLayout, heads: int, dim: int, q_group: int, ratio: int, backend: str
) -> dict[str, Callable[[], object]]:
    shape = (1, layout.tokens, heads, dim)
    q, k, v, gate = (torch.randn(shape, requires_grad=True) for _ in range(4))
    do = torch.randn(shape)

    def dense() -> torch.Tensor:
        parts = (x.transpose(1, 2) for x in (q, k, v))
        return F.scaled_dot_product_attention(*parts).transpose(1, 2)

    def sparse() -> torch.Tensor:
        return video_sparse_attention(
            q,
            k,
            v,
            gate,
            layout,
            topk=round(layout.tiles / ratio),
            q_group=q_group,
            backend=backend,
        )

    return {
        "dense forward": dense,
        "sparse forward": sparse,
        "dense both": lambda: torch.autograd.grad(dense(), (q, k, v), do),
        "sparse both": lambda: torch.autograd.grad(sparse(), (q, k, v, gate), do),
    }


def medians(runs: dict[str, Callable[[], object]], seconds: float) -> dict[str, float]:
    """Median CPU seconds of at least three interleaved runs of each."""
    spent: dict[str, list[float]] = {name: [] for name in runs}
    end = time.monotonic() + seconds
    while min(map(len, spent.values())) < 3 or time.monotonic() < end:
        for name, run in runs.items():
            start = time.process_time()
            run()
            spent[name].append(time.process_time() - start)
    return {name: statistics.median(times) for name, times in spent.items()}


def product_rate(seconds: float = 2.0) -> float:
    """GFLOP/s of a product of two 2048 x 2048 matrices, the best of several."""
    a, b = torch.randn(2, 2048, 2048)
    times, end = [], time.monotonic() + seconds
    while not times or time.monotonic() < end:
        start = time.process_time()
        torch.mm(a, b)
        times.append(time.process_time() - start)
    return 2 * 2048**3 / min(times) / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60.0, help="for all sizes together")
    parser.add_argument("--ratio", type=int, default=8, help="of all key tiles to those kept")
    parser.add_argument("--head-dim", type=int, default=64)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--tokens", type=int, nargs="+", default=list(GRIDS), choices=list(GRIDS))
    parser.add_argument("--grid", type=int, nargs=3, help="instead of tokens; tiles as they fit")
    parser.add_argument("--q-group", type=int, nargs="+", default=[1, 2], choices=[1, 2])
    parser.add_argument("--backend", default="auto", choices=["auto", "native", "cpu"])
    parser.add_argument("--save", type=Path, help="a JSON file for the results")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    before = os.getloadavg()[0]
    case = Case(torch.device("cpu"), torch.float32, arguments.head_dim, True)
    used = choose_sparse(case, arguments.backend).name
    peak = product_rate()
    print(f"backend {used}; a product of matrices: {peak:.0f} GFLOP/s")
    rows = []
    layouts = [tile_layout(GRIDS[n], tile=(4, 4, 4)) for n in arguments.tokens]
    if arguments.grid:
        layouts = [tile_layout(arguments.grid)]
    sizes = [(layout, group) for layout in layouts for group in arguments.q_group]
    print(f"{'tokens':>7} {'q_group':>7}  {'forward':>28}  {'forward + backward':>28}")
    for layout, group in sizes:
        tokens = layout.tokens
        runs = cases(layout, arguments.heads, arguments.head_dim, group, arguments.ratio, used)
        best = medians(runs, arguments.seconds / len(sizes))
        row = {"tokens": tokens, "q_group": group, "ms": {n: s * 1e3 for n, s in best.items()}}
        text, rates = [], []
        work = 4 * arguments.heads * tokens**2 * arguments.head_dim / 1e9
        for kind in ("forward", "both"):
            dense, sparse = best[f"dense {kind}"], best[f"sparse {kind}"]
            row[f"{kind} ratio"] = dense / sparse
            flops = work * (3.5 if kind == "both" else 1)
            row[f"{kind} GFLOP/s"] = [flops / dense, flops / arguments.ratio / sparse]
            rates.append("{:.0f} / {:.0f}".format(*row[f"{kind} GFLOP/s"]))
            text.append(f"{dense * 1e3:8.1f} /{sparse * 1e3:7.1f} ={dense / sparse:5.2f} x")
        rows.append(row)
        print(f"{tokens:>7} {group:>7}  {text[0]:>28}  {text[1]:>28}  GFLOP/s {'; '.join(rates)}")
    load = max(before, os.getloadavg()[0])
    cores = len(os.sched_getaffinity(0))
    print(
        f"1 thread, CPU ms, medians; FLOP ratio {arguments.ratio}; load {load:.1f} on {cores} "
        f"cores; torch {torch.__version__}"
    )
    if arguments.save:
        told = {
            "what": "vsa_cpu",
            "flop_ratio": arguments.ratio,
            "heads": arguments.heads,
            "head_dim": arguments.head_dim,
            "torch": torch.__version__,
            "backend": used,
            "product_gflops": peak,
            "machine": platform.processor() or platform.machine(),
            "cores": cores,
            "load": load,
            "rows": rows,
        }
        arguments.save.write_text(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    main()
