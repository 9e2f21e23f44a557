"""The loader: batches of latents by step, with no state but the step (DESIGN section 6).

`batch(step, rank, world)` is a pure function of the data set, the mixture and its arguments: a run
resumes at any step in O(1), and at another world size it sees the same global batches, of which a
rank takes slots rank::world.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from typing import Any

import numpy as np

from reelmill.datasets.arrow import whole_numbers
from reelmill.datasets.latents import LatentDataset
from reelmill.datasets.members import Captions, DamagedSampleError
from reelmill.datasets.mixture import Draw, Mixture, Pool
from reelmill.datasets.pairing import Pair, Pairing
from reelmill.errors import DatasetError, UsageError

log = logging.getLogger(__name__)
AHEAD = 2  # batches that are read before they are asked for, by one thread: two hold each other up


@dataclass(frozen=True)
class Batch:
    """One rank's part of a global batch; all samples share task and shapes.

    slots: int64 [b], places in the global batch (randomness is keyed by them). Latents are floats
    as they are stored, 16 bits or 32. video: [b, C, T, h, w]. audio: [b, C_a, L], or None when the
    samples have none. text: [b, n, D] padded with zeros and text_mask bool [b, n], or None with raw
    captions. low: [b, C, (T + 1) / 2, h', w'], or None: see LatentSample. other, other_audio: of
    the samples that go with these (pairing.py): video [b, C, T, h'', w''], sound [b, C_a, L], or
    None.
    """

    step: int
    task: str
    slots: np.ndarray
    keys: tuple[str, ...]
    video: np.ndarray
    audio: np.ndarray | None
    text: np.ndarray | None
    text_mask: np.ndarray | None
    captions: Sequence[str]
    meta: tuple[Mapping[str, Any], ...]
    low: np.ndarray | None = None
    other: np.ndarray | None = None
    other_audio: np.ndarray | None = None


def make_pools(data: LatentDataset, chosen: np.ndarray, *, by_source: bool = False) -> list[Pool]:
    """Chosen rows (bool [n]) grouped by bucket (frames, height, width), in ascending order.

    by_source: also by the folder of shards that they were encoded from.
    """
    rows = np.flatnonzero(chosen)
    names, of = [""], np.zeros(len(rows), np.int64)
    if by_source and len(rows):
        found, of = np.unique(np.array(data.column("source"))[rows], return_inverse=True)
        names = found.tolist()
    columns = [whole_numbers(data.rows[n])[rows] for n in ("frames", "height", "width")]
    buckets, where = np.unique(np.column_stack([of, *columns]), axis=0, return_inverse=True)
    order = np.argsort(where.reshape(-1), kind="stable")
    ends = np.cumsum(np.bincount(where.reshape(-1), minlength=len(buckets)))[:-1]
    parts = np.split(rows[order], ends) if len(buckets) else []
    return [
        Pool((frames, height, width), part, names[source])
        for (source, frames, height, width), part in zip(buckets.tolist(), parts, strict=True)
    ]


@dataclass
class Loader:
    """Reads batches of a latent data set in the order of a mixture.

    max_corrupt: how many different damaged samples may be left out before DatasetError ends the
    run; each is logged once, and `corrupt` names them. barred: samples that are not to be used, and
    why; see `bar`. pairs: tasks whose samples go with another one each, and which.
    """

    data: LatentDataset
    mixture: Mixture
    max_corrupt: int = 0
    pairs: Mapping[str, Pair] = field(default_factory=dict)
    corrupt: dict[str, str] = field(default_factory=dict)
    barred: dict[str, str] = field(default_factory=dict)

    def batch(self, step: int, rank: int = 0, world: int = 1) -> Batch:
        """This rank's slots of the global batch of a step."""
        draw = self.mixture.draw(step)
        batch = len(draw.rows)
        if world < 1 or not 0 <= rank < world or batch % world:
            raise UsageError(
                f"a batch of {batch} cannot be shared by {world} processes (rank "
                f"{rank}): choose a world size that divides it."
            )
        slots = np.arange(rank, batch, world)
        while True:
            rows, others = self._rows(draw, step, slots.tolist())
            try:
                return collate(step, draw.task, slots, self.data, rows, others)
            except DamagedSampleError as error:
                self._note(error)

    def bar(self, key: str, why: str) -> None:
        """Leaves a sample out from the next batch on."""
        self.barred[key] = why

    def batches(self, start: int, stop: int, rank: int = 0, world: int = 1) -> Iterator[Batch]:
        """Batches of steps [start, stop), the next AHEAD being read while one is in use."""
        with ThreadPoolExecutor(1, thread_name_prefix="loader") as reader:
            steps = iter(range(start, stop))
            waiting = deque(
                reader.submit(self.batch, step, rank, world) for step in islice(steps, AHEAD)
            )
            while waiting:
                ready = waiting.popleft().result()
                if any(key in self.barred for key in ready.keys):  # since it was read
                    ready = reader.submit(self.batch, ready.step, rank, world).result()
                waiting += (reader.submit(self.batch, s, rank, world) for s in islice(steps, 1))
                yield ready

    def _rows(self, draw: Draw, step: int, slots: Sequence[int]) -> tuple[list[int], list[int]]:
        """Rows of some slots, and of what goes with them where the task wants it, none of them
        known to be damaged or barred."""
        bad, keys = self.corrupt.keys() | self.barred.keys(), self.data.column("key")
        pair, rows = self.pairs.get(draw.task), draw.rows[slots].tolist()
        others: list[int] = []
        if not bad and pair is None:
            return rows, others
        for place, slot in enumerate(slots):
            row = rows[place]
            for attempt in range(1, len(self.data) + 1):
                order = (
                    [row]
                    if pair is None
                    else self.pairing.order(pair, row, self.mixture.seed, step, slot)
                )
                good = [other for other in order if keys[other] not in bad]
                if keys[row] not in bad and good:
                    break
                row = self.mixture.substitute(draw, slot, attempt)
            else:
                raise DatasetError(f"every sample of task {draw.task!r} is damaged or left out.")
            rows[place] = row
            others += good[:1] if pair is not None else []
        return rows, others

    def _note(self, error: DamagedSampleError) -> None:
        self.corrupt[self.data.column("key")[error.row]] = str(error)
        log.warning("left out: %s", error)
        if len(self.corrupt) > self.max_corrupt:
            raise DatasetError(
                f"{len(self.corrupt)} damaged samples, and {self.max_corrupt} are allowed "
                f"(max_corrupt). The last one: {error}"
            ) from error

    @cached_property
    def pairing(self) -> Pairing:
        return Pairing(self.data)


def collate(
    step: int,
    task: str,
    slots: np.ndarray,
    data: LatentDataset,
    rows: Sequence[int],
    others: Sequence[int] = (),
) -> Batch:
    """Reads samples of equal shape. Sound and small latents are kept only when every sample has
    them. Raises DamagedSampleError."""
    found = data.members(rows)
    text, mask = found.texts()
    video = found.stacked("video")
    assert video is not None
    beside = data.members(others) if others else None
    keys = data.column("key")
    return Batch(
        step=step,
        task=task,
        slots=slots,
        keys=tuple([keys[row] for row in rows]),
        video=video,
        audio=found.stacked("audio"),
        text=text,
        text_mask=mask,
        captions=Captions(found.records),
        meta=tuple(found.records),
        low=found.stacked("low"),
        other=beside.stacked("video") if beside else None,
        other_audio=beside.stacked("audio") if beside else None,
    )
