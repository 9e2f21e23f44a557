"""The objective: flow matching on both modalities, with randomness keyed by (seed, step, slot).

`z_t = t z_0 + (1 - t) eps`, target `z_0 - eps`, t = 1 is data (paper section 3.1). A sample's time,
noise and caption dropout depend on nothing but the seed, the step and its slot in the global
batch, so a run is the same at any world size and needs no generator state in checkpoints.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from torch import Tensor

from reelmill.datasets.loader import Batch
from reelmill.errors import DatasetError
from reelmill.model.conditioning import (
    Keyframes,
    audio_modality,
    audio_velocity,
    keyframe_velocity,
    video_modality,
    video_velocity,
)
from reelmill.model.config import MMDiTConfig
from reelmill.model.flow import interpolate, shift, target
from reelmill.model.mmdit import MMDiT
from reelmill.model.modality import Text
from reelmill.model.positions import keyframe_indices
from reelmill.model.refiner import given, upsample
from reelmill.model.sparse import Shares
from reelmill.training.curriculum import Objective
from reelmill.training.regions import prefix, region
from reelmill.training.tasks import TASKS, Task, condition, known_mask

KEYFRAME_SHARE = 0.5  # of a Refiner's samples whose Z_up has keyframes
REFERENCE_FRAMES = 3  # latents of a reference clip
HEARD = 16  # latents of a reference sound: .37 s of the demo's codec
KEYFRAME_NOISE = 0.1  # at most, over them: they are predictions of the base model, not truth
_TRAIN, _HELD_OUT = 0x7472_6169_6E, 0x6865_6C64  # second half of the Philox key: the stream


@dataclass(frozen=True)
class Draws:
    """Random numbers of a batch. t: [b]; noise like the latents; drop_text: bool [b].

    keyframes: bool [b, T], latent frames of Z_up that are keyframes; keyframe_noise: what is added
    to them, like the latents. None without low latents. other: noise like Batch.other. known: bool
    [b, 1, T, h, w] of a task that draws what is given, else None.
    """

    t: Tensor
    video: Tensor
    audio: Tensor | None
    drop_text: Tensor
    keyframes: Tensor | None = None
    keyframe_noise: Tensor | None = None
    other: Tensor | None = None
    known: Tensor | None = None

    def to(self, device: torch.device, dtype: torch.dtype) -> Draws:
        """The same on a device, its numbers in a precision."""
        found: dict[str, Tensor | None] = {f.name: getattr(self, f.name) for f in fields(self)}
        moved = {
            name: x.to(device, dtype if x.is_floating_point() else x.dtype)
            for name, x in found.items()
            if x is not None
        }
        return replace(self, **moved)


@dataclass(frozen=True)
class Losses:
    """total: the scalar that is minimised. video, audio: mean squared error per sample [b]."""

    total: Tensor
    video: Tensor | None
    audio: Tensor | None
    t: Tensor


def draw(seed: int, step: int, batch: Batch, config: Objective) -> Draws:
    """Random numbers for the slots of a batch of a training step."""
    u, drop, video, audio = _numbers(seed, _TRAIN, step, batch)
    rest = (*_keyframes(seed, _TRAIN, step, batch), *_pairs_and_regions(seed, _TRAIN, step, batch))
    return Draws(shift(u, config.shift), video, audio, drop < config.text_dropout, *rest)


def held_out_draw(batch: Batch, of: int) -> Draws:
    """The random numbers of held-out losses: never another, with times spread evenly over (0, 1).

    of: how many slots there are in all batches of this validation.
    """
    _, _, video, audio = _numbers(0, _HELD_OUT, 0, batch)
    t = torch.from_numpy((batch.slots + 0.5) / of).float()
    rest = (*_keyframes(0, _HELD_OUT, 0, batch), *_pairs_and_regions(0, _HELD_OUT, 0, batch))
    return Draws(t, video, audio, torch.zeros(len(t), dtype=torch.bool), *rest)


def _numbers(
    seed: int, stream: int, step: int, batch: Batch
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Two uniform numbers per sample, and noise like the latents."""
    uniform, video, audio = [], [], []
    for slot in batch.slots:
        key = np.array([seed, stream], dtype=np.uint64)
        random = np.random.Generator(np.random.Philox(key=key, counter=[0, 0, int(slot), step]))
        uniform.append(random.random(2))
        video.append(random.standard_normal(batch.video.shape[1:], dtype=np.float32))
        if batch.audio is not None:
            audio.append(random.standard_normal(batch.audio.shape[1:], dtype=np.float32))
    both = torch.from_numpy(np.stack(uniform))
    noise = torch.from_numpy(np.stack(audio)) if audio else None
    return both[:, 0].float(), both[:, 1], torch.from_numpy(np.stack(video)), noise


