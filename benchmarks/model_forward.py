"""One video block against diffusers' WanTransformerBlock: forward, and training step.

    python benchmarks/model_forward.py [--tokens 1560 4680] [--dim 1536] [--repeat 7] [--compile]
    python benchmarks/model_forward.py --device cuda --dtype bfloat16 --tokens 32760 --compile

Both have the same width, heads, FFN, text length (512 by default) and inputs. Ours is a single
block: its self-attention also spans the text and its text tokens pass the MLP, which Wan's do not;
`media only` is ours on the media tokens alone, with text left to cross-attention: the same
arithmetic as Wan's, and what the claim is about. Runs are interleaved; on the CPU, process time of
one thread, on CUDA, time between events; medians over the repeats. `step` is forward and backward
with gradients of all parameters and of the input.
"""

from __future__ import annotations

import argparse
import platform
import time
from collections.abc import Callable
from dataclasses import replace
from statistics import median

import torch
from diffusers import __version__ as diffusers_version
from diffusers.models.transformers.transformer_wan import WanRotaryPosEmbed, WanTransformerBlock
from torch import Tensor, nn

from reelmill.model.attention import attention
from reelmill.model.blocks import SingleBlock
from reelmill.model.config import MMDiTConfig, preset
from reelmill.model.mmdit import MMDiT
from reelmill.model.modality import Modality, Text
from reelmill.model.positions import video_positions
from reelmill.model.rope import rotate


def config(dim: int, heads: int, ffn: int) -> MMDiTConfig:
    video = replace(
        preset("1.3b").video,
        dim=dim,
        heads=heads,
        ffn=ffn,
        dual=0,
        single=1,
        text_dim=dim,
        rope_dims=(),
    )
    return MMDiTConfig(video, None)


class MediaOnly(nn.Module):
    """Our block on media tokens alone."""

    def __init__(self, block: SingleBlock):
        super().__init__()
        self.block = block

    def forward(self, x: Tensor, ctx) -> Tensor:
        stream, block = self.block.shared, self.block
        q, k, v = stream.project(x, ctx.time)
        o = attention(rotate(q, ctx.rope), rotate(k, ctx.rope), v)
        x = stream.merge(x, o, ctx.time)
        assert block.text is not None
        x = x + block.text(x, block.text.keys_values(ctx.text))
        return stream.feed(x, ctx.time)


class Joint(nn.Module):
    """Our block as it is."""

    def __init__(self, block: SingleBlock):
        super().__init__()
        self.block = block

    def forward(self, x: Tensor, ctx) -> Tensor:
        x, c = self.block.attend(x, ctx.text, ctx, 0)
        return self.block.feed(x, c, ctx)[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, nargs="+", default=[1560])
    parser.add_argument("--dim", type=int, default=1536)
    parser.add_argument("--heads", type=int, default=12)
    parser.add_argument("--ffn", type=int, default=8960)
    parser.add_argument("--text", type=int, default=512)
    parser.add_argument("--repeat", type=int, default=7)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--compile", action="store_true", help="Measure compiled blocks too.")
    options = parser.parse_args()
    torch.set_num_threads(1)
    device = torch.device(options.device)
    where = torch.cuda.get_device_name() if device.type == "cuda" else platform.processor()
    print(
        f"{where or platform.machine()}, torch {torch.__version__}, diffusers {diffusers_version}, "
        f"{options.dtype}, dim {options.dim}, {options.text} words, median of {options.repeat}"
    )
    print(f"{'tokens':>7} {'mode':8} {'pass':8} {'wan':>9} {'media':>9} {'joint':>9}  wan/media")
    for tokens in options.tokens:
        frames = max(1, tokens // 1560)
        grid = (frames, 30, 52) if tokens % 1560 == 0 else (1, 1, tokens)
        for mode in ("eager", "compiled") if options.compile else ("eager",):
            for what, times in measure(options, device, grid, mode).items():
                cells = " ".join(f"{times[n] * 1e3:8.1f}m" for n in ("wan", "media", "joint"))
                ratio = times["wan"] / times["media"]
                print(f"{tokens:7} {mode:8} {what:8} {cells}  {ratio:9.3f}")


def measure(
    options: argparse.Namespace, device: torch.device, grid: tuple[int, int, int], mode: str
) -> dict[str, dict[str, float]]:
    """Median seconds by pass and block."""
    torch.manual_seed(0)
    dtype = getattr(torch, options.dtype)
    model = MMDiT(config(options.dim, options.heads, options.ffn)).to(device, dtype)
    block = model.layers[0].video
    wan = WanTransformerBlock(
        options.dim, options.ffn, options.heads, cross_attn_norm=True, eps=1e-6
    ).to(device, dtype)
    length = grid[0] * grid[1] * grid[2]
    x = torch.randn(1, length, options.dim, device=device, dtype=dtype, requires_grad=True)
    words = torch.randn(1, options.text, options.dim, device=device, dtype=dtype)
    with torch.no_grad():
        pos = video_positions(*grid).to(device)[None]
        raw = torch.zeros(1, length, model.config.video.token_in, device=device, dtype=dtype)
        t = torch.full((1, 1), 0.5, device=device)
        ctx = model.video.enter(Modality(raw, pos, t), model.encode_text(Text(words)).video).ctx
        alone = ctx._replace(
            rope=type(ctx.rope)(*(part[:, :length] for part in ctx.rope)), text=words
        )
        ctx = ctx._replace(text=words)
        head = options.dim // options.heads
        latents = torch.zeros(1, 1, grid[0], 2 * grid[1], 2 * grid[2], device=device)
        turn = WanRotaryPosEmbed(head, (1, 2, 2), 1024).to(device)(latents)
    six = ctx.time.six.to(dtype)
    media, joint = MediaOnly(block), Joint(block)
    runs: dict[str, Callable[[], Tensor]] = {}
    blocks: dict[str, nn.Module] = {"wan": wan, "media": media, "joint": joint}
    if mode == "compiled":
        blocks = {n: torch.compile(b, dynamic=False) for n, b in blocks.items()}  # type: ignore[misc]
    runs["wan"] = lambda: blocks["wan"](x, words, six, turn)
    runs["media"] = lambda: blocks["media"](x, alone)
    runs["joint"] = lambda: blocks["joint"](x, ctx)

    def forward(name: str) -> None:
        with torch.no_grad():
            runs[name]()

    def step(name: str) -> None:
        runs[name]().square().mean().backward()
        for module in (wan, block):
            module.zero_grad(set_to_none=True)
        x.grad = None

    out: dict[str, dict[str, float]] = {}
    for what, run in (("forward", forward), ("step", step)):
        spent: dict[str, list[float]] = {n: [] for n in runs}
        for name in runs:
            run(name)
        for turn_ in range(options.repeat):
            names = list(runs)
            for name in names[turn_ % 3 :] + names[: turn_ % 3]:
                spent[name].append(clock(device, lambda n=name, r=run: r(n)))
        out[what] = {n: median(v) for n, v in spent.items()}
    return out


def clock(device: torch.device, run: Callable[[], None]) -> float:
    """Seconds of one run: process time on the CPU, device time on CUDA."""
    if device.type != "cuda":
        start = time.process_time()
        run()
        return time.process_time() - start
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    run()
    end.record()
    torch.cuda.synchronize()
    return begin.elapsed_time(end) / 1e3


if __name__ == "__main__":
    main()
