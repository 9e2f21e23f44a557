"""The stage of docs/how-to-add-a-stage.md, run through the engine on clips of known colour."""

from __future__ import annotations

import importlib
import json
import re
from fractions import Fraction
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from reelmill.curation import recipes
from reelmill.curation.engine import CurateOptions, Curation
from reelmill.datasets.corpus.render import render_scene
from reelmill.datasets.corpus.scene import random_scene
from reelmill.datasets.media.encode import write_video

PAGE = Path(__file__).parent.parent.parent / "docs" / "how-to-add-a-stage.md"
RECIPE = """
kind: video
stages:
  - Probe
  - Shots
  - Colour
  - Cut
"""


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The page's code as a module that recipes know, and two clips: one in colour, one grey."""
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    (tmp_path / "stage_of_the_how_to.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    stage = importlib.import_module("stage_of_the_how_to").Colour()
    monkeypatch.setitem(recipes.KNOWN, stage.name, stage)
    frames = render_scene(random_scene(1, seconds=2.0, size=(256, 160)), 16)
    luma = frames @ np.array([0.299, 0.587, 0.114])
    grey = np.repeat(luma[..., None], 3, axis=-1).round().astype(np.uint8)
    for name, pictures in (("colour", frames), ("grey", grey)):
        write_video(tmp_path / "media" / f"{name}.mp4", pictures, fps=Fraction(16))
    (tmp_path / "mine.yaml").write_text(RECIPE)
    return tmp_path


def curate(work: Path, *overrides: str) -> tuple[dict[str, str], int]:
    """Reason or outcome of each clip by its file, and how many units were measured."""
    options = CurateOptions(
        workers=0,  # the page's module can be imported in this process alone
        sources=(str(work / "media"),),
        workspace=work / "w",
        recipe=str(work / "mine.yaml"),
        overrides=overrides,
    )
    curation = Curation(options)
    for step in curation.steps():
        step.run()
    result = curation.result()
    rows = pq.read_table(work / "w" / "ledger" / "verdicts" / f"{result.run}.parquet").to_pylist()
    clips = [row for row in rows if row["level"] == "clip"]
    return {Path(r["path"]).stem: r["reason"] or r["outcome"] for r in clips}, result.redone


def test_the_stage_of_the_page_rejects_what_has_no_colour(work: Path):
    verdicts, measured = curate(work)
    assert verdicts == {"colour": "kept", "grey": "colourless"}
    assert measured > 0


def test_moving_its_bound_decides_anew_and_decodes_nothing(work: Path):
    curate(work)
    verdicts, measured = curate(work, "Colour.min_colour=1000")
    assert measured == 0
    assert verdicts == {"colour": "colourless", "grey": "colourless"}


def test_the_report_shows_its_histogram(work: Path):
    curate(work)
    (report,) = (work / "w" / "runs").glob("*/video-Colour/stage.json")
    (histogram,) = json.loads(report.read_text())["histograms"]
    assert histogram["fact"] == "colourfulness"