def _keyframes(
    seed: int, stream: int, step: int, batch: Batch
) -> tuple[Tensor | None, Tensor | None]:
    """Which latent frames are keyframes, and their noise: frames 0, n, 2 n, ... and the last of the
    low rate, as the base model makes them (M13), n drawn for each sample."""
    if batch.low is None:
        return None, None
    chosen = np.zeros((len(batch.slots), batch.video.shape[2]), np.bool_)
    noise = np.empty_like(batch.video, dtype=np.float32)
    for i, slot in enumerate(batch.slots):
        key = np.array([seed, stream], dtype=np.uint64)
        random = np.random.Generator(np.random.Philox(key=key, counter=[0, 1, int(slot), step]))
        has, level = random.random(2)
        if has < KEYFRAME_SHARE:
            chosen[i, :: 2 * int(random.integers(1, batch.low.shape[2] + 1))] = True
            chosen[i, -1] = True
        noise[i] = KEYFRAME_NOISE * level * random.standard_normal(noise.shape[1:], np.float32)
    return torch.from_numpy(chosen), torch.from_numpy(noise)


def _pairs_and_regions(
    seed: int, stream: int, step: int, batch: Batch
) -> tuple[Tensor | None, Tensor | None]:
    """Noise for what goes with each sample where it is to be made, and what of it is given."""
    task = TASKS.get(batch.task)
    if task is None:
        return None, None
    noise, known = [], []
    for slot in batch.slots:
        key = np.array([seed, stream], dtype=np.uint64)
        random = np.random.Generator(np.random.Philox(key=key, counter=[0, 2, int(slot), step]))
        if task.keyframes and batch.other is not None:
            noise.append(random.standard_normal(batch.other.shape[1:], np.float32))
        if task.known == "prefix":
            known.append(
                np.broadcast_to(
                    prefix(batch.video.shape[2], random)[:, None, None], batch.video.shape[2:]
                )
            )
        elif task.known == "region":
            frames, height, width = batch.video.shape[2:]
            known.append(region(frames, height, width, random))
    return (
        torch.from_numpy(np.stack(noise)) if noise else None,
        torch.from_numpy(np.stack(known)[:, None]) if known else None,
    )


def flow_loss(
    model: MMDiT,
    task: Task,
    batch: Batch,
    draws: Draws,
    config: Objective,
    constants: Mapping[str, Tensor],
    sparsity: Shares | None = None,
    bf16: bool = False,
) -> Losses:
    """Loss of one batch of one task.

    constants: `null_text` and `black.<F>x<H>x<W>` of the latents. sparsity: as of MMDiT.forward.
    bf16: matrix products in bfloat16 (autocast), weights and loss as they are. A clean modality is
    given at t = 1 and has no loss; the loss of a target counts known latents too, as in the paper's
    equation 6.
    """
    first = next(model.parameters())
    home = first.device, first.dtype
    draws = draws.to(*home)
    z0, sound = torch.from_numpy(batch.video).to(*home), None
    if batch.audio is not None:
        sound = torch.from_numpy(batch.audio).to(*home)
    if task.audio != "absent" and sound is None:
        raise DatasetError(f"task {task.name!r} needs sound, which {batch.keys[0]} has none of.")
    clean = torch.ones_like(draws.t)
    video = audio = None
    if task.video != "absent":
        mask, marked = known_mask(task, z0, draws.known), None
        t = clean if task.video == "clean" else draws.t
        if task.known == "low":
            if batch.low is None:
                raise DatasetError(f"task {task.name!r} needs latents encoded with --low.")
            known = upsample(torch.from_numpy(batch.low).to(*home), z0.shape[3], z0.shape[4])
            marked = given(known)
            if draws.keyframes is not None and draws.keyframe_noise is not None:
                keyframe = draws.keyframes[:, None, :, None, None]
                known = torch.where(keyframe, z0 + draws.keyframe_noise, known)
        else:
            known = condition(z0, mask, constants[black_key(batch)].to(z0.device))
        noisy = interpolate(z0, draws.video, t)
        references, keyframes = (
            _reference(task, batch, z0),
            _large(model.config, task, batch, draws),
        )
        video = video_modality(
            model.config,
            noisy,
            t,
            known,
            mask,
            references,
            None if keyframes is None else _keyframe_tokens(keyframes, batch, constants),
            marked,
        )
    if task.audio != "absent":
        assert sound is not None
        assert draws.audio is not None
        t = clean if task.audio == "clean" else draws.t
        noisy = interpolate(sound, draws.audio, t)
        heard = batch.other_audio[..., :HEARD] if batch.other_audio is not None else None
        stretch = torch.from_numpy(heard).to(*home) if task.heard and heard is not None else None
        audio = audio_modality(model.config, noisy, t, z0.shape[2], stretch)
    inputs = (video, audio, make_text(batch, draws.drop_text, constants["null_text"].to(*home)))
    with torch.autocast(z0.device.type, torch.bfloat16, enabled=bf16):
        out = model(*inputs, sparsity=sparsity)
    total = z0.new_zeros(())
    video_loss = audio_loss = None
    if task.video == "target":
        behind = 0
        if keyframes is not None:
            behind = keyframes.tokens(model.config)
            size = keyframes.z0.shape[2:]
            velocity = keyframe_velocity(model.config, out[0][:, -behind:], size)
            large = (velocity - target(keyframes.z0, keyframes.noise)).square().flatten(1).mean(1)
        velocity = video_velocity(model.config, out[0], z0.shape[2:], behind)
        video_loss = (velocity - target(z0, draws.video)).square().flatten(1).mean(1)
        video_loss = video_loss if keyframes is None else video_loss + large
        video_loss = video_loss * weight(draws.t, config.video_floor)
        total = total + config.video_weight * video_loss.mean()
        video_loss = video_loss.detach()
    if task.audio == "target":
        assert sound is not None
        assert draws.audio is not None
        velocity = audio_velocity(out[1], sound.shape[2])
        audio_loss = (velocity - target(sound, draws.audio)).square().flatten(1).mean(1)
        total = total + config.audio_weight * audio_loss.mean()
        audio_loss = audio_loss.detach()
    return Losses(total, video_loss, audio_loss, draws.t)


