"""The processes that train together. All take the same decisions, from the same numbers.

A rank has its rows of every global batch and its part of every tensor (training/sharding.py). What
a step turned out to be is told to all ranks and put together in the order of ranks, so that each
judges spikes, clips gradients and stops exactly as the others do.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist

from reelmill.errors import UsageError
from reelmill.training.orphan import Watch, die_with_parent

T = TypeVar("T")
_LAUNCHED = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True)
class Ranks:
    """This process among `world`. context: so many neighbours share the tokens of their samples."""

    rank: int = 0
    world: int = 1
    context: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the one that writes logs and checkpoints."""
        return self.rank == 0

    @property
    def share(self) -> tuple[int, int]:
        """(n, of): this rank takes slots n::of of a global batch."""
        return self.rank // self.context, self.world // self.context

    def gather(self, value: T) -> list[T]:
        """What all ranks gave, in their order, on every rank."""
        if self.world == 1:
            return [value]
        found: list[T | None] = [None] * self.world
        dist.all_gather_object(found, value)
        return found  # type: ignore[return-value]

    def shares(self, gathered: Sequence[T]) -> list[T]:
        """One of each share of the batch, of what was gathered."""
        return list(gathered[:: self.context])

    def tell(self, value: T) -> T:
        """What rank 0 gave, on every rank."""
        return self.gather(value)[0]

    def check(self, stage: str, batch: int, accumulate: int) -> None:
        """Raises UsageError for a batch that cannot be shared alike."""
        if self.world % self.context:
            raise UsageError(
                f"{self.world} ranks cannot form groups of {self.context} (context): choose a "
                "number of ranks that it divides."
            )
        shares = self.world // self.context
        if batch % (shares * accumulate):
            within = f" in {accumulate} parts each" if accumulate > 1 else ""
            raise UsageError(
                f"the batch of {batch} of stage {stage!r} cannot be shared by {shares} "
                f"ranks{within}: choose numbers whose product divides it."
            )


def launched() -> bool:
    """Whether torchrun, or another launcher that sets its variables, started this process."""
    return all(name in os.environ for name in _LAUNCHED)


def speak(rank: int) -> None:
    """Lets the first rank alone log what all ranks do alike."""
    if rank:
        logging.getLogger("reelmill.training").setLevel(logging.ERROR)


@contextmanager
def joined(context: int = 1) -> Iterator[Ranks]:
    """The ranks that this process was launched with, or itself alone.

    A rank dies with its launcher, and soon after another rank of its machine did.
    """
    if dist.is_initialized():  # Ray Train's own
        yield Ranks(dist.get_rank(), dist.get_world_size(), context)
        return
    if not launched() or int(os.environ["WORLD_SIZE"]) == 1:
        yield Ranks(context=context)
        return
    if "TORCHELASTIC_RUN_ID" in os.environ:
        die_with_parent()
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
    ranks = Ranks(dist.get_rank(), dist.get_world_size(), context)
    here = (os.uname().nodename, os.getpid())
    others = [pid for node, pid in ranks.gather(here) if node == here[0] and pid != here[1]]
    with Watch(others):
        yield ranks
        ranks.gather(None)  # nobody leaves while another still works
    dist.destroy_process_group()
