"""Plan: what would run and why, held against what then runs."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from tests.media import noise_video
from tests.small_run import RECIPE, curate, options, recipe_file
from tests.trees import digests

from reelmill.curation.engine import Curation
from reelmill.curation.explain.failures import forget_failures
from reelmill.curation.explain.plan import Plan, make_plan


@pytest.fixture
def media(corpus, tmp_path) -> Path:
    """The corpus with files of its own to change."""
    return shutil.copytree(corpus, tmp_path / "media", copy_function=os.link)


def todo(plan: Plan) -> dict[str, tuple[int, dict[str, int]]]:
    return {line.stage: (line.todo, dict(line.reasons)) for line in plan.lines if line.todo}


def test_after_a_run_there_is_nothing_to_do(corpus, ran):
    plan = make_plan(options(corpus, ran))
    assert plan.todo == 0
    assert plan.shards == {"video": "unchanged"}
    assert (plan.waiting, plan.gone) == (0, 0)


def test_planning_writes_nothing(corpus, ran, tmp_path):
    before = digests(ran)
    make_plan(options(corpus, ran, "Shots.min_seconds=9"))
    make_plan(options(corpus, tmp_path / "new" / "w", recipe=recipe_file(tmp_path)))
    assert digests(ran) == before
    assert not (tmp_path / "new").exists()


def test_without_a_workspace_all_input_is_new(corpus, tmp_path):
    plan = make_plan(options(corpus, tmp_path / "w"))
    assert todo(plan) == {"Ingest": (6, {"new input": 6})}
    assert plan.waiting == 6


def test_a_moved_bound_measures_nothing_but_writes_other_shards(corpus, workspace):
    plan = make_plan(options(corpus, workspace.root, "Blur.min_sharpness=1000"))
    assert plan.todo == 0
    assert plan.shards == {"video": "written"}


def test_new_input_and_changed_bytes_are_told_apart(media, workspace):
    noise_video(media / "new.mp4", seed=9)
    (media / "fine.mp4").unlink()
    noise_video(media / "fine.mp4", seed=8)
    # The workspace knows the corpus by other paths: let it see these first.
    (media / "quiet.mp4").rename(media / "renamed.mp4")
    plan = make_plan(options(media, workspace.root))
    assert todo(plan)["Ingest"] == (2, {"new input": 2})
    curate(media, workspace.root)
    (media / "fine.mp4").unlink()
    noise_video(media / "fine.mp4", seed=10)
    plan = make_plan(options(media, workspace.root))
    assert todo(plan) == {"Ingest": (1, {"changed bytes": 1})}
    assert plan.gone == 1


def test_a_changed_field_is_named_with_both_values(corpus, workspace):
    plan = make_plan(options(corpus, workspace.root, "PHash.fps=2"))
    found = todo(plan)
    assert set(found) == {"PHash"}
    assert found["PHash"] == (5, {"fields: fps 4.0 -> 2.0": 5})
    assert plan.waiting == 0
    plan = make_plan(options(corpus, workspace.root, "Shots.detector=content"))
    assert todo(plan) == {"Shots": (5, {"fields: detector 'adaptive' -> 'content'": 5})}
    assert plan.waiting == 5  # their clips depend on it


def test_a_changed_version_is_told_from_changed_code(corpus, workspace, monkeypatch):
    from reelmill.curation import keys
    from reelmill.curation.video.blur import Blur

    monkeypatch.setattr(Blur, "version", 2)
    found = todo(make_plan(options(corpus, workspace.root)))
    assert found["Blur"][1] == {"version: version 1 -> 2": 5}
    monkeypatch.undo()
    real = keys.code_digest
    module = Blur.__module__
    monkeypatch.setattr(keys, "code_digest", lambda m: "f" * 64 if m == module else real(m))
    (reason,) = todo(make_plan(options(corpus, workspace.root)))["Blur"][1]
    assert reason.startswith("code: ")


def test_what_a_stage_needs_makes_it_stale(corpus, workspace):
    still = "Shots.avoid_speech=null"  # else clips depend on Voice, and are not known before it
    found = todo(make_plan(options(corpus, workspace.root, "Voice.silence_dbfs=-55", still)))
    assert found["Voice"] == (5, {"fields: silence_dbfs -60.0 -> -55.0": 5})
    count, reasons = found["MOS"]
    (reason,) = reasons
    assert count == 2
    assert reason.startswith("needs: Voice ")


def test_clips_wait_for_what_their_edges_depend_on(corpus, workspace):
    plan = make_plan(options(corpus, workspace.root, "Voice.silence_dbfs=-55"))
    assert list(todo(plan)) == ["Voice"]
    assert plan.waiting == 5


def test_a_stage_that_was_never_there_is_new(corpus, workspace, tmp_path):
    recipe = recipe_file(tmp_path, RECIPE.replace("  - MOS\n", "  - MOS\n  - Clipping\n"))
    assert todo(make_plan(options(corpus, workspace.root, recipe=recipe))) == {
        "Clipping": (5, {"new stage": 5})
    }


def test_failures_that_were_forgotten_are_tried_again(media, workspace):
    (media / "empty.mp4").write_bytes(b"")
    curate(media, workspace.root)
    assert make_plan(options(media, workspace.root)).todo == 0
    assert [f.stage for f in forget_failures(workspace)] == ["Ingest", "Integrity"]
    plan = make_plan(options(media, workspace.root))
    assert todo(plan) == {"Ingest": (1, {"failed before": 1})}


def test_clips_that_a_moved_bound_lets_through_are_measured_by_later_stages(corpus, workspace):
    plan = make_plan(options(corpus, workspace.root, "Loudness.min_volume=-200"))
    found = todo(plan)
    assert found["MOS"] == (1, {"not reached before": 1})
    assert found["Cut"] == (1, {"not reached before": 1})


@pytest.mark.parametrize("override", ["Loudness.min_volume=-200", "PHash.fps=2", "Blur.fps=1"])
def test_the_plan_holds_when_it_is_carried_out(corpus, workspace, override):
    plan = make_plan(options(corpus, workspace.root, override))
    curation = Curation(options(corpus, workspace.root, override))
    for step in curation.steps():
        step.run()
    (level,) = curation.levels.values()
    measured = {name: n for name, n in level.measured.items() if n and name != "decode"}
    planned = {name: n for name, (n, _) in todo(plan).items()}
    assert measured.keys() <= planned.keys()
    assert all(measured[name] <= planned[name] for name in measured)  # an upper bound, which is
    first = next(iter(planned))  # exact where no earlier stage can change its mind
    assert measured[first] == planned[first]
    assert make_plan(options(corpus, workspace.root, override)).todo == 0
