"""Clips against the corpus' truth: which of two sets is better, on what, and when it is a tie."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import yaml
from tests.evaluation.footage import prompt
from tests.latents import make_sample
from tests.latents import write as write_latents

from reelmill.datasets.corpus.corpus import make_corpus
from reelmill.datasets.corpus.render import render_scene
from reelmill.datasets.corpus.scene import Scene, random_scene
from reelmill.datasets.corpus.sound import scene_audio
from reelmill.datasets.latents import held_out_rows
from reelmill.datasets.media.encode import write_video
from reelmill.errors import PromptError, UsageError
from reelmill.evaluation.bench import Bench, Prompt, read_bench
from reelmill.evaluation.clip import ClipMedia, read_clip
from reelmill.evaluation.clips import find_clips
from reelmill.evaluation.corpus_bench import write_corpus_bench
from reelmill.evaluation.measure import measure
from reelmill.evaluation.metric import NotApplicable
from reelmill.evaluation.metrics.planted import (
    ColourHit,
    GroundHit,
    OnsetAgreement,
    ShapeHit,
    against_truth,
)
from reelmill.evaluation.summary import Summary
from reelmill.evaluation.takes import plan_takes, request_lines

FPS, RATE, SECONDS, PROMPTS = 16, 16_000, 33 / 16, 6


def scene(seed: int) -> Scene:
    return random_scene(
        seed, seconds=SECONDS, size=(64, 64), contrast=12, bounces_per_second=(2.0, 3.0)
    )


def write(path: Path, seen: Scene, heard: Scene, late: float = 0.0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    sound = np.roll(scene_audio(heard, RATE), round(late * RATE), axis=1)
    write_video(path, render_scene(seen, FPS), fps=Fraction(FPS), audio=sound, audio_rate=RATE)
    return path


def asked(seed: int, **changes) -> Prompt:
    one = scene(seed)
    onsets = tuple(b.t for b in one.bounces)
    fields = {"id": f"s{seed}", "text": one.caption, "seconds": SECONDS, "scene_known": True}
    return prompt(**(fields | {"onsets": onsets} | changes))


def value(metric, clip: ClipMedia, wanted: Prompt) -> float:
    found = metric.measure(replace(clip, prompt=wanted))
    assert isinstance(found, float), found
    return found


def test_true_clips_hit_and_those_of_another_scene_miss(tmp_path: Path):
    right, wrong = {}, {}
    for seed in range(PROMPTS):
        clip = read_clip(write(tmp_path / f"{seed}.mp4", scene(seed), scene(seed)))
        for metric in against_truth():
            right.setdefault(metric.name, []).append(value(metric, clip, asked(seed)))
            other = asked(seed + PROMPTS)
            wrong.setdefault(metric.name, []).append(value(metric, clip, other))
    means = {name: (np.mean(v), np.mean(wrong[name])) for name, v in right.items()}
    for name in ("ColourHit", "GroundHit", "OnsetAgreement"):
        assert means[name][0] > 0.9, means
        assert means[name][1] < 0.65, means  # colours of two scenes may be the same
    assert means["ShapeHit"][0] > 0.8, means
    assert means["ShapeHit"][1] < 0.3, means


def test_agreement_falls_with_every_step_that_sound_is_late(tmp_path: Path):
    found = []
    for i, late in enumerate((0.0, 0.04, 0.08, 0.12)):
        clip = read_clip(write(tmp_path / f"{i}.mp4", scene(1), scene(1), late))
        found.append(value(OnsetAgreement(), clip, asked(1)))
    assert found[0] > 0.9
    assert all(a > b + 0.05 for a, b in pairwise(found)), found


def test_nothing_is_said_of_prompts_without_a_truth(tmp_path: Path):
    clip = read_clip(write(tmp_path / "a.mp4", scene(1), scene(1)))
    for wanted in (prompt(), asked(1, onsets=None, scene_known=False, text=prompt().text), None):
        for metric in against_truth():
            assert isinstance(metric.measure(replace(clip, prompt=wanted)), NotApplicable)
    given = asked(1, video="x.mp4")  # its picture is not the model's
    for metric in (ColourHit(), ShapeHit(), GroundHit()):
        assert isinstance(metric.measure(replace(clip, prompt=given)), NotApplicable)
    silent = replace(clip, prompt=asked(1, onsets=()))
    assert isinstance(OnsetAgreement().measure(silent), NotApplicable)


@pytest.fixture(scope="module")
def summary(tmp_path_factory: pytest.TempPathFactory) -> Summary:
    """`true`: clips as asked for; `again`: the same files; `late`: sound 0.2 s late; `other`: what
    is seen is another scene."""
    home = tmp_path_factory.mktemp("sets")
    for seed in range(PROMPTS):
        own, strange = scene(seed), scene(seed + PROMPTS)
        path = write(home / "true" / f"s{seed}_0.mp4", own, own)
        (home / "again").mkdir(exist_ok=True)
        shutil.copy(path, home / "again" / path.name)
        write(home / "late" / path.name, own, own, 0.2)
        write(home / "other" / path.name, strange, own)
    bench = Bench(prompts=tuple(asked(seed) for seed in range(PROMPTS)))
    made = measure(find_clips(home), against_truth(), home / "scores", bench=bench)
    return made.summary


def test_the_same_clips_under_two_names_are_tied(summary: Summary):
    found = summary.standing("true", "again")
    assert (found.better, found.first_on, found.second_on) == ("tied", (), ())
    assert found.judged == 4
    for metric in against_truth():
        c = summary.comparison("again", "true", metric.name)
        assert (c.gain.mean, c.gain.low, c.gain.high, c.verdict) == (0, 0, 0, "tied")


def test_the_better_of_two_is_named_with_what_it_is_better_on(summary: Summary):
    found = summary.standing("late", "true")
    assert (found.better, found.second_on) == ("true", ("OnsetAgreement",))
    assert "true is better on OnsetAgreement" in str(found)
    gain = summary.comparison("late", "true", "OnsetAgreement").gain
    assert gain.low < gain.mean < gain.high < 0

    found = summary.standing("true", "other")
    assert found.better == "true"
    assert "ColourHit" in found.second_on
    assert "OnsetAgreement" not in found.second_on

    found = summary.standing("late", "other")
    assert found.better == "mixed"


def test_a_standing_needs_what_was_asked_for(tmp_path: Path):
    for name in ("a", "b"):
        write(tmp_path / name / "s1_0.mp4", scene(1), scene(1))
    bench = Bench(prompts=(asked(1),))
    made = measure(find_clips(tmp_path), against_truth(), tmp_path / "out", bench=bench)
    assert made.summary.standing("a", "b").better == "unclear"  # one prompt says nothing


@pytest.mark.slow
def test_the_bench_of_a_corpus_holds_what_was_never_trained_on(tmp_path: Path):
    corpus, latents = tmp_path / "corpus", tmp_path / "latents"
    truth = make_corpus(corpus, seed=3, training_clips=5)
    files = [file for file in truth.files if file.training]
    samples = [
        replace(
            make_sample(i), asset=file.sha256, meta=make_sample(i).meta | {"asset": file.sha256}
        )
        for i, file in enumerate(files)
    ]
    write_latents(latents, samples)
    out = tmp_path / "bench.yaml"
    made = write_corpus_bench(corpus, latents, out, share=0.4)
    held = held_out_rows([file.sha256 for file in files], 0.4)
    names = {Path(f.name).stem.replace("_", "-") for f, h in zip(files, held, strict=True) if h}
    assert len(names) == 2
    assert {p.id for p in made.prompts} == {
        f"{n}-{task}" for n in names for task in ("t2av", "v2a")
    }
    read = read_bench([out])
    given = [p for p in read.prompts if p.video]
    assert all(Path(p.video).is_file() for p in given)
    assert {p.video.rpartition("/")[2] for p in given} <= {Path(f.name).name for f in files}
    for p in given:
        metric = OnsetAgreement().measure(read_clip(Path(p.video), p))
        assert isinstance(metric, NotApplicable) or metric > 0.3  # the video is longer than asked
    lines = [json.loads(line) for line in request_lines(plan_takes(read, [0]), {}).splitlines()]
    assert [row.get("task") for row in lines] == ["v2a" if p.video else None for p in read.prompts]
    with pytest.raises(UsageError, match="in or above"):
        write_corpus_bench(corpus, latents, tmp_path / "sub" / "bench.yaml")


def test_a_video_outside_the_list_of_prompts_is_refused(tmp_path: Path):
    (tmp_path / "x.mp4").write_bytes(b"")
    home = tmp_path / "home"
    home.mkdir()
    for video in ("../x.mp4", str(tmp_path / "x.mp4"), "none.mp4"):
        row = asked(1).model_dump(mode="json") | {"video": video}
        (home / "bench.yaml").write_text(yaml.safe_dump([row]))
        with pytest.raises(PromptError, match="no file below"):
            read_bench([home / "bench.yaml"])
