"""The objective: flow matching on both modalities, with randomness keyed by (seed, step, slot).

`z_t = t z_0 + (1 - t) eps`, target `z_0 - eps`, t = 1 is data (paper section 3.1). A sample's time,
noise and caption dropout depend on nothing but the seed, the step and its slot in the global
batch, so a run is the same at any world size and needs no generator state in checkpoints.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from torch import Tensor

from reelmill.datasets.loader import Batch
from reelmill.errors import DatasetError
from reelmill.model.conditioning import (
    audio_modality,
    audio_velocity,
    video_modality,
    video_velocity,
)
from reelmill.model.flow import interpolate, shift, target
from reelmill.model.mmdit import MMDiT
from reelmill.model.modality import Text
from reelmill.model.refiner import given, upsample
from reelmill.model.sparse import Shares
from reelmill.training.curriculum import Objective
from reelmill.training.tasks import Task, condition, known_mask

KEYFRAME_SHARE = 0.5  # of a Refiner's samples whose Z_up has keyframes
KEYFRAME_NOISE = 0.1  # at most, over them: they are predictions of the base model, not truth
_TRAIN, _HELD_OUT = 0x7472_6169_6E, 0x6865_6C64  # second half of the Philox key: the stream


@dataclass(frozen=True)
class Draws:
    """Random numbers of a batch. t: [b]; noise like the latents; drop_text: bool [b].

    keyframes: bool [b, T], latent frames of Z_up that are keyframes; keyframe_noise: what is added
    to them, like the latents. None without low latents.
    """

    t: Tensor
    video: Tensor
    audio: Tensor | None
    drop_text: Tensor
    keyframes: Tensor | None = None
    keyframe_noise: Tensor | None = None

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
    keyframes = _keyframes(seed, _TRAIN, step, batch)
    return Draws(shift(u, config.shift), video, audio, drop < config.text_dropout, *keyframes)


def held_out_draw(batch: Batch, of: int) -> Draws:
    """The random numbers of held-out losses: never another, with times spread evenly over (0, 1).

    of: how many slots there are in all batches of this validation.
    """
    _, _, video, audio = _numbers(0, _HELD_OUT, 0, batch)
    t = torch.from_numpy((batch.slots + 0.5) / of).float()
    keyframes = _keyframes(0, _HELD_OUT, 0, batch)
    return Draws(t, video, audio, torch.zeros(len(t), dtype=torch.bool), *keyframes)


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
        mask, marked = known_mask(task, z0), None
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
        video = video_modality(model.config, noisy, t, known, mask, marked=marked)
    if task.audio != "absent":
        assert sound is not None
        assert draws.audio is not None
        t = clean if task.audio == "clean" else draws.t
        noisy = interpolate(sound, draws.audio, t)
        audio = audio_modality(model.config, noisy, t, z0.shape[2])
    inputs = (video, audio, make_text(batch, draws.drop_text, constants["null_text"].to(*home)))
    with torch.autocast(z0.device.type, torch.bfloat16, enabled=bf16):
        out = model(*inputs, sparsity=sparsity)
    total = z0.new_zeros(())
    video_loss = audio_loss = None
    if task.video == "target":
        velocity = video_velocity(model.config, out[0], z0.shape[2:])
        video_loss = (velocity - target(z0, draws.video)).square().flatten(1).mean(1)
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
