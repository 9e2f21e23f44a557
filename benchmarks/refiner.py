"""What a small Refiner gains over interpolation, on made and on real clips, dense and sparse.

    python benchmarks/refiner.py [--media FOLDER] [--scale 2] [--steps 400] [--seed 0] [--save FILE]
    python benchmarks/refiner.py --export DIR [--media FOLDER] [--held-out 24] [--seed 1]

One codec is fitted to the training clips, made and real, and one tiny Refiner trained on pairs of
them (`--scale` times smaller, half the rate). The last fifth of its steps is done twice: with dense
attention, and with a third of the key tiles. Then, on clips of files and scenes that it never saw,
PSNR of pixels against the originals:

    decode(Z_up)  the low latents stretched, decoded
    bicubic       the decoded low clip, enlarged by bicubic, frames between blended
    refined       the Refiner's latents, decoded
    codec         the original through the codec: the ceiling

The claims: refined is above decode(Z_up) and bicubic; sparse within .2 dB of dense at about a third
of the attention's cost. Refined takes one step from noise: the mean of what the clip can be, which
is what PSNR asks for. Four steps draw one of them.

With --export nothing is trained: the Refiner is what `reelmill train --curriculum refiner` left,
beside its base model, whose codec is used. --seed tells which clips are made to measure on.

To be trained in minutes, it departs from a Refiner at full size: its tower starts afresh, with
heads that look at neighbours; its head starts at the least squares of the residual; matrices of the
layers are trained by Muon. It predicts the residual about Z_up. Made clips: moving shapes of the
demo corpus. Real ones: files of FOLDER; where it holds truth.json, copies of one clip stay on one
side, and files of rights class C are left out. Nothing but figures is kept.
"""

from __future__ import annotations

import argparse
import copy
import json
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
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
from reelmill.kernels.select import tiles_kept
from reelmill.kernels.tiles import tile_layout
from reelmill.model.codecs.codec import VideoCodec, to_pixels
from reelmill.model.codecs.patch_pca import PatchPCAVideo
from reelmill.model.conditioning import patchify, video_modality, video_velocity
from reelmill.model.config import MMDiTConfig, preset
from reelmill.model.flow import interpolate, shift, target
from reelmill.model.mmdit import MMDiT
from reelmill.model.modality import Text
from reelmill.model.pipeline import Pipeline
from reelmill.model.refiner import (
    RefineOptions,
    given,
    refine,
    refiner_canvas,
    refiner_config,
    upsample,
)

FRAMES, LOW, FPS = 17, 64, 16
TEXT = Text(torch.zeros(1, 1, 64))
DENSE, SPARSE = 0.0, 2 / 3
BATCH, LR, MUON, SHIFT = 4, 2e-4, 0.01, 12.0
NEIGHBOURS = [
    (0, 0, -1), (0, 0, 1), (0, -1, 0), (0, 1, 0), (-1, 0, 0), (1, 0, 0),
    (0, -1, -1), (0, 1, 1), (0, -1, 1), (0, 1, -1), (-1, 0, -1), (1, 0, 1),
    (-1, 0, 1), (1, 0, -1), (-1, -1, 0), (1, 1, 0), (-1, 1, 0), (1, -1, 0),
]  # fmt: skip


def made(count: int, first: int, side: int) -> list[np.ndarray]:
    clips = []
    for seed in range(first, first + count):
        scene = random_scene(seed, seconds=FRAMES / FPS + 0.1, size=(side, side))
        clips.append(render_scene(scene, FPS)[:FRAMES])
    return clips


def groups(folder: Path) -> list[list[Path]]:
    """Files of the folder that may be looked at; copies of one clip together."""
    paths = sorted(p for p in folder.rglob("*") if p.is_file())
    told: dict[str, tuple[str, str]] = {}
    if (folder / "truth.json").is_file():
        for row in json.loads((folder / "truth.json").read_text("utf-8")):
            name = row["truth"].get("duplicate_group") or row["path"]
            told[row["path"]] = str(name), row.get("rights_class", "")
    found: dict[str, list[Path]] = {}
    for path in paths:
        name, rights = told.get(path.relative_to(folder).as_posix(), (path.name, ""))
        if rights != "C":
            found.setdefault(name, []).append(path)
    return list(found.values())


