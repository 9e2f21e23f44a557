"""What a Segmenter reads: its own tracks, those of stages it listens to, and a judge's answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from reelmill.curation.stage import BoundaryJudge, Stage
from reelmill.datasets.ledger import TrackReader

if TYPE_CHECKING:
    from reelmill.curation.level import Level

ANSWERS = pa.schema([("unit", pa.string()), ("frame", pa.int64()), ("same", pa.bool_())])


def answers_folder(level: Level) -> str:
    """Where what a judge of boundaries said is kept, under the judge's key."""
    assert isinstance(level.judge, Stage), "asked for only where there is one"
    return f"ledger/answers/{level.judge.name}/{level.passes.keys[level.judge.name]}"


class Heard:
    """Tracks of assets as a Segmenter takes them. answers: (frame, same) of boundaries by asset."""

    def __init__(self, level: Level):
        ledger, passes = level.passes.ledger, level.passes
        own = level.recipe.stages[level.recipe.segmenter].name
        self._own = TrackReader(ledger, passes.tracks_folder(own))
        self._others = {
            stage.name: TrackReader(ledger, passes.tracks_folder(stage.name))
            for stage in level.listened
            if not isinstance(stage, BoundaryJudge)
        }
        self._judge = level.judge.name if isinstance(level.judge, Stage) else ""
        self.answers: dict[str, list[tuple[int, bool]]] = {}
        table = ledger.table(answers_folder(level)) if self._judge else None
        if table is not None:
            columns = (table[name].to_pylist() for name in ANSWERS.names)
            for unit, frame, same in zip(*columns, strict=True):
                self.answers.setdefault(unit, []).append((frame, same))

    def sorted(self, units: Sequence[str]) -> list[int]:
        """Places of the units, in the order in which their tracks are read fastest."""
        return self._own.sorted_by_file(units)

    def tracks(self, unit: str) -> dict[str, np.ndarray]:
        found = dict(self._own[unit])
        for name, reader in self._others.items():
            if unit in reader:
                found |= {f"{name}:{track}": data for track, data in reader[unit].items()}
        if self._judge:
            said = sorted(set(self.answers.get(unit, ())))
            found[f"{self._judge}:same"] = np.array(said, np.int64).reshape(-1, 2)
        return found
