"""Diff: every unit of both runs in exactly one place, and the rule that moved it."""

from __future__ import annotations

import pytest
from tests.small_run import curate

from reelmill.curation.explain.difference import Difference
from reelmill.curation.run_record import known_runs
from reelmill.errors import UsageError


def test_a_run_differs_in_nothing_from_its_repetition(workspace, corpus):
    curate(corpus, workspace.root)
    found = Difference.of(workspace, *known_runs(workspace))
    assert found.moves == ()
    assert found.same == {"asset": 6, "clip": 4}
    assert found.changes == {"video": ()}


def test_the_rule_that_moved_clips_is_named_with_how_many_changed_side(workspace, corpus):
    curate(corpus, workspace.root, "Loudness.min_volume=-200", "Blur.min_sharpness=1000")
    found = Difference.of(workspace, *known_runs(workspace))
    moves = {(m.before, m.after): len(m.units) for m in found.moves}
    assert moves == {
        ("kept", "rejected by Blur: blurred"): 2,
        ("rejected by Loudness: silent", "rejected by Blur: blurred"): 1,
    }
    assert (found.count("clip", lost=True), found.count("clip", lost=False)) == (2, 0)
    assert found.same["clip"] == 1
    assert found.changes["video"] == (
        "Blur.min_sharpness 0.015 -> 1000.0",
        "Loudness.min_volume -50.0 -> -200.0",
    )
    back = Difference.of(workspace, *reversed(known_runs(workspace)))
    assert (back.count("clip", lost=True), back.count("clip", lost=False)) == (0, 2)


def test_units_of_one_run_only_are_counted_too(workspace, corpus, tmp_path):
    media = tmp_path / "media"
    media.mkdir()
    (media / "fine.mp4").write_bytes((corpus / "fine.mp4").read_bytes())
    curate(media, workspace.root)
    found = Difference.of(workspace, *known_runs(workspace))
    gone = [m for m in found.moves if m.after == "absent"]
    assert sum(len(m.units) for m in gone if m.level == "asset") == 5
    assert found.same == {"asset": 1, "clip": 1}


def test_a_run_that_never_was_is_a_usage_error(workspace):
    with pytest.raises(UsageError, match="there are"):
        Difference.of(workspace, "nope", "last")