def windows(path: Path, side: int, places: tuple[float, ...]) -> list[np.ndarray]:
    """Square clips from these places of a video; none of one that is short, small or flat."""
    found = []
    try:
        info = probe(path)
        seconds, video = info.seconds or 0.0, info.video
        if info.kind != Kind.VIDEO or video is None or not 2 <= seconds <= 120:
            return []
        if min(video.width, video.height) < side:
            return []
        height = max(side, -(-side * video.height // video.width))
        for place in places:
            start = video.start_s + place * (seconds - FRAMES / FPS)
            first, last = (round(Fraction(s) / video.time_base) for s in (start, start + 1.2))
            clip = Clip(path.name, Kind.VIDEO, first, last, video.time_base, first, 0, 0)
            frames = clip_frames(path, info, clip, FPS, height + height % 2)[:FRAMES]
            top, left = (frames.shape[1] - side) // 2, (frames.shape[2] - side) // 2
            cut = frames[:, top : top + side, left : left + side]
            if cut.shape == (FRAMES, side, side, 3) and cut.std() > 8:
                found.append(np.ascontiguousarray(cut))
    except ReelmillError:
        return []
    return found


def real(folder: Path, side: int, third: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Clips to train on, several of a file, and one of each file of a third to measure on."""
    training: list[np.ndarray] = []
    held_out: list[np.ndarray] = []
    turn = 0
    for paths in groups(folder):
        clips = windows(paths[0], side, (0.5,))
        if not clips:
            continue
        if turn % 3 == third:
            held_out += clips
        else:
            training += clips
            for path in paths:
                training += windows(path, side, (0.1, 0.9))
        turn += 1
    return training, held_out


def smaller(pixels: Tensor, scale: int) -> Tensor:
    """[1, 3, F, H, W] -> every second frame, `scale` times smaller."""
    flat = pixels[0, :, ::2].transpose(0, 1)
    size = [pixels.shape[3] // scale, pixels.shape[4] // scale]
    small = F.interpolate(flat, size, mode="bicubic", antialias=True).clamp(-1, 1)
    return small.transpose(0, 1)[None]


def bicubic(low: Tensor, side: int) -> Tensor:
    flat = F.interpolate(low[0].transpose(0, 1), [side, side], mode="bicubic").clamp(-1, 1)
    out = flat.new_empty(2 * len(flat) - 1, *flat.shape[1:])
    out[::2], out[1::2] = flat, (flat[1:] + flat[:-1]) / 2
    return out.transpose(0, 1)[None]


def psnr(a: Tensor, b: Tensor) -> float:
    error = (((a.clamp(-1, 1) - b) / 2) ** 2).mean().item()
    return float(-10 * np.log10(max(error, 1e-12)))


def tempered(codec: PatchPCAVideo) -> PatchPCAVideo:
    """Latents half-way between whitened and not, as `reelmill encode` stores them."""
    parts = (codec.first, codec.rest)
    first, rest = (replace(c, scale=(c.scale * c.scale.mean()).sqrt()) for c in parts)
    return replace(codec, first=first, rest=rest)


def config(channels: int, scale: int) -> MMDiTConfig:
    """Two blocks of 256; a token is the picture of one low latent."""
    base = preset("tiny", video_channels=channels, text_dim=64)
    video = replace(
        base.video,
        dim=256,
        heads=16,
        ffn=1024,
        patch=(1, scale, scale),
        rope_dims=(),
        rope_theta=4.0,
    )
    base = replace(base, video=replace(video, predicts="residual"), audio=None)
    return refiner_config(base)


@torch.no_grad()
def begin(model: MMDiT) -> None:
    """Heads that look at one neighbour each; no sight of noise and time at first."""
    c, video = model.config.video, model.video
    video.inp.weight.view(c.dim, -1, c.in_ch)[..., : c.out_ch] = 0
    video.inp.bias.copy_(3 * torch.randn(c.dim))  # keeps LayerNorm from taking away contrast
    assert video.keyframe is not None
    assert video.time_six is not None
    video.keyframe.copy_(4 * torch.randn(c.dim))
    video.time_six.weight.zero_()
    video.time[2].weight.zero_()
    rates = torch.cat([c.rope_theta ** -(torch.arange(0, d, 2) / d) for d in c.rope_dims])
    axis = torch.cat([torch.full((d // 2,), i) for i, d in enumerate(c.rope_dims)])
    number = 0
    for layer in model.layers:
        stream = layer.video.x
        stream.adaln.table[[2, 5]] = 0.7
        stream.qk_norm.q.weight.fill_(4)
        stream.qk_norm.k.weight.fill_(4)
        q, k = (stream.qkv.bias[j * c.dim : (j + 1) * c.dim].view(c.heads, -1, 2) for j in (0, 1))
        for head in range(c.heads):
            offset = torch.tensor(NEIGHBOURS[number % len(NEIGHBOURS)], dtype=torch.float32)
            angle = offset[axis] * rates
            q[head] = 2 * torch.stack((angle.cos(), angle.sin()), -1)
            k[head] = torch.tensor([2.0, 0.0])
            number += 1


Pairs = list[tuple[Tensor, Tensor]]


@torch.no_grad()
def fit_head(model: MMDiT, pairs: Pairs) -> None:
    """The head's least squares: from its input at pure noise to the residual about Z_up."""
    seen: dict[str, Tensor] = {}
    hook = model.video.head.register_forward_pre_hook(lambda _, x: seen.update(x=x[0]))
    patch = model.config.video.patch
    a = b = torch.zeros(())
    for z0, low in pairs:
        known = upsample(low, *z0.shape[3:])
        predict(model, torch.randn_like(z0), torch.zeros(1), known, DENSE)
        grid = tuple(n // p for n, p in zip(z0.shape[2:], patch, strict=True))
        y = patchify(z0 - known, patch)[0][tile_layout(grid, prefix=(0,)).perm].double()
        x = F.pad(seen["x"][0].double(), (0, 1), value=1.0)
        a, b = a + x.T @ x, b + x.T @ y
    hook.remove()
    w = torch.linalg.solve(a + 30 * torch.eye(len(a), dtype=torch.float64), b).float()
    model.video.head.weight.copy_(w[:-1].T)
    model.video.head.bias.copy_(w[-1])


def predict(model: MMDiT, z: Tensor, t: Tensor, known: Tensor, share: float) -> Tensor:
    mask, text = torch.zeros_like(z[:, :1]), Text(TEXT.tokens.expand(len(z), -1, -1))
    m = video_modality(model.config, z, t, known, mask, marked=given(known))
    out, _ = model(m, None, text, sparsity=[share] * len(model.layers))
    assert out is not None
    return video_velocity(model.config, out, z.shape[2:])


@dataclass
class Training:
    """Flow matching on pairs; the rates fall as half a cosine over `steps`."""

    model: MMDiT
    pairs: Pairs
    steps: int
    seed: int

    def __post_init__(self) -> None:
        inner = {n for n, p in self.model.named_parameters() if p.ndim == 2 and ".table" not in n}
        inner = {n for n in inner if n.startswith("layers.")}
        named = list(self.model.named_parameters())
        others = [p for n, p in named if n not in inner]
        self.adam = torch.optim.AdamW(others, lr=LR, betas=(0.9, 0.95), weight_decay=0.01)
        matrices = [p for n, p in named if n in inner]
        self.muon = torch.optim.Muon(matrices, lr=MUON, momentum=0.95, weight_decay=0.01)
        self.draw = np.random.default_rng(self.seed)

    def run(self, first: int, last: int, share: float) -> None:
        model, draw = self.model.train(), self.draw
        for step in range(first, last):
            part = min(1, (step + 1) / 20) * (
                0.05 + 0.475 * (1 + np.cos(np.pi * step / self.steps))
            )
            for optimizer, rate in ((self.adam, LR), (self.muon, MUON)):
                for group in optimizer.param_groups:
                    group["lr"] = rate * part
            chosen = draw.integers(0, len(self.pairs), BATCH)
            z0, low = (torch.cat([self.pairs[i][j] for i in chosen]) for j in (0, 1))
            t = shift(torch.from_numpy(draw.random(BATCH)).float(), SHIFT)
            eps = torch.from_numpy(draw.standard_normal(z0.shape)).float()
            known = upsample(low, *z0.shape[3:])
            v = predict(model, interpolate(z0, eps, t), t, known, share)
            weight = ((1 - t) / 0.3).clamp(0, 1).square()
            loss = ((v - target(z0, eps)).square().flatten(1).mean(1) * weight).mean()
            model.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            self.adam.step()
            self.muon.step()
            if (step + 1) % 50 == 0:
                print(f"step {step + 1}: loss {loss.item():.3f}", flush=True)
        model.eval()


def kept(latents: Tensor, patch: tuple[int, ...], share: float) -> float:
    """Share of query-key pairs that sparse attention computes, fine and coarse."""
    layout = tile_layout([n // p for n, p in zip(latents.shape[2:], patch, strict=True)])
    return tiles_kept(share, layout.tiles) / layout.tiles + (layout.tiles / layout.tokens) ** 2


def once(share: float) -> RefineOptions:
    return RefineOptions(steps=1, strength=1.0, sparsity=share)


def interval(gains: np.ndarray) -> tuple[float, float]:
    """95 % of the means of clips drawn again from these."""
    draws = np.random.default_rng(0).integers(0, len(gains), (2000, len(gains)))
    low, high = np.percentile(gains[draws].mean(1), (2.5, 97.5))
    return float(low), float(high)


def measure(
    clips: dict[str, list[np.ndarray]],
    pair: Callable[[np.ndarray], tuple[Tensor, Tensor, Tensor]],
    codec: VideoCodec,
    models: dict[str, tuple[MMDiT, RefineOptions]],
    text: Text = TEXT,
) -> dict[str, dict[str, object]]:
    rows: dict[str, dict[str, object]] = {}
    for name, held_out in clips.items():
        found: dict[str, list[float]] = {}
        for i, frames in enumerate(held_out):
            high, low, pixels = pair(frames)
            canvas = refiner_canvas(low, *high.shape[3:])
            shown = {
                "codec": codec.decode(high),
                "decode(Z_up)": codec.decode(canvas.known),
                "bicubic": bicubic(codec.decode(low), pixels.shape[3]),
            }
            for way, (model, how) in models.items():
                start = replace(canvas, source=canvas.known if how.strength < 1 else None)
                start = replace(start, strength=how.strength)
                z = refine(model, text, start, seeds=[i], options=how)
                shown[f"refined, {way}"] = codec.decode(z)
            for key, made_pixels in shown.items():
                found.setdefault(key, []).append(psnr(made_pixels, pixels))
        means = {key: float(np.mean(values)) for key, values in found.items()}
        rows[name] = {**means, "clips": found}
        print(f"\n{name}: {len(held_out)} clips held out")
        for key, value in sorted(means.items(), key=lambda item: item[1]):
            print(f"  {key:26} {value:6.2f} dB")
        for baseline in ("decode(Z_up)", "bicubic"):
            for way in models:
                gain = np.array(found[f"refined, {way}"]) - np.array(found[baseline])
                low, high = interval(gain)
                rows[name][f"{way} above {baseline}"] = float((gain > 0).mean())
                rows[name][f"{way} over {baseline}"] = [float(gain.mean()), low, high]
                print(
                    f"  {way}, over {baseline}: {gain.mean():+.2f} dB (95 % {low:+.2f} to "
                    f"{high:+.2f}; median {np.median(gain):+.2f}), "
                    f"above on {(gain > 0).mean():.0%} of the clips"
                )
    return rows


def measure_export(options: argparse.Namespace, side: int) -> None:
    pipeline = Pipeline.load(options.export)
    assert pipeline.refiner is not None
    codec = pipeline.video_codec
    held_out = {"made": made(options.held_out, 10_000 * options.seed + 1000, side)}
    if options.media:
        held_out["real"] = real(options.media, side, (2 + options.seed) % 3)[1]

    def pair(frames: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
        pixels = to_pixels(frames)
        return codec.encode(pixels), codec.encode(smaller(pixels, options.scale)), pixels

    ways = {
        "dense": once(DENSE),
        "sparse": once(SPARSE),
        "sparse, 4 steps": replace(once(SPARSE), steps=4),
        "as generate does": RefineOptions(),
    }
    models = {name: (pipeline.refiner, how) for name, how in ways.items()}
    results = measure(held_out, pair, codec, models, pipeline.encoder.encode([""]))
    if options.save:
        options.save.write_text(json.dumps({"psnr": results}, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--media", type=Path, help="folder of real clips")
    parser.add_argument("--scale", type=int, default=2, choices=(2, 4), help="how many times")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--made", type=int, default=72, help="made clips to train on")
    parser.add_argument("--channels", type=int, default=16, help="of the codec; Wan has 16")
    parser.add_argument("--held-out", type=int, default=12, help="made clips to measure on")
    parser.add_argument("--seed", type=int, default=0, help="of clips, their split and the model")
    parser.add_argument("--export", type=Path, help="a model with a Refiner, to be measured")
    parser.add_argument("--save", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(options.seed)
    side = LOW * options.scale
    if options.export:
        measure_export(options, side)
        return
    print(
        f"{platform.machine()}, torch {torch.__version__}, 1 thread; {options.scale} x "
        f"{options.scale} x 2 to {side} x {side}, {FRAMES} frames, {options.steps} steps, "
        f"seed {options.seed}"
    )
    first = 10_000 * options.seed
    training = made(options.made, first, side)
    held_out = {"made": made(options.held_out, first + 1000, side)}
    if options.media:
        filmed, held_out["real"] = real(options.media, side, (2 + options.seed) % 3)
        print(f"{len(training)} made and {len(filmed)} real clips to train on, and mirrored")
        training += filmed
    codec = tempered(PatchPCAVideo.fit(training, channels=options.channels))

    def pair(frames: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
        pixels = to_pixels(frames)
        return codec.encode(pixels), codec.encode(smaller(pixels, options.scale)), pixels

    both = (g for f in training for g in (f, np.ascontiguousarray(f[:, :, ::-1])))
    pairs = [pair(frames)[:2] for frames in both]
    began = time.process_time()
    model = MMDiT(config(codec.channels, options.scale))
    begin(model)
    fit_head(model, pairs)
    run, fork = Training(model, pairs, options.steps, options.seed), round(0.8 * options.steps)
    start = copy.deepcopy(model).eval()
    run.run(0, fork, DENSE)
    other = copy.deepcopy(run)
    run.run(fork, options.steps, DENSE)
    other.run(fork, options.steps, SPARSE)
    spent = time.process_time() - began
    models = {
        "before training": (start, once(DENSE)),
        "dense": (run.model, once(DENSE)),
        "sparse": (other.model, once(SPARSE)),
        "sparse, 4 steps": (other.model, replace(once(SPARSE), steps=4)),
    }
    results = measure(held_out, pair, codec, models)
    cost = kept(pairs[0][0], model.config.video.patch, SPARSE)
    print(f"\nsparse attention computes {cost:.2f} of dense attention's pairs")
    print(f"{spent:.0f} CPU seconds of training, {sum(p.numel() for p in model.parameters()):,}")
    if options.save:
        told = vars(options) | {"psnr": results, "attention_cost": cost, "cpu_seconds": spent}
        told |= {"torch": torch.__version__, "machine": platform.machine()}
        options.save.write_text(json.dumps(told, indent=1, default=str) + "\n")


if __name__ == "__main__":
    main()
