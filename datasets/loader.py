"""The loader: batches of latents by step, with no state but the step (DESIGN section 6).

`batch(step, rank, world)` is a pure function of the data set, the mixture and its arguments: a run
resumes at any step in O(1), and at another world size it sees the same global batches, of which a
rank takes slots rank::world.
"""

from __future__ import annotations

import logging
from collections import OrderedDict, deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from typing import Any

import numpy as np

from reelmill.datasets.latents import LatentDataset, LatentSample
from reelmill.datasets.mixture import Draw, Mixture, Pool
from reelmill.datasets.pairing import Pair, Pairing
from reelmill.errors import DatasetError, UsageError

log = logging.getLogger(__name__)
AHEAD = 2  # batches that are read before they are asked for, by one thread: two hold each other up


@dataclass(frozen=True)
class Batch:
    """One rank's part of a global batch; all samples share task and shapes.

    slots: int64 [b], places in the global batch (randomness is keyed by them). video: float32
    [b, C, T, h, w]. audio: float32 [b, C_a, L], or None when the task's samples have none.
    text: float32 [b, n, D] padded with zeros and text_mask bool [b, n], or None with raw captions.
    low: float32
    [b, C, (T + 1) / 2, h', w'], or None: see LatentSample. other, other_audio: of the samples that
    go with these (pairing.py): video [b, C, T, h'', w''] and sound [b, C_a, L], or None.
    """

    step: int
    task: str
    slots: np.ndarray
    keys: tuple[str, ...]
    video: np.ndarray
    audio: np.ndarray | None
    text: np.ndarray | None
    text_mask: np.ndarray | None
    captions: tuple[str, ...]
    meta: tuple[Mapping[str, Any], ...]
    low: np.ndarray | None = None
    other: np.ndarray | None = None
    other_audio: np.ndarray | None = None


def make_pools(data: LatentDataset, chosen: np.ndarray, *, by_source: bool = False) -> list[Pool]:
    """Chosen rows (bool [n]) grouped by bucket (frames, height, width), in ascending order.

    by_source: also by the folder of shards that they were encoded from.
    """
    columns = [data.column(name) for name in ("frames", "height", "width")]
    sources = data.column("source") if by_source else [""] * len(data)
    buckets: dict[tuple[str, tuple[int, int, int]], list[int]] = {}
    for row in np.flatnonzero(chosen):
        bucket = tuple(int(c[row]) for c in columns)
        buckets.setdefault((sources[row], bucket), []).append(int(row))  # type: ignore[arg-type]
    return [Pool(key[1], np.array(rows), key[0]) for key, rows in sorted(buckets.items())]


