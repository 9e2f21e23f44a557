"""From noise to latents: a solver follows the learned velocity, both modalities in one clock."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import wraps
from typing import Any, NamedTuple, ParamSpec

import torch
from torch import Tensor

from reelmill.kernels.sparsity import SparsitySchedule
from reelmill.model.conditioning import (
    Keyframes,
    audio_modality,
    audio_velocity,
    keyframe_velocity,
    video_modality,
    video_velocity,
)
from reelmill.model.flow import interpolate, shift
from reelmill.model.guidance import FULL, NO_GUIDANCE, NO_TEXT, Branch, Guider
from reelmill.model.mmdit import EncodedText, MMDiT
from reelmill.model.modality import REFERENCE, Modality, Text
from reelmill.model.solvers import EULER, Solver
from reelmill.model.sparse import Shares
from reelmill.model.windows import Box, Windows


@dataclass(frozen=True)
class KeyframeCanvas:
    """Keyframes to make beside a video. frames: indices of K of its latent frames. known, mask: I
    and M in high resolution, [B, C, K, H, W] and [B, 1, K, H, W]."""

    frames: tuple[int, ...]
    known: Tensor
    mask: Tensor


@dataclass(frozen=True)
class VideoCanvas:
    """The video to make. known: I, [B, C, T, h, w]. mask: M, [B, 1, T, h, w]; 1 = given.

    references: clean latents [B, C, n, h, w]. held: the video is `known`, whole and clean (V2A).
    source, strength: latents like `known` to start from, of which noise covers the share strength
    (SDEdit, Meng et al., 2022); sampling begins at t = 1 - strength. marked: bool [T], latent
    frames with the marker of keyframes (refiner.py).
    """

    known: Tensor
    mask: Tensor
    references: Tensor | None = None
    held: bool = False
    source: Tensor | None = None
    strength: float = 1.0
    keyframes: KeyframeCanvas | None = None
    marked: Tensor | None = None

    def part(self, box: Box) -> VideoCanvas:
        """What a window of it goes by. Raises ValueError with references: they have its size."""
        if self.references is not None:
            raise ValueError("windows take no references")
        known, mask = self.known[(..., *box)], self.mask[(..., *box)]
        marked = None if self.marked is None else self.marked[box[0]]
        return replace(self, known=known, mask=mask, source=None, marked=marked)


@dataclass(frozen=True)
class AudioCanvas:
    """The sound to make: `length` tokens beside `latents` latent video frames.

    references: clean latents [B, C, n]. held: the sound itself, [B, C, length], clean (A2V).
    """

    length: int
    latents: int
    references: Tensor | None = None
    held: Tensor | None = None


class Latents(NamedTuple):
    """What was made, float32: video [B, C, T, h, w], audio [B, C, L], keyframes [B, C, K, H, W]."""

    video: Tensor | None
    audio: Tensor | None
    keyframes: Tensor | None


def schedule(steps: int, s: float) -> Tensor:
    """float64 [steps + 1]: times from 0 to 1, moved towards noise by the shift s."""
    return shift(torch.linspace(0, 1, steps + 1, dtype=torch.float64), s)


def noise(seeds: Sequence[int], stream: str, shape: Sequence[int]) -> Tensor:
    """float32 [len(seeds), *shape], each sample from its own seed alone, made on the CPU."""
    samples = []
    for seed in seeds:
        digest = hashlib.sha256(f"{seed}/{stream}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
        samples.append(torch.randn(*shape, generator=generator))
    return torch.stack(samples)


@torch.no_grad()
def denoise(
    model: MMDiT,
    text: Text,
    *,
    video: VideoCanvas | None = None,
    audio: AudioCanvas | None = None,
    seeds: Sequence[int],
    null: Text | None = None,
    null_audio: Text | None = None,
    steps: int = 50,
    s: float = 5.0,
    solver: Solver = EULER,
    guider: Guider = NO_GUIDANCE,
    paste_known: bool = True,
    av: bool = True,
    sparsity: SparsitySchedule | None = None,
    windows: Windows | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Latents:
    """Latents, on the model's device.

    One modality may be None (its tower is not run) or held (given at t = 1 and returned as it is).
    seeds: one per sample; a sample does not depend on what else is in the batch. null: the empty
    or a negative prompt, needed for guidance; null_audio: the audio tower's, where it is another.
    steps, s: steps and shift (Wan 2.1: 50 and 5; 3 at 480p). solver: of solvers.py. paste_known:
    what M gives is put back after every step, and exactly at the end. av: False takes out the
    attention between the towers, to compare. sparsity: of the video's self-attention, by step and
    layer. windows: what is larger is seen in parts (video alone). progress(done, calls): calls of
    the model.
    """
    run = Run(model, video, audio, len(seeds), windows)
    names = run.names
    if not names:
        raise ValueError("nothing to sample: give a canvas that is not held")
    branches = guider.plan(run.modalities, run.references) if av else (FULL,)
    if NO_TEXT in branches and null is None:
        raise ValueError("guidance needs the empty prompt: null=")
    groups = run.groups(branches, text, null, null_audio)
    device = next(model.parameters()).device
    start = {n: noise(seeds, n, run.shape(n)).to(device) for n in names}
    z, times = dict(start), schedule(steps, s).tolist()
    if video is not None and video.source is not None and "video" in z:
        if "audio" in z:
            raise ValueError("a video that starts from a source leaves no time to make sound from")
        first = 1 - video.strength
        times = [first, *(t for t in times if t > first)]
        z["video"] = interpolate(video.source.to(z["video"]), start["video"], first)
    memory: dict[str, Any] = dict.fromkeys(names)
    calls = solver.calls(times)
    for done, (t, t_next) in enumerate(calls):
        if sparsity is not None:
            run.sparsity = [sparsity.sampling(done, i) for i in range(len(model.layers))]
        for n, v in run.guided(z, t, groups, guider, av).items():
            z[n], memory[n] = solver.step(z[n], v, t, t_next, memory[n])
        if paste_known:
            for n, (known, mask) in run.given.items():
                given = interpolate(known.to(z[n]), start[n], t_next)
                z[n] = torch.where(mask.to(device).bool(), given, z[n])
        if progress is not None:
            progress(done + 1, len(calls))
    held_video = video.known.to(device) if video is not None and video.held else None
    held_audio = audio.held.to(device) if audio is not None and audio.held is not None else None
    return Latents(z.get("video", held_video), z.get("audio", held_audio), z.get("keyframes"))


P = ParamSpec("P")


def _pair(run: Callable[P, Latents]) -> Callable[P, tuple[Tensor | None, Tensor | None]]:
    @wraps(run)
    def sample(*args: P.args, **options: P.kwargs) -> tuple[Tensor | None, Tensor | None]:
        latents = run(*args, **options)
        return latents.video, latents.audio

    return sample


sample = _pair(denoise)  # video and audio alone, with the same arguments


@dataclass
class Run:
    """One call of `denoise`: turns latents into tokens, runs the model, and back."""

    model: MMDiT
    video: VideoCanvas | None
    audio: AudioCanvas | None
    batch: int
    windows: Windows | None = None
    sparsity: Shares | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """What is generated: modalities, and `keyframes` beside a video."""
        keyframes = self.video is not None and self.video.keyframes is not None
        if "video" in self.modalities and keyframes:
            return (*self.modalities, "keyframes")
        return self.modalities

    @property
    def modalities(self) -> tuple[str, ...]:
        video = self.video is not None and not self.video.held
        audio = self.audio is not None and self.audio.held is None
        return ("video",) * video + ("audio",) * audio

    @property
    def references(self) -> bool:
        return any(c is not None and c.references is not None for c in (self.video, self.audio))

    @property
    def given(self) -> dict[str, tuple[Tensor, Tensor]]:
        """I and M of what is generated."""
        video = self.video
        if video is None or video.held:
            return {}
        out = {"video": (video.known, video.mask)}
        if video.keyframes is not None:
            out["keyframes"] = (video.keyframes.known, video.keyframes.mask)
        return out

    def shape(self, name: str) -> tuple[int, ...]:
        if name in self.given:
            return tuple(self.given[name][0].shape[1:])
        if self.audio is None or self.model.config.audio is None:
            raise ValueError("this model has no audio tower")
        return self.model.config.audio.out_ch, self.audio.length

    def groups(
        self,
        branches: Sequence[Branch],
        text: Text,
        null: Text | None,
        null_audio: Text | None = None,
    ) -> list[tuple[list[Branch], EncodedText]]:
        """Branches that can share one forward pass, with their prompts one after the other."""
        out = []
        for av in (True, False):
            members = [b for b in branches if b.av == av]
            if members:
                encoded = self.model.encode_text(
                    self._prompts(members, text, null),
                    audio=None if null_audio is None else self._prompts(members, text, null_audio),
                    cache=True,
                )
                out.append((members, encoded))
        return out

    def _prompts(self, members: Sequence[Branch], text: Text, null: Text | None) -> Text:
        prompts = []
        for branch in members:
            some = (text if branch.text or null is None else null).unstack()
            prompts += some * self.batch if len(some) == 1 else some
        return Text.stack(prompts).to(next(self.model.parameters()).device)

    def guided(
        self,
        z: dict[str, Tensor],
        t: float | Tensor,
        groups: Sequence[tuple[list[Branch], EncodedText]],
        guider: Guider,
        av: bool = True,
    ) -> dict[str, Tensor]:
        """The velocities to follow, float32, of everything in z."""
        velocities: dict[str, dict[Branch, Tensor]] = {n: {} for n in z}
        for members, encoded in groups:
            for n, v in self.velocity(z, t, members, encoded, members[0].av and av).items():
                velocities[n] |= zip(members, v.float().chunk(len(members)), strict=True)
        return {n: guider.combine("video" if n == "keyframes" else n, velocities[n]) for n in z}

    def velocity(
        self,
        z: dict[str, Tensor],
        t: float | Tensor,
        members: list[Branch],
        encoded: EncodedText,
        av: bool,
    ) -> dict[str, Tensor]:
        """Velocities of what is generated, [len(members) * B, ...]. t: one time, or [T], a time
        per latent frame."""
        if (
            self.windows is None
            or "video" not in z
            or self.windows.fits(tuple(z["video"].shape[2:]))
        ):
            return self._whole(z, t, members, encoded, av)
        if set(z) != {"video"} or self.audio is not None or isinstance(t, Tensor):
            raise ValueError("windows are for video alone, at one time")

        def part(box: Box) -> Tensor:
            assert self.video is not None
            run = replace(self, video=self.video.part(box), windows=None)
            return run._whole({"video": z["video"][(..., *box)]}, t, members, encoded, av)["video"]

        return {"video": self.windows.blend(z["video"], part)}

    def _whole(
        self,
        z: dict[str, Tensor],
        t: float | Tensor,
        members: list[Branch],
        encoded: EncodedText,
        av: bool,
    ) -> dict[str, Tensor]:
        video = self._hide(self._video(z, t, len(members)), members)
        audio = self._hide(self._audio(z, t, len(members)), members)
        v, a = self.model(video, audio, encoded, av=av, sparsity=self.sparsity)
        out = {}
        if "video" in z and v is not None:
            config, behind = self.model.config, 0
            if "keyframes" in z:
                size = z["keyframes"].shape[2:]
                out["keyframes"] = keyframe_velocity(config, v, size)
                behind = math.prod(size) // math.prod(config.video.patch)
            out["video"] = video_velocity(config, v, z["video"].shape[2:], behind)
        if "audio" in z and a is not None:
            out["audio"] = audio_velocity(a, z["audio"].shape[2])
        return out

    def _video(self, z: dict[str, Tensor], t: float | Tensor, copies: int) -> Modality | None:
        c = self.video
        if c is None:
            return None
        latents = self._copy(c.known if c.held else z["video"], copies)
        mask = torch.ones_like(c.mask) if c.held else c.mask
        return video_modality(
            self.model.config,
            latents,
            _times(1.0 if c.held else t, len(latents)),
            self._copy(c.known, copies),
            self._copy(mask, copies),
            None if c.references is None else self._copy(c.references, copies),
            self._keyframes(z, c.keyframes, copies),
            c.marked,
        )

    def _keyframes(
        self, z: dict[str, Tensor], c: KeyframeCanvas | None, copies: int
    ) -> Keyframes | None:
        if c is None or "keyframes" not in z:
            return None
        parts = (self._copy(x, copies) for x in (z["keyframes"], c.known, c.mask))
        return Keyframes(c.frames, *parts)

    def _audio(self, z: dict[str, Tensor], t: float | Tensor, copies: int) -> Modality | None:
        c = self.audio
        if c is None:
            return None
        latents = self._copy(z["audio"] if c.held is None else c.held, copies)
        return audio_modality(
            self.model.config,
            latents,
            _times(t if c.held is None else 1.0, len(latents)),
            c.latents,
            None if c.references is None else self._copy(c.references, copies),
        )

    def _hide(self, m: Modality | None, members: Sequence[Branch]) -> Modality | None:
        """Hides references from the members that have none."""
        if m is None or m.kind is None or all(b.refs for b in members):
            return m
        blind = torch.tensor([not b.refs for b in members], device=m.x.device)
        blind = blind.repeat_interleave(self.batch)[:, None]
        return replace(m, pad=(m.kind == REFERENCE) & blind)

    def _copy(self, x: Tensor, copies: int) -> Tensor:
        weight = next(self.model.parameters())
        return x.to(weight.device, weight.dtype).repeat(copies, *[1] * (x.ndim - 1))


def _times(t: float | Tensor, batch: int) -> Tensor:
    return t.expand(batch, -1) if isinstance(t, Tensor) else torch.full((batch,), t)
