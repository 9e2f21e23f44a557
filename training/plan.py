"""What a curriculum costs before it is run: tokens, FLOPs, GPU hours and storage of each stage.

FLOPs are counted, not estimated: the model's own forward pass on the meta device, under PyTorch's
counter of matrix products. Training is taken as three times that, with every block computed again
as four times.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch.utils.flop_counter import FlopCounterMode

from reelmill.errors import UsageError
from reelmill.model.config import MMDiTConfig
from reelmill.model.mmdit import MMDiT
from reelmill.model.modality import Modality, Text
from reelmill.model.positions import keyframe_indices
from reelmill.training.paper import PaperStage

# Dense bf16 FLOP/s of one, by the makers' data sheets.
GPUS = {"a100": 312e12, "h100": 989e12, "h200": 989e12, "b200": 2250e12}
LATENT_BYTES = 2  # float16, as `reelmill encode` stores them


@dataclass(frozen=True)
class Codecs:
    """Strides of the codecs: of the video in time and space, and audio latents a second.

    Defaults: Wan 2.1's VAE; MMAudio's 44.1 kHz VAE, latents of 40 channels at 43.07 a second.
    """

    time: int = 4
    space: int = 8
    audio_rate: float = 44_100 / 1024
    text_tokens: int = 512


@dataclass(frozen=True)
class Cost:
    """Of all epochs of a stage. latent_bytes: of its data, stored once."""

    samples: float
    tokens: float
    flops: float
    gpu_hours: float
    latent_bytes: float


def grid(height: int, seconds: float, fps: float, codecs: Codecs) -> tuple[int, int, int]:
    """Latents [frames, rows, columns] of a 16:9 clip of so many lines; 0 s is a still."""
    frames = 1 + -(-round(seconds * fps) // codecs.time)
    step = 2 * codecs.space  # also a multiple of the patch
    rows, columns = (-(-side // step) * 2 for side in (height, round(height * 16 / 9)))
    return frames, rows, columns


def forward_flops(config: MMDiTConfig, video: int, audio: int, text: int) -> float:
    """FLOPs of one sample's forward pass with so many tokens; 0: the tower is not run.

    A model of one block of each sort is counted, and what one more of each adds.
    """
    small = _counted(_shaped(config, 1, 1), video, audio, text)
    dual = _counted(_shaped(config, 2, 1), video, audio, text) - small
    single = _counted(_shaped(config, 1, 2), video, audio, text) - small
    tower = config.video
    return small + (tower.dual - 1) * dual + (tower.single - 1) * single


def _shaped(config: MMDiTConfig, dual: int, single: int) -> MMDiTConfig:
    """So many blocks of each sort, with dense attention: what is left out is counted apart."""
    audio = None if config.audio is None else replace(config.audio, dual=dual, single=single)
    video = replace(config.video, dual=dual, single=single, sparse=False)
    return replace(config, video=video, audio=audio)


@lru_cache(maxsize=1024)
def _counted(config: MMDiTConfig, video: int, audio: int, text: int) -> float:
    model = _model(config)
    with torch.device("meta"), FlopCounterMode(display=False) as counter, torch.no_grad():
        model(
            _tokens(config.video.token_in, 3, video),
            None if config.audio is None else _tokens(config.audio.token_in, 1, audio),
            Text(torch.zeros(1, text, config.video.text_dim)),
        )
    return float(counter.get_total_flops())


@lru_cache(maxsize=8)
def _model(config: MMDiTConfig) -> MMDiT:
    with torch.device("meta"):
        return MMDiT(config)


def _tokens(width: int, axes: int, count: int) -> Modality | None:
    if not count:
        return None
    return Modality(torch.zeros(1, count, width), torch.zeros(1, count, axes), torch.zeros(1, 1))


def attention_flops(config: MMDiTConfig, video: int) -> float:
    """Of those, what self-attention among so many video tokens takes in all blocks."""
    return 4.0 * video**2 * config.video.dim * config.video.blocks


def cost(
    stage: PaperStage,
    config: MMDiTConfig,
    codecs: Codecs,
    *,
    gpu: str = "h200",
    mfu: float = 0.45,
    recompute: bool = True,
) -> Cost:
    """Raises UsageError for a GPU that is not known, or a share that is none."""
    if gpu not in GPUS:
        raise UsageError(f"no GPU {gpu!r}; known: {', '.join(GPUS)}.")
    if not 0 < mfu <= 1:
        raise UsageError(f"mfu is {mfu:g}; above 0 to 1 is needed.")
    tokens = flops = stored = 0.0
    for count, height, seconds, audio in _groups(stage):
        each = _Sample(config, codecs, height, stage.fps, audio, stage.sparsity, stage.keyframes)
        tokens += count * _mean(each.tokens, seconds)
        flops += count * _mean(each.flops, seconds)
        stored += count * _mean(each.bytes, seconds)
    flops *= stage.epochs * (4 if recompute else 3)
    hours = flops / (GPUS[gpu] * mfu) / 3600
    return Cost(stage.samples, tokens * stage.epochs, flops, hours, stored)


def _groups(stage: PaperStage) -> list[tuple[float, int, tuple[float, float], bool]]:
    """(how many, lines, seconds, with sound): the stage's data by resolution."""
    found = []
    share = 1 / max(len(stage.heights), 1)
    for height in stage.heights:
        found.append((stage.images * share, height, (0.0, 0.0), False))
        found.append((stage.clips * share, height, stage.seconds, stage.audio))
    found.append((stage.sounds, 0, stage.seconds, True))
    return [group for group in found if group[0]]


def _mean(of: Callable[[float], float], seconds: Sequence[float]) -> float:
    """Over lengths spread evenly: Simpson's rule, exact for what grows with their square."""
    low, high = seconds
    return (of(low) + 4 * of((low + high) / 2) + of(high)) / 6 if high > low else of(low)


@dataclass(frozen=True)
class _Sample:
    """One sample of a group, by its length. height: 0 for sound alone. keyframes: their lines."""

    config: MMDiTConfig
    codecs: Codecs
    height: int
    fps: int
    audio: bool
    sparsity: float
    keyframes: int = 0

    def _video(self, seconds: float) -> int:
        if not self.height:
            return 0
        frames, rows, columns = grid(self.height, seconds, self.fps, self.codecs)
        if not self.keyframes:
            return frames * rows * columns
        _, high, wide = grid(self.keyframes, 0, self.fps, self.codecs)
        chosen = len(keyframe_indices(frames, rows * columns, high * wide))
        return frames * rows * columns + chosen * high * wide

    def _patches(self, seconds: float) -> int:
        pt, ph, pw = self.config.video.patch
        return self._video(seconds) // (pt * ph * pw)

    def _sound(self, seconds: float) -> int:
        if not self.audio or self.config.audio is None:
            return 0
        return max(1, round(seconds * self.codecs.audio_rate))

    def tokens(self, seconds: float) -> float:
        return self._patches(seconds) + self._sound(seconds)

    def flops(self, seconds: float) -> float:
        video = self._patches(seconds)
        whole = forward_flops(self.config, video, self._sound(seconds), self.codecs.text_tokens)
        return whole - self.sparsity * attention_flops(self.config, video)

    def bytes(self, seconds: float) -> float:
        video = self._video(seconds) * (self.config.video.out_ch)
        audio = self._sound(seconds) * (self.config.audio.out_ch if self.config.audio else 0)
        return LATENT_BYTES * float(video + audio)
