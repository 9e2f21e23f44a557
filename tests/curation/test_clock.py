"""A clock that jumps: runs stay in their order, and no length of time is negative."""

from __future__ import annotations

import re
import time

import pytest
from tests.small_run import recipe_file

from reelmill.curation.account import run_id
from reelmill.curation.engine import CurateOptions, Curation
from reelmill.curation.run_record import known_runs, read_run
from reelmill.datasets.workspace import open_workspace

RECIPE = "kind: image\nmax_failed: 1.0\nstages: [Probe, WholeFile, Blur, Cut]\n"


@pytest.fixture
def clock(monkeypatch):
    class Clock:
        offset = 0.0

    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + Clock.offset)
    return Clock


def test_runs_stay_in_their_order_when_the_clock_is_set_back(tmp_path, clock):
    media = tmp_path / "media"
    media.mkdir()
    (media / "a.png").write_bytes(b"no picture")
    recipe = recipe_file(tmp_path, RECIPE)
    made = []
    for offset in (0.0, 400 * 86_400.0, 0.0, -3600.0, -3600.0):
        clock.offset = offset
        curation = Curation(
            CurateOptions(sources=(str(media),), workspace=tmp_path / "w", recipe=recipe, workers=0)
        )
        for step in curation.steps():
            clock.offset -= 60.0  # and back, while it runs
            step.run()
        made.append(curation.result())
    place = open_workspace(tmp_path / "w")
    names = [result.run for result in made]
    assert known_runs(place) == names == sorted(names)
    assert read_run(place).run == names[-1]
    assert all(0 <= result.seconds < 60 for result in made)


def test_two_runs_within_a_second_stay_in_their_order(tmp_path):
    place = open_workspace(tmp_path / "w")
    names = []
    for _ in range(20):
        names.append(run_id(place))
        (place.runs / names[-1]).mkdir(parents=True)
    assert names == sorted(names)
    assert all(re.fullmatch(r"\d{8}-\d{6}-[0-9a-f]{4}", name) for name in names)


@pytest.mark.parametrize("name", ["99991231-235959-0000", "20269999-000000-0000", "other", "..x"])
def test_odd_names_among_the_runs_are_no_obstacle(tmp_path, name):
    place = open_workspace(tmp_path / "w")
    (place.runs / name).mkdir(parents=True)
    assert re.fullmatch(r"\d{8}-\d{6}-[0-9a-f]{4}", run_id(place))