@dataclass(frozen=True)
class _Large:
    """Keyframes of a batch: their latent frames, clean latents [b, C, K, H, W] and noise, and t."""

    frames: tuple[int, ...]
    z0: Tensor
    noise: Tensor
    t: Tensor

    def tokens(self, config: MMDiTConfig) -> int:
        return math.prod(self.z0.shape[2:]) // math.prod(config.video.patch)


def _large(config: MMDiTConfig, task: Task, batch: Batch, draws: Draws) -> _Large | None:
    """What the keyframes of a task are made from: as many as have no more tokens than the video."""
    if not task.keyframes:
        return None
    if batch.other is None or draws.other is None:
        raise DatasetError(
            f"task {task.name!r} needs the clips at a larger size too: encode with --also WxH."
        )
    plane = math.prod(config.video.patch[1:])
    cells = [math.prod(z.shape[3:]) // plane for z in (batch.video, batch.other)]
    chosen = keyframe_indices(batch.video.shape[2], *cells)
    z0 = torch.from_numpy(batch.other)[:, :, list(chosen)].to(draws.other)
    return _Large(chosen, z0, draws.other[:, :, list(chosen)], draws.t)


def _keyframe_tokens(large: _Large, batch: Batch, constants: Mapping[str, Tensor]) -> Keyframes:
    """Noisy, with nothing given: I is the black clip's, M is 0."""
    meta, (h, w) = batch.meta[0], batch.video.shape[3:]
    height, width = meta["height"] * large.z0.shape[3] // h, meta["width"] * large.z0.shape[4] // w
    black = constants[f"black.{meta['frames']}x{height}x{width}"][:, list(large.frames)]
    black = black.to(large.z0)
    return Keyframes(
        large.frames,
        interpolate(large.z0, large.noise, large.t),
        black.expand_as(large.z0),
        torch.zeros_like(large.z0[:, :1]),
    )


def _reference(task: Task, batch: Batch, like: Tensor) -> Tensor | None:
    if task.reference == "none":
        return None
    if batch.other is None or (task.heard and batch.other_audio is None):
        raise DatasetError(
            f"task {task.name!r} needs other moments of its clips: encode longer ones, or with a "
            "smaller --stride."
        )
    frames = 1 if task.reference == "image" else REFERENCE_FRAMES
    return torch.from_numpy(batch.other[:, :, :frames]).to(like)


def weight(t: Tensor, floor: float) -> Tensor:
    """Of a squared error of velocity at times t: 1, and ((1 - t) / floor)^2 below the floor."""
    return ((1 - t) / max(floor, 1e-9)).clamp(0, 1).square() if floor else torch.ones_like(t)


def black_key(batch: Batch) -> str:
    """Name of the black clip's latents that fit a batch."""
    meta = batch.meta[0]
    return f"black.{meta['frames']}x{meta['height']}x{meta['width']}"


def make_text(batch: Batch, drop: Tensor, null: Tensor) -> Text:
    """The batch's captions, those to be dropped replaced by what an empty caption becomes."""
    if batch.text is None or batch.text_mask is None:
        raise DatasetError(
            f"sample {batch.keys[0]} has no text embedding: encode the shards again."
        )
    tokens = torch.from_numpy(batch.text).to(null)
    mask = torch.from_numpy(batch.text_mask).to(null.device)
    pairs = zip(tokens, mask, drop.tolist(), strict=True)
    return Text.stack([null if dropped else text[m] for text, m, dropped in pairs])
