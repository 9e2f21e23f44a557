"""What a stage trains on, and what is held out of it to be measured on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from reelmill.datasets.latents import LatentDataset, held_out_rows
from reelmill.datasets.loader import Batch, Loader, collate, make_pools
from reelmill.datasets.mixture import Mixture, Pool, permute
from reelmill.datasets.pairing import Pairing
from reelmill.errors import DatasetError, UsageError
from reelmill.training.curriculum import Check, TrainStage
from reelmill.training.objective import HEARD, REFERENCE_FRAMES
from reelmill.training.tasks import TASKS, Task

HELD_OUT_DRAWS = 32  # noises and times per task behind a held-out loss


def train_loader(
    stage: TrainStage, seed: int, data: LatentDataset, patch: Sequence[int] = (1, 1, 1)
) -> Loader:
    """Samples of a stage's tasks that are not held out. patch: latents of a token of the video.

    Raises DatasetError where a task or a source has none, UsageError for a batch that no bucket
    fits.
    """
    held = held_out_rows(data.column("asset"), stage.held_out)
    sources = stage.data.sources if stage.data else {}
    pairing = Pairing(data)
    pools = {}
    for name in stage.tasks:
        chosen = usable(name, stage, data, pairing) & ~held
        found = make_pools(data, chosen, by_source=bool(sources))
        pools[name] = [_sized(pool, TASKS[name], stage, data, patch) for pool in found]
    mixture = Mixture(stage.tasks, pools, stage.batch, seed, sources)
    pairs = {name: pair for name in stage.tasks if (pair := TASKS[name].pair)}
    return Loader(data, mixture, max_corrupt=stage.max_corrupt, pairs=pairs)


def held_out_batches(checks: Sequence[Check], data: LatentDataset) -> dict[str, Batch]:
    """One fixed batch per check, of samples of its largest held-out bucket."""
    pairing, found = Pairing(data), {}
    for check in checks:
        held = held_out_rows(data.column("asset"), check.stage.held_out)
        pools = make_pools(data, usable(check.task, check.stage, data, pairing) & held)
        if not pools:
            raise DatasetError(
                f"no held-out sample for task {check.task!r} of stage {check.stage.name!r}: "
                f"{len(set(data.column('asset')))} source files are too few. Encode more clips "
                "that it can use."
            )
        pool = max(pools, key=lambda p: len(p.rows))
        rows = pool.rows[permute(np.arange(len(pool.rows)), len(pool.rows), "held out")]
        slots = np.arange(HELD_OUT_DRAWS)
        taken = [int(row) for row in rows[slots % len(rows)]]
        pair, others = TASKS[check.task].pair, []
        if pair is not None:
            others = [pairing.order(pair, row, 0, 0, i)[0] for i, row in enumerate(taken)]
        found[check.name] = collate(0, check.task, slots, data, taken, others)
    return found


def usable(task: str, stage: TrainStage, data: LatentDataset, pairing: Pairing) -> np.ndarray:
    """bool [n]: rows that a task can use and the stage may see.

    Raises DatasetError for a height or a source that the latents have nothing of.
    """
    frames, audible = np.array(data.column("frames")), np.array(data.column("has_audio"))
    heights = np.array(data.column("height"))
    low = bool(data.manifest.options.get("low"))
    fitting = TASKS[task].usable(frames, audible, low, heights > 0)
    if (pair := TASKS[task].pair) is not None:
        fitting &= pairing.paired(pair)
    rule = stage.data
    if rule is None:
        return fitting
    if rule.heights:
        _there(stage, "heights", rule.heights, set(heights.tolist()))
        fitting &= np.isin(heights, rule.heights)
    if rule.frames:
        fitting &= (frames >= rule.frames[0]) & (frames <= rule.frames[1])
    if rule.sources:
        sources = data.column("source")
        _there(stage, "sources", tuple(rule.sources), set(sources))
        fitting &= np.isin(sources, list(rule.sources))
    return fitting


def _there(
    stage: TrainStage, what: str, asked: Sequence[object], there: set[str] | set[int]
) -> None:
    lacking = [one for one in asked if one not in there]
    if lacking:
        raise DatasetError(
            f"stage {stage.name!r} asks for {what} {', '.join(map(str, lacking))}; the latents "
            f"have {', '.join(map(str, sorted(there)))}. Encode them too (`reelmill encode`: "
            "--also for another size, --shards for another folder), or change the stage's data."
        )


def _sized(
    pool: Pool, task: Task, stage: TrainStage, data: LatentDataset, patch: Sequence[int]
) -> Pool:
    """The pool with a batch that fits in the stage's tokens."""
    if stage.tokens is None:
        return pool
    each = tokens(task, data, int(pool.rows[0]), patch)
    batch = min(stage.batch, stage.tokens // each) // stage.share * stage.share
    if not batch:
        raise UsageError(
            f"stage {stage.name!r}: a sample of task {task.name!r} with {pool.bucket[0]} frames of "
            f"{pool.bucket[2]} x {pool.bucket[1]} has {each} tokens, and {stage.share} of them do "
            f"not fit in {stage.tokens} (tokens). Raise it, or leave that size out (data)."
        )
    return replace(pool, batch=batch)


def tokens(task: Task, data: LatentDataset, row: int, patch: Sequence[int]) -> int:
    """Tokens of pictures and sound that the model sees of a sample, references included."""
    sample = data.read(row)
    count = 0
    if task.video != "absent":
        frames, *plane = sample.video.shape[1:]
        frames += {"none": 0, "image": 1, "video": REFERENCE_FRAMES}[task.reference]
        count += frames * math.prod(plane) // math.prod(patch)
        count *= 2 if task.keyframes else 1  # at most as many again
    if task.audio != "absent" and sample.audio is not None:
        count += sample.audio.shape[1] + (HEARD if task.heard else 0)
    return max(count, 1)
