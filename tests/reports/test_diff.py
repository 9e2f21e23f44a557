"""The page of two runs: figures of both, what moved, nothing but text from strangers."""

from __future__ import annotations

import pytest
from tests.reports.planted_run import HOSTILE, plant
from tests.reports.test_page import TAGS, Page

from reelmill.reports.diff import Moved, render_diff
from reelmill.reports.markup import count
from reelmill.reports.page import BUDGET
from reelmill.reports.schema import RecipeText


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    before = plant(tmp_path_factory.mktemp("before"), previews=0).report
    after = plant(tmp_path_factory.mktemp("after"), clips=900, previews=0, seed=1).report
    recipe = RecipeText(yaml="kind: video\nstages:\n  - Shots: {min_length: 3.0}\n", hash="cd" * 32)
    return before, after.model_copy(update={"run": "later", "recipes": {"video": recipe}})


def test_every_stage_says_both_and_what_changed(runs):
    before, after = runs
    moves = [Moved("clip", "kept", f"rejected by X: {HOSTILE[0]}", [HOSTILE[1], "c2"], True),
             Moved("clip", "rejected by X: a", "rejected by Y: b", ["c3"], False)]  # fmt: skip
    source = render_diff(before, after, moves)
    page = Page(source)
    assert {name for name, _ in page.elements} <= TAGS | {"polyline"}
    assert len(source.encode()) < BUDGET
    assert "script" not in {name for name, _ in page.elements}
    cells = [t for t in page.texts if t.strip()]
    for stage in after.stages:
        for part in ("into", "kept", "rejected", "failed"):
            assert count(getattr(stage.tally, part).count) in cells, (stage.slug, part)
    old, new = (r.totals.clips.kept.count for r in runs)
    assert f"+{count(new - old)} clips kept" in page.text
    assert "-  - Shots: {min_length: 2.0}" in page.text
    assert "+  - Shots: {min_length: 3.0}" in page.text
    assert HOSTILE[1] in page.text
    assert "c3" not in page.text
    for _, attributes in page.elements:
        assert not any(key.startswith("on") or key == "style" for key in attributes)


def test_without_the_ledger_the_page_says_so(runs):
    text = Page(render_diff(*runs)).text
    assert "Not known: the verdicts" in text


def test_a_run_and_itself_differ_in_nothing(runs):
    text = Page(render_diff(runs[0], runs[0], [])).text
    for words in ("±0 clips kept", "Nothing drifted", "Every reason rejected as many as before",
                  "No unit changed sides", "The recipe is the same", "The same code"):  # fmt: skip
        assert words in text
