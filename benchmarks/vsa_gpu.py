"""Video Sparse Attention on a GPU, made for one H200.

    python benchmarks/vsa_gpu.py [--parts 1 2 3] [--shapes A B C D E] [--save FILE]

Part 1: ceilings of the machine (copy, matrix product), and correctness of every backend.
Part 2: our fine stage, forward and backward, over configurations, and the whole operation.
Part 3: the peers on the same lists: SDPA (cuDNN, flash), FlexAttention, and FastVideo's kernels
where `fastvideo_kernel` can be imported.

bfloat16, heads of 128. CUDA events, the L2 cache cleared before each run, median of 20 and more. A
forward is 4 B H L (keys read) D operations, a backward 2.5 times that. Lists are uniformly random,
and realistic: chosen from smooth fields, so that neighbours overlap.

Marks, shape A, random lists: forward >= 400 TFLOP/s, backward >= 300, forward and backward >= 5.5 x
the best dense; then 526 and 376 (FastVideo's ThunderKittens, its issue 1034), shape B forward 317
(flashinfer, its issue 5326), and at most 5 % of the whole operation outside the fine stage.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from pathlib import Path
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from reelmill.kernels.block_sparse import block_sparse_attention
from reelmill.kernels.coarse import pool_tiles
from reelmill.kernels.dispatch import Case
from reelmill.kernels.select import TileLists, select_tiles
from reelmill.kernels.tiles import TileLayout, tile_layout
from reelmill.kernels.trial import trial
from reelmill.kernels.vsa import video_sparse_attention

DIM = 128
RUNS = 20


@dataclass(frozen=True)
class Shape:
    grid: tuple[int, int, int]
    heads: int
    topk: int
    tile: Any = (4, 4, 4)


SHAPES = {
    "A": Shape((28, 28, 52), 16, 64),
    "B": Shape((4, 12, 2284), 7, 64),
    "C": Shape((21, 30, 52), 24, 69, "auto"),
    "C4": Shape((21, 30, 52), 24, 78),
    "D": Shape((21, 45, 80), 24, 126, "auto"),
    "D4": Shape((21, 45, 80), 24, 144),
    "E": Shape((28, 28, 52), 16, 213),
}
"""A, B: the published ones. C: 480p at 12.5 %, D: 720p at 10 %, E: A at a third. C4, D4: C and D in
cubes of 4, as FastVideo has them."""


def milliseconds(run: Callable[[], object], flush: Tensor) -> float:
    """Median of RUNS, after three to warm up; the cache is cleared before each."""
    for _ in range(3):
        run()
    times = []
    for _ in range(RUNS):
        flush.zero_()
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        run()
        end.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(end))
    return median(times)


def smooth(shape: Shape, layout: TileLayout, made: torch.Generator, device: str) -> Tensor:
    """[1, L, heads, DIM] in tile order: fields that change slowly over the grid, and noise."""
    low = [max(n // 8, 2) for n in shape.grid]
    field = torch.randn(1, shape.heads * DIM, *low, generator=made, device=device)
    field = F.interpolate(field, shape.grid, mode="trilinear", align_corners=True)
    x = field.flatten(2).transpose(1, 2).unflatten(2, (shape.heads, DIM))
    noise = torch.randn(x.shape, generator=made, device=device)
    return layout.to_tiles(x + 0.3 * noise).to(torch.bfloat16)


def lists_of(kind: str, shape: Shape, layout: TileLayout, device: str) -> TileLists:
    made = torch.Generator(device).manual_seed(0)
    if kind == "realistic":
        q, k = (pool_tiles(smooth(shape, layout, made, device), layout) for _ in "qk")
        return select_tiles(q, k, layout, topk=shape.topk)
    size = (1, shape.heads, layout.tiles)
    scores = torch.rand(*size, layout.tiles, generator=made, device=device)
    index = scores.topk(shape.topk).indices.sort().values.int()
    return TileLists(index, torch.full(size, shape.topk, dtype=torch.int32, device=device))


def tensors(shape: Shape, layout: TileLayout, device: str, n: int = 5) -> list[Tensor]:
    """Queries, keys, values, a gate, and a gradient of the output."""
    made = torch.Generator(device).manual_seed(1)
    size = (1, layout.tokens, shape.heads, DIM)
    some = [torch.randn(size, generator=made, device=device).to(torch.bfloat16) for _ in range(n)]
    return [x.requires_grad_() for x in some[:-1]] + some[-1:]


def work(shape: Shape, layout: TileLayout, lists: TileLists) -> float:
    """Operations of a forward: tokens against the tokens that they read."""
    sizes = layout.offsets.diff().double()
    read = sizes[lists.index.long()].sum(-1)
    return float(4 * DIM * (read * sizes).sum())


def both_ways(
    forward: Callable[[], Tensor],
    wanted: list[Tensor],
    do: Tensor,
    operations: float,
    flush: Tensor,
) -> dict[str, float]:
    """Times of forward, backward and both, with their rates in TFLOP/s."""
    out = forward()
    there = milliseconds(forward, flush)
    back = milliseconds(
        lambda: torch.autograd.grad(out, wanted, do.view(out.shape), retain_graph=True), flush
    )
    return {
        "forward ms": there,
        "backward ms": back,
        "both ms": there + back,
        "forward TF/s": operations / there / 1e9,
        "backward TF/s": 2.5 * operations / back / 1e9,
    }


def ceilings(flush: Tensor) -> dict[str, float]:
    a, b = (torch.randn(8192, 8192, device="cuda").to(torch.bfloat16) for _ in "ab")
    source = torch.randn(1 << 28, device="cuda")
    target = torch.empty_like(source)
    product = milliseconds(lambda: a @ b, flush)
    copy = milliseconds(lambda: target.copy_(source), flush)
    return {
        "matmul TF/s": 2 * 8192**3 / product / 1e9,
        "copy TB/s": 2 * source.numel() * 4 / copy / 1e9,
    }


def correctness() -> list[dict[str, Any]]:
    rows = []
    for backend in ("triton", "flex"):
        for dtype in (torch.bfloat16, torch.float16, torch.float32):
            for dim in (64, 128):
                case = Case(torch.device("cuda"), dtype, dim, True)
                found = trial(case, backend)
                rows.append({"backend": backend, "dtype": str(dtype), "dim": dim, **vars(found)})
    return rows


def configurations() -> dict[str, Callable[[], None]]:
    """Ways to compile the fine stage; each, called, puts itself in place."""
    from reelmill.kernels.triton import fine

    chosen = (fine.FORWARD[64, DIM], fine.QUERIES[DIM], fine.KEYS[DIM])

    def place(forward: fine.Config, queries: fine.Config, keys: fine.Config) -> None:
        fine.FORWARD[64, DIM], fine.QUERIES[DIM], fine.KEYS[DIM] = forward, queries, keys

    ways = {"as shipped": lambda: place(*chosen)}
    for warps in (4, 8):
        for stages in (1, 2, 3):
            one = fine.Config(64, 64, warps, stages)
            ways[f"{warps} warps, {stages} stages"] = lambda one=one: place(one, one, one)
    return ways


def ours(name: str, shape: Shape, flush: Tensor) -> list[dict[str, Any]]:
    layout = tile_layout(shape.grid, tile=shape.tile, device="cuda")
    q, k, v, gate, do = tensors(shape, layout, "cuda")
    rows = []
    for kind in ("random", "realistic"):
        lists = lists_of(kind, shape, layout, "cuda")
        operations = work(shape, layout, lists)

        def fine_stage(lists: TileLists = lists) -> Tensor:
            return block_sparse_attention(q, k, v, lists, layout, backend="triton")

        ways = configurations()
        for way, place in ways.items():
            if way != "as shipped" and (name != "A" or kind != "random"):
                continue
            place()
            times = both_ways(fine_stage, [q, k, v], do, operations, flush)
            rows.append({"shape": name, "lists": kind, "what": f"fine, {way}", **times})
            print(rows[-1], flush=True)
        ways["as shipped"]()
    for group in (1, 2):

        def whole(group: int = group) -> Tensor:
            return video_sparse_attention(
                q, k, v, gate, layout, topk=shape.topk, q_group=group, backend="triton"
            )

        lists = lists_of("random", shape, layout, "cuda")
        times = both_ways(whole, [q, k, v, gate], do, work(shape, layout, lists), flush)
        rows.append({"shape": name, "lists": "own", "what": f"whole, q_group {group}", **times})
        print(rows[-1], flush=True)
    return rows


def peers(name: str, shape: Shape, flush: Tensor) -> list[dict[str, Any]]:
    layout = tile_layout(shape.grid, tile=shape.tile, device="cuda")
    q, k, v, _, do = tensors(shape, layout, "cuda")
    lists = lists_of("random", shape, layout, "cuda")
    sparse = work(shape, layout, lists)
    dense = 4.0 * shape.heads * DIM * prod(shape.grid) ** 2
    runs: dict[str, tuple[Callable[[], Tensor], float]] = {}
    for kind in (SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION):

        def one(kind: SDPBackend = kind) -> Tensor:
            with sdpa_kernel(kind):
                parts = (x.transpose(1, 2) for x in (q, k, v))
                return F.scaled_dot_product_attention(*parts).transpose(1, 2)

        runs[f"dense {kind.name}"] = (one, dense)
    runs["flex"] = (
        lambda: block_sparse_attention(q, k, v, lists, layout, backend="flex"),
        sparse,
    )
    rows = []
    for what, (run, operations) in runs.items():
        try:
            times = both_ways(run, [q, k, v], do, operations, flush)
        except (RuntimeError, ValueError) as error:
            times = {"error": f"{type(error).__name__}: {error}"[:200]}
        rows.append({"shape": name, "lists": "random", "what": what, **times})
        print(rows[-1], flush=True)
    return rows + fastvideo(name, shape, layout, lists, sparse, flush)


def fastvideo(
    name: str, shape: Shape, layout: TileLayout, lists: TileLists, operations: float, flush: Tensor
) -> list[dict[str, Any]]:
    """Its fine stage on tiles padded to 64; which kernel it takes its environment decides."""
    try:
        from fastvideo_kernel.block_sparse_attn import (  # type: ignore[import-not-found]
            block_sparse_attn_from_indices,
        )
    except ImportError as error:
        print(f"no fastvideo_kernel: {error}")
        return []
    sizes = layout.offsets.diff().int()
    made = torch.Generator("cuda").manual_seed(2)
    full = (1, shape.heads, layout.tiles * 64, DIM)
    q, k, v, do = (
        torch.randn(full, generator=made, device="cuda").to(torch.bfloat16) for _ in range(4)
    )
    leaves = [x.requires_grad_() for x in (q, k, v)]

    def run() -> Tensor:
        return block_sparse_attn_from_indices(*leaves, lists.index, lists.count, sizes)[0]

    times = both_ways(run, leaves, do, operations, flush)
    return [{"shape": name, "lists": "random", "what": "FastVideo, fine", **times}]


def table(rows: list[dict[str, Any]]) -> None:
    columns = ["forward ms", "backward ms", "both ms", "forward TF/s", "backward TF/s"]
    print(f"\n{'shape':5} {'lists':9} {'what':26}" + "".join(f"{c:>15}" for c in columns))
    for row in rows:
        figures = "".join(f"{row.get(c, float('nan')):15.2f}" for c in columns)
        print(
            f"{row['shape']:5} {row['lists']:9} {row['what']:26}{figures}  {row.get('error', '')}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", type=int, nargs="+", default=[1, 2, 3], choices=[1, 2, 3])
    parser.add_argument("--shapes", nargs="+", default=list(SHAPES), choices=list(SHAPES))
    parser.add_argument("--save", type=Path, help="a JSON file for the results")
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("vsa_gpu: this benchmark needs a CUDA device.")
    flush = torch.empty(256 << 20, dtype=torch.int8, device="cuda")
    told: dict[str, Any] = {
        "what": "vsa_gpu",
        "device": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "rows": [],
    }
    if 1 in arguments.parts:
        told["ceilings"], told["correctness"] = ceilings(flush), correctness()
        print(told["ceilings"])
        for row in told["correctness"]:
            print(row)
    for name in arguments.shapes:
        if 2 in arguments.parts:
            told["rows"] += ours(name, SHAPES[name], flush)
        if 3 in arguments.parts and name in ("A", "B", "C4", "D4"):
            told["rows"] += peers(name, SHAPES[name], flush)
        if arguments.save:
            arguments.save.write_text(json.dumps(told, indent=1) + "\n")
    table(told["rows"])


if __name__ == "__main__":
    main()
