"""A whole run whose shots are joined by a model: asked once, kept, and told in the shards."""

from __future__ import annotations

import hashlib
import json
import tarfile
from pathlib import Path

import pytest
from tests.caption_server import Question, model_on_loopback
from tests.frames import joined, moving
from tests.small_run import curate, options, recipe_file

from reelmill.curation import measure
from reelmill.curation.explain.plan import make_plan
from reelmill.curation.video.continuity import boundary_name
from reelmill.datasets.media.encode import write_video

RECIPE = """
kind: video
max_failed: 1.0
stages:
  - Probe
  - Shots: {min_seconds: 0.5, join: model}
  - Continuity: {model: seer, url: "URL", tries: 2}
  - Cut: {preset: ultrafast}
"""
CUTS = (30, 60, 100)


@pytest.fixture
def films(tmp_path) -> Path:
    """Two films of four shots, cut before frames 30, 60 and 100."""
    folder = tmp_path / "media"
    folder.mkdir()
    for seed in (1, 2):
        shots = [moving(n, seed=9 * seed + i, step=1) for i, n in enumerate((30, 30, 40, 28))]
        write_video(folder / f"{seed}.mp4", joined(shots), fps=25)
    return tmp_path


def run(folder: Path, url: str, *overrides: str):
    recipe = recipe_file(folder, RECIPE.replace("URL", url))
    return curate(folder / "media", folder / "w", *overrides, recipe=recipe, workers=0)


def plan(folder: Path, url: str, *overrides: str):
    recipe = recipe_file(folder, RECIPE.replace("URL", url))
    return make_plan(options(folder / "media", folder / "w", *overrides, recipe=recipe))


def records(result) -> dict[tuple[str, int], dict]:
    found = {}
    for shard in result.shards:
        with tarfile.open(shard) as tar:
            for member in tar:
                if member.name.endswith(".json"):
                    record = json.loads(tar.extractfile(member).read())
                    found[record["file"], record["start_us"]] = record
    return found


def answers(folder: Path, same: set[int]):
    """A model for which the shots on both sides of some cuts are one scene."""
    names = {}
    for path in sorted((folder / "media").iterdir()):
        asset = hashlib.sha256(path.read_bytes()).hexdigest()
        names |= {boundary_name(asset, cut, "seer"): cut in same for cut in CUTS}

    def answer(question: Question) -> str:
        return json.dumps({"clip": question.clip, "same": names[question.clip]})

    return answer


def test_a_model_joins_shots_once_and_the_shards_tell_of_them(films, monkeypatch):
    with model_on_loopback() as model:
        model.answer = answers(films, {60})
        first = run(films, model.url)
        assert len(model.asked) == 6
        assert {q.pictures for q in model.asked} == {4}
        told = records(first)
        spans = {(r["start_us"], r["end_us"]) for (name, _), r in told.items() if name == "1.mp4"}
        assert spans == {(0, 1_200_000), (1_200_000, 4_000_000), (4_000_000, 5_120_000)}
        inner = told["1.mp4", 1_200_000]
        assert [s["start_frame"] for s in inner["shots"]] == [0, 30]
        assert [s["end_s"] for s in inner["shots"]] == [1.2, 2.8]
        assert inner["facts"]["shots"] == 2
        assert [len(told["2.mp4", s]["shots"]) for s in (0, 4_000_000)] == [1, 1]

        opened = []
        for name in ("decode", "clip_frames", "clip_audio", "probe"):
            real = getattr(measure, name)
            monkeypatch.setattr(
                measure, name, lambda *a, r=real, **k: opened.append(a) or r(*a, **k)
            )
        again = run(films, model.url, "Shots.min_shot_seconds=1.3")  # no cut at 30 then
        assert len(model.asked) == 6
        assert opened == []
        told = {start: r["facts"]["shots"] for (name, start), r in records(again).items()}
        assert told == {0: 2, 4_000_000: 1}  # cuts at 60 and 100, of which 60 is within a scene
        assert plan(films, model.url, "Shots.min_shot_seconds=1.3").todo == 0


def test_a_film_that_nobody_answers_about_waits_for_the_next_run(films):
    with model_on_loopback() as model:
        good = answers(films, set())
        model.answer = lambda q: "no idea"
        first = run(films, model.url)
        assert first.assets.failed == 2
        assert first.clips.into == 0
        model.answer = good
        assert plan(films, model.url).waiting == 2
        second = run(films, model.url)
        assert second.assets.failed == 0
        assert second.clips.kept == 8


def test_an_answer_about_another_boundary_is_asked_for_again(films):
    with model_on_loopback() as model:
        good = answers(films, {30, 60, 100})
        first: list[Question] = []

        def swapped(question: Question) -> str:
            if not first:
                first.append(question)
                return json.dumps({"clip": "0" * 16, "same": False})
            return good(question)

        model.answer = swapped
        result = run(films, model.url)
        assert len(model.asked) == 7
        assert result.clips.kept == 2
