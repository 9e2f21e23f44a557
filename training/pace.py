"""How fast training goes, and what it takes: throughput, FLOPs, memory, time waited for data.

FLOPs are the model's own, counted on the meta device (training/plan.py), three times a forward
pass; what is computed again to save memory counts for nothing. MFU is their share of what the GPUs
can do by their makers' data sheets; a machine that is in none has no MFU.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TypeVar

import torch

from reelmill.datasets.loader import Batch
from reelmill.model.config import MMDiTConfig
from reelmill.model.sparse import Shares
from reelmill.training.plan import GPUS, attention_flops, forward_flops
from reelmill.training.ranks import Ranks
from reelmill.training.tasks import TASKS

T = TypeVar("T")
TEXT_STEP = 64  # text lengths are rounded up to it: each length is counted once


@dataclass
class Pace:
    """waited: seconds for data since the last step that was told of; ended: when that was."""

    config: MMDiTConfig
    ranks: Ranks
    waited: float = 0.0
    ended: float = field(default_factory=time.perf_counter)

    def waiting(self, batches: Iterator[T]) -> Iterator[T]:
        """The same, with the time until each was there."""
        while True:
            began = time.perf_counter()
            found = next(batches, None)
            self.waited += time.perf_counter() - began
            if found is None:
                return
            yield found

    def step(self, batch: Batch, samples: int, seconds: float, shares: Shares) -> dict[str, float]:
        """What a step of so many seconds took. batch: of this rank; samples: of all. shares: of the
        video's attention that is left out, for each layer.

        data_wait, elsewhere: seconds before it, for data and for all that is neither (validation,
        checkpoints, logs). Throughput is of the step and its data, over all ranks. mfu: where it
        is known. memory_mib: the most that this rank has held so far.
        """
        waited, self.waited = self.waited, 0.0
        ended, self.ended = self.ended, time.perf_counter()
        took = seconds + waited
        video, audio, text = _tokens(self.config, batch)
        flops = forward_flops(self.config, video, audio, text)
        flops -= (
            sum(share or 0.0 for share in shares)
            / max(len(shares), 1)
            * attention_flops(self.config, video)
        )
        rate = 3 * samples * flops / took
        told = {
            "data_wait": round(waited, 5),
            "elsewhere": round(max(0.0, self.ended - ended - took), 5),
            "samples_per_s": round(samples / took, 3),
            "tokens_per_s": round(samples * (video + audio) / took, 1),
            "tflops_per_s": round(rate / 1e12, 6),
            "memory_mib": float(_memory() >> 20),
        }
        peak = _peak()
        if peak is not None:
            told["mfu"] = round(rate / (peak * self.ranks.world), 4)
        return told


def _tokens(config: MMDiTConfig, batch: Batch) -> tuple[int, int, int]:
    """Of one sample: video, audio and text tokens that its task runs."""
    task = TASKS[batch.task]
    frames, rows, columns = batch.video.shape[2:]
    pt, ph, pw = config.video.patch
    video = 0 if task.video == "absent" else (frames // pt) * (rows // ph) * (columns // pw)
    audio = 0 if task.audio == "absent" or batch.audio is None else batch.audio.shape[2]
    words = 1 if batch.text is None else batch.text.shape[1]
    return video, audio, -(-words // TEXT_STEP) * TEXT_STEP


def _memory() -> int:
    """Bytes."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def _peak() -> float | None:
    """Dense bf16 FLOP/s of this rank's GPU; None where no data sheet is known for it."""
    if not torch.cuda.is_available():
        return None
    name = torch.cuda.get_device_name().lower()
    return next((peak for gpu, peak in GPUS.items() if gpu in name), None)
