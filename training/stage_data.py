"""What a stage trains on, and what is held out of it to be measured on."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from reelmill.datasets.latents import LatentDataset, held_out_rows
from reelmill.datasets.loader import Batch, Loader, collate, make_pools
from reelmill.datasets.mixture import Mixture, permute
from reelmill.errors import DatasetError
from reelmill.training.curriculum import TrainStage
from reelmill.training.tasks import TASKS

HELD_OUT_DRAWS = 32  # noises and times per task behind a held-out loss


def train_loader(stage: TrainStage, seed: int, data: LatentDataset) -> Loader:
    """Samples of a stage's tasks that are not held out. Raises DatasetError."""
    held = held_out_rows(data.column("asset"), stage.held_out)
    pools = {name: make_pools(data, _usable(name, data) & ~held) for name in stage.tasks}
    mixture = Mixture(stage.tasks, pools, stage.batch, seed)
    return Loader(data, mixture, max_corrupt=stage.max_corrupt)


def held_out_batches(
    stage: TrainStage, tasks: Mapping[str, float], data: LatentDataset
) -> dict[str, Batch]:
    """One fixed batch per task, of samples of its largest held-out bucket."""
    held = held_out_rows(data.column("asset"), stage.held_out)
    found = {}
    for name in tasks:
        pools = make_pools(data, _usable(name, data) & held)
        if not pools:
            raise DatasetError(
                f"no held-out sample for task {name!r}: {len(set(data.column('asset')))} source "
                "files are too few. Encode more clips that it can use."
            )
        pool = max(pools, key=lambda p: len(p.rows))
        rows = pool.rows[permute(np.arange(len(pool.rows)), len(pool.rows), "held out")]
        slots = np.arange(HELD_OUT_DRAWS)
        samples = [data.read(int(row)) for row in rows[slots % len(rows)]]
        found[name] = collate(0, name, slots, samples)
    return found


def _usable(task: str, data: LatentDataset) -> np.ndarray:
    frames, audible = np.array(data.column("frames")), np.array(data.column("has_audio"))
    return TASKS[task].usable(frames, audible, bool(data.manifest.options.get("low")))