@dataclass
class Loader:
    """Reads batches of a latent data set in the order of a mixture.

    max_corrupt: how many different damaged samples may be left out before DatasetError ends the
    run; each is logged once, and `corrupt` names them. barred: samples that are not to be used, and
    why; see `bar`. cache_bytes: decoded samples kept in memory. pairs: tasks whose samples go with
    another one each, and which.
    """

    data: LatentDataset
    mixture: Mixture
    max_corrupt: int = 0
    cache_bytes: int = 1 << 29
    pairs: Mapping[str, Pair] = field(default_factory=dict)
    corrupt: dict[str, str] = field(default_factory=dict)
    barred: dict[str, str] = field(default_factory=dict)
    _cache: OrderedDict[int, LatentSample] = field(default_factory=OrderedDict)
    _cached: int = 0

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
        samples, others = zip(*(self._sample(draw, step, int(slot)) for slot in slots), strict=True)
        return collate(step, draw.task, slots, samples, [o for o in others if o is not None])

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

    def _sample(self, draw: Draw, step: int, slot: int) -> tuple[LatentSample, LatentSample | None]:
        """A slot's sample, and the one that goes with it where the task wants one."""
        row, pair = int(draw.rows[slot]), self.pairs.get(draw.task)
        for attempt in range(1, len(self.data) + 1):
            sample = self._good(row)
            if sample is not None and pair is None:
                return sample, None
            if sample is not None and pair is not None:
                for other in self.pairing.order(pair, row, self.mixture.seed, step, slot):
                    if (found := self._good(other)) is not None:
                        return sample, found
            row = self.mixture.substitute(draw, slot, attempt)
        raise DatasetError(f"every sample of task {draw.task!r} is damaged or left out.")

    def _good(self, row: int) -> LatentSample | None:
        """The sample of a row, None for one that is damaged or barred."""
        key = self.data.column("key")[row]
        if key in self.corrupt or key in self.barred:
            return None
        try:
            return self._read(row)
        except DatasetError as error:
            self.corrupt[key] = str(error)
            log.warning("left out: %s", error)
            if len(self.corrupt) > self.max_corrupt:
                raise DatasetError(
                    f"{len(self.corrupt)} damaged samples, and {self.max_corrupt} are "
                    f"allowed (max_corrupt). The last one: {error}"
                ) from error
        return None

    @cached_property
    def pairing(self) -> Pairing:
        return Pairing(self.data)

    def _read(self, row: int) -> LatentSample:
        if row in self._cache:
            self._cache.move_to_end(row)
            return self._cache[row]
        sample = self.data.read(row)
        size = _bytes(sample)
        if size <= self.cache_bytes:
            self._cache[row] = sample
            self._cached += size
            while self._cached > self.cache_bytes:
                old = self._cache.popitem(last=False)[1]
                self._cached -= _bytes(old)
        return sample


def _bytes(sample: LatentSample) -> int:
    arrays = (sample.video, sample.audio, sample.text, sample.low)
    return sum(a.nbytes for a in arrays if a is not None)


def collate(
    step: int,
    task: str,
    slots: np.ndarray,
    samples: Sequence[LatentSample],
    others: Sequence[LatentSample] = (),
) -> Batch:
    """Stacks samples of equal shape. Sound is kept only when every sample has it."""
    text = mask = None
    small = [s.low for s in samples if s.low is not None]
    low = small if len(small) == len(samples) else None
    texts = [s.text for s in samples if s.text is not None]
    if len(texts) == len(samples):
        longest = max(1, *(len(t) for t in texts))
        text = np.zeros((len(texts), longest, texts[0].shape[1]), dtype=np.float32)
        mask = np.zeros((len(texts), longest), dtype=bool)
        for i, t in enumerate(texts):
            text[i, : len(t)] = t
            mask[i, : len(t)] = True
    return Batch(
        step=step,
        task=task,
        slots=slots,
        keys=tuple(s.key for s in samples),
        video=_pictures(samples),
        audio=_sounds(samples),
        text=text,
        text_mask=mask,
        captions=tuple(str(s.meta.get("caption", "")) for s in samples),
        meta=tuple(s.meta for s in samples),
        low=None if low is None else _stack(low),
        other=_pictures(others) if others else None,
        other_audio=_sounds(others),
    )


def _pictures(samples: Sequence[LatentSample]) -> np.ndarray:
    shapes = {sample.video.shape for sample in samples}
    if len(shapes) > 1:
        raise DatasetError(f"samples of one bucket have latents of shapes {sorted(shapes)}.")
    return _stack([s.video for s in samples])


def _sounds(samples: Sequence[LatentSample]) -> np.ndarray | None:
    sounds = [s.audio for s in samples if s.audio is not None]
    if not sounds or len(sounds) < len(samples):
        return None
    if len({s.shape for s in sounds}) > 1:
        raise DatasetError("samples of one bucket have sounds of different lengths.")
    return _stack(sounds)


def _stack(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """float32 [n, ...], in one copy."""
    whole = np.empty((len(arrays), *arrays[0].shape), np.float32)
    for place, array in zip(whole, arrays, strict=True):
        place[...] = array
    return whole
