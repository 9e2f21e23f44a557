"""What a small Refiner gains over interpolation, on made and on real clips, dense and sparse.

    python benchmarks/refiner.py [--media FOLDER] [--scale 2] [--steps 1200] [--save FILE]

A codec is fitted to the training clips, a tiny Refiner trained for `--steps` on pairs of them
(`--scale` times smaller, half the rate), once with dense attention and once with a third of its key
tiles. Then, on clips it never saw, PSNR of pixels against the originals:

    interpolated  decode(Z_up): the low latents stretched, decoded
    bicubic       the decoded low clip, enlarged by bicubic, frames between blended
    refined       the Refiner's latents, decoded
    codec         the original through the codec: the ceiling

The claims: refined is above interpolated and bicubic; sparse within .2 dB of dense at about a third
of the attention's cost. Made clips: moving shapes of the demo corpus. Real ones: every second video
of FOLDER trains, the others are measured.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from reelmill.datasets.corpus.render import render_scene
from reelmill.datasets.corpus.scene import random_scene
from reelmill.datasets.media.decode import probe
from reelmill.datasets.media.span import clip_frames
from reelmill.datasets.sample import Clip, Kind
from reelmill.errors import ReelmillError
from reelmill.kernels.sparsity import SparsitySchedule
from reelmill.kernels.tiles import tile_layout
from reelmill.model.codecs.codec import to_pixels
from reelmill.model.codecs.patch_pca import PatchPCAVideo
from reelmill.model.conditioning import video_modality, video_velocity
from reelmill.model.config import preset
from reelmill.model.flow import interpolate, target
from reelmill.model.mmdit import MMDiT
from reelmill.model.modality import Text
from reelmill.model.refiner import (
    RefineOptions,
    refine,
    refiner_canvas,
    refiner_config,
    upsample,
)

FRAMES, SIDE, FPS = 17, 128, 16
TEXT = Text(torch.zeros(1, 1, 64))
DENSE, SPARSE = 0.0, 2 / 3


def made(count: int, first: int) -> list[np.ndarray]:
    clips = []
    for seed in range(first, first + count):
        scene = random_scene(seed, seconds=FRAMES / FPS + 0.1, size=(SIDE, SIDE))
        clips.append(render_scene(scene, FPS)[:FRAMES])
    return clips


def real(folder: Path) -> list[tuple[str, np.ndarray]]:
    """The first frames of every video that is long and large enough, from its middle."""
    found = []
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        try:
            info = probe(path)
            if info.kind != Kind.VIDEO or info.video is None or (info.seconds or 0) < 2:
                continue
            if min(info.video.width, info.video.height) < SIDE:
                continue
            base = info.video.time_base
            start = round(Fraction(info.video.start_s) / base)
            end = start + round(Fraction(FRAMES, FPS) / base)
            clip = Clip(path.name, Kind.VIDEO, start, end, base, start, 0, 0)
            height = max(SIDE, -(-SIDE * info.video.height // info.video.width))
            frames = clip_frames(path, info, clip, FPS, height + height % 2)[:FRAMES]
        except ReelmillError:
            continue
        top, left = (frames.shape[1] - SIDE) // 2, (frames.shape[2] - SIDE) // 2
        cut = frames[:, top : top + SIDE, left : left + SIDE]
        if cut.shape == (FRAMES, SIDE, SIDE, 3) and cut.std() > 8:
            found.append((path.name, np.ascontiguousarray(cut)))
    return found


def smaller(pixels: Tensor, scale: int) -> Tensor:
    """[1, 3, F, H, W] -> every second frame, `scale` times smaller."""
    flat = pixels[0, :, ::2].transpose(0, 1)
    size = [SIDE // scale] * 2
    small = F.interpolate(flat, size, mode="bicubic", antialias=True).clamp(-1, 1)
    return small.transpose(0, 1)[None]


def bicubic(low: Tensor) -> Tensor:
    flat = F.interpolate(low[0].transpose(0, 1), [SIDE, SIDE], mode="bicubic").clamp(-1, 1)
    out = flat.new_empty(2 * len(flat) - 1, *flat.shape[1:])
    out[::2], out[1::2] = flat, (flat[1:] + flat[:-1]) / 2
    return out.transpose(0, 1)[None]


def psnr(a: Tensor, b: Tensor) -> float:
    error = (((a.clamp(-1, 1) - b) / 2) ** 2).mean().item()
    return -10 * np.log10(max(error, 1e-12))


def train(pairs: list[tuple[Tensor, Tensor]], channels: int, steps: int, share: float) -> MMDiT:
    torch.manual_seed(0)
    base = preset("tiny", video_channels=channels, text_dim=64)
    base = replace(base, video=replace(base.video, predicts="data"))
    model = MMDiT(refiner_config(base))
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, betas=(0.9, 0.95))
    schedule = SparsitySchedule(target=share, rate=0)
    draw = np.random.default_rng(0)
    text = Text(TEXT.tokens.expand(4, -1, -1))
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = (
                2e-3 * min(1, (step + 1) / 50) * (0.5 + 0.5 * np.cos(np.pi * step / steps))
            )
        chosen = draw.integers(0, len(pairs), 4)
        z0 = torch.cat([pairs[i][0] for i in chosen])
        low = torch.cat([pairs[i][1] for i in chosen])
        t = torch.from_numpy(draw.random(4)).float()
        eps = torch.from_numpy(draw.standard_normal(z0.shape)).float()
        known = upsample(low, *z0.shape[3:])
        m = video_modality(
            model.config, interpolate(z0, eps, t), t, known, torch.zeros_like(z0[:, :1])
        )
        shares = [schedule.training(step, layer) for layer in range(len(model.layers))]
        out, _ = model(m, None, text, sparsity=shares)
        assert out is not None
        v = video_velocity(model.config, out, z0.shape[2:])
        weight = ((1 - t) / 0.3).clamp(0, 1).square()
        loss = ((v - target(z0, eps)).square().flatten(1).mean(1) * weight).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    return model.eval()


def kept(latents: Tensor, patch: tuple[int, ...], share: float) -> float:
    """Share of query-key pairs that sparse attention computes, fine and coarse."""
    grid = [n // p for n, p in zip(latents.shape[2:], patch, strict=True)]
    layout = tile_layout(grid)
    tiles, tokens = layout.tiles, layout.tokens
    fine = max(1, round((1 - share) * tiles)) / tiles
    return fine + tiles**2 / tokens**2


def measure(
    name: str, training: list[np.ndarray], held_out: list[np.ndarray], options: argparse.Namespace
) -> dict[str, object]:
    codec = PatchPCAVideo.fit(training, channels=options.channels)

    def pair(frames: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
        pixels = to_pixels(frames)
        return codec.encode(pixels), codec.encode(smaller(pixels, options.scale)), pixels

    pairs = [pair(frames)[:2] for frames in training]
    began, rows = time.process_time(), {}
    models = {
        "dense": train(pairs, codec.channels, options.steps, DENSE),
        "sparse": train(pairs, codec.channels, options.steps, SPARSE),
    }
    found: dict[str, list[float]] = {}
    for i, frames in enumerate(held_out):
        high, low, pixels = pair(frames)
        found.setdefault("codec", []).append(psnr(codec.decode(high), pixels))
        found.setdefault("interpolated", []).append(
            psnr(codec.decode(upsample(low, *high.shape[3:])), pixels)
        )
        found.setdefault("bicubic", []).append(psnr(bicubic(codec.decode(low)), pixels))
        canvas = refiner_canvas(low, *high.shape[3:])
        for way, share in (("dense", DENSE), ("sparse", SPARSE)):
            how = RefineOptions(steps=options.sampling, strength=1.0, sparsity=share)
            z = refine(models[way], TEXT, canvas, seeds=[i], options=how)
            found.setdefault(f"refined, {way}", []).append(psnr(codec.decode(z), pixels))
    rows = {key: float(np.mean(values)) for key, values in found.items()}
    cost = kept(high, models["sparse"].config.video.patch, SPARSE)
    print(f"\n{name}: {len(training)} clips to train on, {len(held_out)} held out")
    for key, value in sorted(rows.items(), key=lambda item: item[1]):
        print(f"  {key:18} {value:6.2f} dB")
    better = np.mean(np.array(found["refined, sparse"]) > np.array(found["interpolated"]))
    print(f"  refined, sparse, above interpolated on {better:.0%} of held-out clips")
    print(f"  sparse attention computes {cost:.2f} of dense attention's pairs")
    print(f"  {time.process_time() - began:.0f} CPU seconds")
    return {"psnr": rows, "share_better": float(better), "attention_cost": cost}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--media", type=Path, help="folder of real clips")
    parser.add_argument("--scale", type=int, default=2, help="how many times smaller")
    parser.add_argument("--steps", type=int, default=1200)
    parser.add_argument("--sampling", type=int, default=4, help="steps of the sampler")
    parser.add_argument("--channels", type=int, default=32, help="of the codec")
    parser.add_argument("--save", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(
        f"{platform.machine()}, torch {torch.__version__}, 1 thread; {SIDE} x {SIDE}, {FRAMES} "
        f"frames, {options.scale} x {options.scale} x 2, {options.steps} steps"
    )
    results = {"made": measure("made", made(48, 0), made(12, 1000), options)}
    if options.media:
        clips = [frames for _, frames in real(options.media)]
        results["real"] = measure("real", clips[::2], clips[1::2], options)
    if options.save:
        options.save.write_text(json.dumps(vars(options) | results, indent=1, default=str) + "\n")


if __name__ == "__main__":
    main()
