"""Diffusion forcing: every latent frame has its own time (Chen et al., 2024; SkyReels-V2 4.3).

Early frames run ahead of later ones; those that are done are history for the rest, so that a video
may be longer than what the model looks at.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from reelmill.errors import PromptError
from reelmill.model.flow import interpolate
from reelmill.model.guidance import NO_GUIDANCE, NO_TEXT, Guider
from reelmill.model.mmdit import MMDiT
from reelmill.model.modality import Text
from reelmill.model.sampler import Run, VideoCanvas, noise, schedule
from reelmill.model.solvers import EULER, Solver


@dataclass(frozen=True)
class Forcing:
    """lag: steps by which a block is ahead of the next one; 0 makes all frames step together
    (SkyReels-V2's asynchronous default is 5). block: latent frames that step together. window:
    latent frames that the model sees at once; None, all. history_noise: share of noise over
    frames that were given (SkyReels-V2: 20 of 1000)."""

    lag: int = 0
    block: int = 1
    window: int | None = None
    history_noise: float = 0.0


class Matrix(NamedTuple):
    """done: int64 [rows, frames], how many steps a frame has made after each row. update: bool
    [rows, frames], whether it makes one in this row. spans: the frames that the model sees."""

    done: Tensor
    update: Tensor
    spans: list[tuple[int, int]]


def schedule_matrix(
    frames: int,
    steps: int,
    lag: int = 0,
    *,
    ready: int = 0,
    block: int = 1,
    window: int | None = None,
) -> Matrix:
    """SkyReels-V2's asynchronous schedule: steps + (blocks - 1) * lag rows (a lag above steps
    counts as steps), in each of which noise does not fall from one frame to the next.

    ready: frames at the start that are given. Raises PromptError for numbers of frames that are no
    multiple of `block`, and for a lag too short for the window.
    """
    window = frames if window is None else min(window, frames)
    if block < 1 or lag < 0 or frames % block or window % block or window < 1:
        raise PromptError(
            f"{frames} latent frames, {window} of them seen at once, in blocks of {block}, lag "
            f"{lag}: frames and window must be multiples of the block."
        )
    blocks, seen = frames // block, window // block
    if seen < blocks and lag * seen < steps:
        raise PromptError(
            f"lag {lag}: {steps} steps in a window of {window} of {frames} latent frames need a "
            f"lag of {math.ceil(steps / seen)} or more."
        )
    row = [steps] * (ready // block) + [0] * (blocks - ready // block)
    done, update, spans = [], [], []
    end = seen
    while min(row) < steps:
        before, row = row, []
        for i, count in enumerate(before):
            follows = i > 0 and before[i - 1] < steps
            row.append(row[-1] - lag if follows else count + 1)
        row = [min(max(count, 0), steps) for count in row]
        moved = [b < a for b, a in zip(before, row, strict=True)]
        if end < blocks and moved[end]:
            end += 1
        done.append(row)
        update.append(moved)
        spans.append((max(end - seen, 0) * block, end * block))
    shape = (len(done), blocks)
    return Matrix(
        torch.tensor(done, dtype=torch.int64).reshape(shape).repeat_interleave(block, 1),
        torch.tensor(update, dtype=torch.bool).reshape(shape).repeat_interleave(block, 1),
        spans,
    )


@torch.no_grad()
def force(
    model: MMDiT,
    text: Text,
    video: VideoCanvas,
    forcing: Forcing,
    *,
    seeds: Sequence[int],
    null: Text | None = None,
    steps: int = 50,
    s: float = 8.0,
    solver: Solver = EULER,
    guider: Guider = NO_GUIDANCE,
    progress: Callable[[int, int], None] | None = None,
) -> Tensor:
    """Video latents [B, C, T, h, w], as `sample` makes them, but with a time per frame.

    Frames at the start that M gives whole are history: they are never changed. Each frame has a
    solver of its own. Guidance and noise are those of `sample`; with lag 0 and no history, so is
    the result. Raises PromptError as `schedule_matrix`, and for Heun's solver, which would need
    each row twice.
    """
    if solver.twice:
        raise PromptError(f"solver {solver.name} cannot be used with a time per frame.")
    if video.held or video.source is not None or video.keyframes is not None:
        raise ValueError("a time per frame is for video that is made from noise")
    run = Run(model, video, None, len(seeds))
    device = next(model.parameters()).device
    branches = guider.plan(("video",), run.references)
    if NO_TEXT in branches and null is None:
        raise ValueError("guidance needs the empty prompt: null=")
    groups = run.groups([b for b in branches if b.av], text, null)
    known, mask = video.known.to(device).float(), video.mask.to(device).bool()
    whole = mask.flatten(3).all(3).all(0)[0].tolist()
    ready = whole.index(False) if False in whole else len(whole)
    ready -= ready % forcing.block
    plan = schedule_matrix(
        known.shape[2],
        steps,
        forcing.lag,
        ready=ready,
        block=forcing.block,
        window=forcing.window,
    )
    times = schedule(steps, s)
    start = noise(seeds, "video", known.shape[1:]).to(device)
    z = start.clone()
    z[:, :, :ready] = interpolate(known, start, 1 - forcing.history_noise)[:, :, :ready]
    memory: list[Any] = [None] * known.shape[2]
    before = torch.zeros_like(plan.done[0]) if len(plan.done) else plan.done.new_zeros(0)
    before[:ready] = steps
    for row, (done, update, (a, b)) in enumerate(zip(*plan, strict=True)):
        t = times[before].float()
        t[:ready] = 1 - forcing.history_noise
        seen = replace(video, known=known[:, :, a:b], mask=mask[:, :, a:b].float())
        run = Run(model, seen, None, len(seeds))
        v = run.guided({"video": z[:, :, a:b]}, t[a:b], groups, guider)["video"]
        for f in update.nonzero().flatten().tolist():
            at, to = times[before[f]].item(), times[done[f]].item()
            here = z[:, :, f].clone()  # solvers remember it
            moved, memory[f] = solver.step(here, v[:, :, f - a], at, to, memory[f])
            given = interpolate(known[:, :, f], start[:, :, f], to)
            z[:, :, f] = torch.where(mask[:, :, f], given, moved)
        before = done
        if progress is not None:
            progress(row + 1, len(plan.done))
    z[:, :, :ready] = known[:, :, :ready]
    return z
