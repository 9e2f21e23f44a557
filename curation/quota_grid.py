"""What was asked of each concept and motion, and what came of it, for the report."""

from __future__ import annotations

import numpy as np

from reelmill.curation.balance import DESCRIPTORS, Balance, moves
from reelmill.curation.stage import FactTable
from reelmill.reports.schema import QuotaCell, QuotaGrid


def quota_grid(stage: Balance, table: FactTable, kept: np.ndarray) -> QuotaGrid | None:
    """Concepts are clusters by looks, motions the ways the camera moves. None: nothing is asked.

    table: the clips that came into the stage. kept: which of them stayed, bool [clips], as it was
    decided.
    """
    held = stage.quotas(table)
    if held is None:
        return None
    names, labels, quotas = held
    concept_of = np.array([name.partition(" ")[0] for name in names.tolist()])[labels]
    ways = np.array(moves(table))
    motions = sorted(set(ways.tolist()))
    concepts = sorted(set(concept_of.tolist()), key=lambda name: (len(name), name))
    asked = dict(zip(names.tolist(), quotas.asked.tolist(), strict=True))
    cells = []
    for concept in concepts:
        row = []
        for way in motions:
            here = (concept_of == concept) & (ways == way)
            wanted = asked.get(f"{concept} {way}", -1) if stage.motion_types else -1
            row.append(
                QuotaCell(
                    into=int(here.sum()),
                    kept=int((here & kept).sum()),
                    asked=wanted if wanted >= 0 else None,
                )
            )
        cells.append(row)
    whole = [-1 if stage.motion_types else asked[concept] for concept in concepts]
    return QuotaGrid(
        concepts={name: _looks(table, concept_of == name) for name in concepts},
        motions=motions,
        asked=[count if count >= 0 else None for count in whole],
        cells=cells,
        ceiling=stage.quota == "cap",
    )


def _looks(table: FactTable, rows: np.ndarray) -> str:
    """The mean of what its clips look like, as far as it was measured."""
    there = [name for name in DESCRIPTORS if name in table.columns]
    means = {name: np.asarray(table[name], np.float64)[rows] for name in there}
    known = {name: values[~np.isnan(values)] for name, values in means.items()}
    return ", ".join(f"{n} {values.mean():.0f}" for n, values in known.items() if len(values))
