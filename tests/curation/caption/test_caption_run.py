"""A whole run with a caption model: asked once for each clip, and its failures are the clip's."""

from __future__ import annotations

import json
import tarfile
import threading
from pathlib import Path

import pytest
from tests.caption_server import Question, model_on_loopback
from tests.media import noise, noise_video, sound_file, still
from tests.small_run import recipe_file

from reelmill.curation.caption.caption import Caption
from reelmill.curation.engine import CurateOptions, Curation
from reelmill.curation.result import CurateResult

RECIPE = """
kind: video
max_failed: 1.0
stages:
  - Probe
  - Integrity
  - Shots: {min_seconds: 0.5}
  - Voice
  - Caption: {model: MODEL, url: "URL", tries: 2, at_once: 1}
  - Cut
"""


def run(
    folder: Path, url: str = "", model: str = "seer", workers: int = 1, text: str = RECIPE
) -> CurateResult:
    recipe = recipe_file(folder, text.replace("MODEL", model).replace("URL", url))
    options = CurateOptions(
        sources=(str(folder / "media"),), workspace=folder / "w", recipe=recipe, workers=workers,
        allow_missing=True,
    )  # fmt: skip
    curation = Curation(options)
    for step in curation.steps():
        step.run()
    return curation.result()


def texts(result: CurateResult) -> dict[str, str]:
    found = {}
    for shard in result.shards:
        with tarfile.open(shard) as tar:
            for member in tar:
                if member.name.endswith(".txt"):
                    found[member.name] = tar.extractfile(member).read().decode()
    return found


@pytest.fixture
def films(tmp_path) -> Path:
    (tmp_path / "media").mkdir()
    for seed in range(3):
        noise_video(tmp_path / "media" / f"{seed}.mp4", seconds=1.0, seed=seed)
    return tmp_path


def test_each_clip_is_asked_about_once_wherever_the_model_is(films):
    with model_on_loopback() as model:
        first = run(films, model.url)
        assert first.clips.kept == 3
        assert len(model.asked) == 3
        made = texts(first)
        assert len(made) == 3
        for question in model.asked:
            assert sum(f"Much to see in {question.clip}." in text for text in made.values()) == 1
        assert run(films, f"{model.url}/").redone == 0
        assert len(model.asked) == 3
        run(films, model.url, "another")
        assert len(model.asked) == 6


def test_what_a_model_would_not_say_is_failed_and_tried_by_the_next_run(films):
    with model_on_loopback() as model:
        model.answer = lambda q: "<html>" if q.clip == model.asked[0].clip else model.well(q)
        first = run(films, model.url)
        assert first.clips.to_json() == {"in": 3, "kept": 2, "rejected": 0, "failed": 1}
        model.answer = None
        before = len(model.asked)
        assert run(films, model.url).clips.kept == 3
        assert len(model.asked) == before + 1


def test_a_caption_that_was_given_is_kept_and_the_measured_one_stands_beside_it(films):
    (films / "media" / "1.txt").write_text("a given caption")
    still(films / "media" / "picture.jpg")
    with_model = run(films, model='""')
    found = sorted(texts(with_model).values())
    assert found.count("a given caption") == 1
    assert sum(text.startswith("A video.") for text in found) == 2


@pytest.mark.parametrize("kind", ["image", "audio"])
def test_pictures_are_seen_and_recordings_are_heard(tmp_path, kind):
    """Through the engine, in kinds other than film."""
    media = tmp_path / "media"
    media.mkdir()
    still(media / "a.jpg") if kind == "image" else sound_file(media / "a.flac", noise(4.0))
    first = "WholeFile" if kind == "image" else "Chunks"
    with model_on_loopback() as model:
        text = RECIPE.replace("kind: video", f"kind: {kind}").replace("  - Integrity\n", "")
        text = text.replace("  - Voice\n", "").replace("Shots: {min_seconds: 0.5}", first)
        text = text.replace("tries: 2", "sound_model: hearer, tries: 2")
        recipe = recipe_file(tmp_path, text.replace("MODEL", "seer").replace("URL", model.url))
        options = CurateOptions(
            sources=(str(media),), workspace=tmp_path / "w", recipe=recipe, workers=1
        )
        curation = Curation(options)
        for step in curation.steps():
            step.run()
        (said,) = texts(curation.result()).values()
        (question,) = model.asked
    assert (question.pictures, question.sounds) == ((1, 0) if kind == "image" else (0, 1))
    assert question.clip in said


def meeting(most: int):
    """An answer that waits until as many questions are there at once: each from a worker."""
    barrier = threading.Barrier(most, timeout=30)

    return barrier.wait


def test_a_caption_that_another_worker_was_given_is_caught(films, monkeypatch):
    monkeypatch.setattr(Caption, "batch_size", 1)  # so that both workers get a clip
    one = RECIPE.replace("tries: 2", "tries: 1")
    with model_on_loopback() as model:
        wait = meeting(2)

        def same(question: Question) -> str:
            wait()  # both workers have asked before any is answered
            return json.dumps({"clip": question.clip, "short": "A.", "long": "The same words."})

        (films / "media/2.mp4").unlink()
        model.answer = same
        result = run(films, model.url, workers=2, text=one)
        assert len(model.asked) == 2
    assert (result.clips.kept, result.clips.failed) == (1, 1)
    assert not any(path.is_dir() for path in (films / "w/asked").iterdir())


def test_a_caption_that_an_earlier_run_was_given_is_caught(films):
    def same(question: Question) -> str:
        return json.dumps({"clip": question.clip, "short": "A.", "long": "The same words."})

    new = (films / "media/2.mp4").rename(films / "2.mp4")
    (films / "media/1.mp4").unlink()
    with model_on_loopback() as model:
        model.answer = same
        assert run(films, model.url).clips.kept == 1
        new.rename(films / "media/2.mp4")
        second = run(films, model.url)
        assert (second.clips.kept, second.clips.failed) == (1, 1)
        assert len(model.asked) == 1 + 2  # tried twice
        assert run(films, model.url, "another").clips.kept == 1  # whose own captions are new
        model.answer = None
        assert run(films, model.url).clips.kept == 2


@pytest.mark.slow
def test_a_budget_is_that_of_all_workers(films, monkeypatch):
    monkeypatch.setattr(Caption, "batch_size", 1)
    for seed in range(3, 9):
        noise_video(films / "media" / f"{seed}.mp4", seconds=1.0, seed=seed)
    four = RECIPE.replace("tries: 2", "tries: 1, max_questions: 4")
    with model_on_loopback() as model:
        first = run(films, model.url, workers=2, text=four)
        assert len(model.asked) == 4
        assert (first.clips.kept, first.clips.failed) == (4, 5)
        second = run(films, model.url, workers=2, text=four)
        assert len(model.asked) == 8
        assert (second.clips.kept, second.clips.failed) == (8, 1)
