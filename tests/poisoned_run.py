"""A run, by itself or as a rank of torchrun, over latents some of which are not what they claim.

python tests/poisoned_run.py OPTIONS    JSON of TrainOptions
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from pydantic import TypeAdapter

from reelmill.datasets.latents import LatentDataset, held_out_rows
from reelmill.datasets.members import DamagedSampleError
from reelmill.training.config import TrainOptions
from reelmill.training.trainer import train

OPTIONS: TypeAdapter[TrainOptions] = TypeAdapter(TrainOptions)
WILD, TIMES = 3, 40.0


def planted(latents: Path, held_out: float) -> tuple[list[int], int]:
    """Rows of clips that no codec would write, and the row of one that cannot be read."""
    with LatentDataset(latents) as data:
        rows = np.flatnonzero(~held_out_rows(data.column("asset"), held_out)).tolist()
    return rows[:WILD], rows[WILD]


def main(path: Path) -> None:
    options = OPTIONS.validate_json(path.read_bytes())
    wild, damaged = planted(options.latents, options.curriculum.stages[0].held_out)
    members = LatentDataset.members

    def poisoned(self, rows):  # type: ignore[no-untyped-def]
        if damaged in rows:
            raise DamagedSampleError(f"row {damaged} is damaged", damaged)
        found = members(self, rows)
        for number, row in enumerate(rows):
            if row in wild:
                found.one(number, "video")[...] *= TIMES
        return found

    LatentDataset.members = poisoned  # type: ignore[method-assign]
    train(options)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
