"""The report's map of quotas is what the ledger's facts and verdicts say, clip by clip."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from tests.curation.test_balance import table

from reelmill.curation.balance import Balance
from reelmill.curation.engine import CurateOptions, Curation
from reelmill.curation.quota_grid import quota_grid
from reelmill.datasets.media.encode import write_image
from reelmill.reports.page import load
from reelmill.reports.schema import QuotaGrid

RECIPE = """
kind: image
max_failed: 1.0
stages:
  - Probe
  - WholeFile
  - Exposure: {min_contrast: 0.0, min_highlights: 0.0}
  - Balance: {clusters: 3, max_share: 0.4}
  - Cut
"""


def decided(stage: Balance, facts) -> tuple[QuotaGrid | None, np.ndarray]:
    kept = np.ones(len(facts), bool)
    kept[list(stage.select(facts))] = False
    return quota_grid(stage, facts, kept), kept


def test_nothing_is_shown_where_nothing_is_asked():
    assert decided(Balance(), table((9, 5, 5)))[0] is None


@pytest.mark.parametrize("by_motion", [False, True])
def test_cells_are_what_a_count_by_hand_gives(by_motion: bool):
    facts = table((30, 12, 6))
    ways = np.array(["pan_left", "static", None], object)[np.arange(len(facts)) % 3]
    facts.columns["camera"] = ways
    stage = Balance(quota="inverse_sqrt", motion_types=by_motion).with_field("clusters", 3)
    stage = stage.with_field("total", 24)
    grid, kept = decided(stage, facts)
    assert grid is not None
    assert grid.motions == ["pan_left", "static", "unknown"]
    assert (grid.total("into"), grid.total("kept")) == (48, kept.sum())
    said = ["unknown" if way is None else way for way in ways]
    for concept, row in zip(grid.concepts, grid.cells, strict=True):
        look = {30: 0, 12: 1, 6: 2}[sum(cell.into for cell in row)]
        for way, cell in zip(grid.motions, row, strict=True):
            here = [i for i in range(48) if facts["look"][i] == look and said[i] == way]
            assert (cell.into, cell.kept) == (len(here), kept[here].sum())
            assert (cell.asked is None) != by_motion
        assert str((40, 120, 200)[look]) in grid.concepts[concept]
    wanted = [c.asked for row in grid.cells for c in row] if by_motion else grid.asked
    assert sum(filter(None, wanted)) == 24


def test_a_run_shows_the_map_and_its_figures_are_the_verdicts(tmp_path: Path):
    rng = np.random.default_rng(0)
    for look, (level, size) in enumerate(((30, 8), (120, 4), (220, 3))):
        for i in range(size):
            noise = rng.normal(level, 4, (64, 96, 3)).clip(0, 255).astype(np.uint8)
            write_image(tmp_path / "media" / f"{look}_{i}.png", noise)
    (tmp_path / "mine.yaml").write_text(RECIPE)
    options = CurateOptions(
        sources=(str(tmp_path / "media"),), workspace=tmp_path / "work", workers=0,
        recipe=str(tmp_path / "mine.yaml"),
    )  # fmt: skip
    curation = Curation(options)
    for step in curation.steps():
        step.run()
    result = curation.result()
    (stage,) = [s for s in load(Path(result.report).parent).stages if s.quotas is not None]
    assert stage.quotas is not None
    rows = pq.read_table(tmp_path / "work" / "ledger" / "verdicts" / f"{result.run}.parquet")
    clips = [row for row in rows.to_pylist() if row["level"] == "clip"]
    looks = {a.sha256: Path(a.path).name[0] for a in curation.ingest.manifest.assets}
    kept = Counter(looks[row["asset"]] for row in clips if row["outcome"] == "kept")
    cells = sorted((row[0].into, row[0].kept) for row in stage.quotas.cells)
    assert cells == [(3, kept["2"]), (4, kept["1"]), (8, kept["0"])]
    assert kept["0"] < 8
    assert set(stage.quotas.asked) == {common := max(c.kept for r in stage.quotas.cells for c in r)}
    html = Path(result.report).read_text()
    assert "concept × motion" in html
    assert stage.quotas.ceiling
    assert f"at most {common} of each kind may stay" in html
    assert f"<b>{kept['0']}</b> of 8" in html
