"""The page of a training run, from planted metrics."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
from tests.reports.test_page import TAGS, Page

from reelmill.errors import UsageError
from reelmill.reports.training import read_stages, render_training, write_training

EVIL = "</script><img src=x onerror=alert(1)>"


def plant(run, *, steps=400, samples=3):
    stage = run / "joint"
    (stage / "checkpoints" / "step-00000400").mkdir(parents=True)
    rng = np.random.default_rng(0)
    lines = []
    for step in range(steps):
        task = "v2a" if step % 4 else EVIL
        record = {"step": step, "task": task, "loss": 2 / (1 + step / 50) + 0.1 * rng.random(),
                  "lr": 1e-3, "grad_norm": 1.0, "seconds": 0.5}  # fmt: skip
        if step == 7:
            record |= {"loss": None, "skipped": ["a"]}
        lines.append(json.dumps(record))
        if step % 100 == 99:
            train = {"v2a/audio": 1.0, **{f"v2a/audio/t{i}": 1.0 - i / 20 for i in range(10)}}
            check = {"step": step + 1, "held_out": 100 / (step + 1),
                     "held_out_by_task": {"v2a": 1.0}, "train": train}  # fmt: skip
            lines.append(json.dumps(check))
    lines += ["{not json", json.dumps({"step": 1})]
    (stage / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    config = {"stage": {"tasks": {"v2a": 3.0, EVIL: 1.0}, "steps": 500, "batch": 16}}
    manifest = {"schema": 1, "step": 400, "config": config}
    (stage / "checkpoints/step-00000400/manifest.json").write_text(json.dumps(manifest))
    (stage / "samples").mkdir()
    for i in range(samples):
        picture = rng.integers(0, 255, (400, 700, 3), np.uint8)
        cv2.imwrite(str(stage / "samples" / f"step-{i:08d}.jpg"), picture)
    return run


def test_the_page_says_what_the_metrics_hold(tmp_path):
    source = render_training(plant(tmp_path))
    page = Page(source)
    assert {name for name, _ in page.elements} <= TAGS | {"polyline", "circle"}
    assert "400 steps in 1 stage" in page.text
    assert "of 500" in page.text
    assert "0.25" in page.text  # the last held-out loss
    assert "32.0 samples/s" in page.text
    assert "2 lines of metrics.jsonl could not be read" in page.text
    rows = [t for t in page.texts if t.strip()]
    place = rows.index("Data mix")
    mix = rows[place:]
    assert mix[mix.index("v2a") :][1:5] == ["75 %", "75 %", "300", "+0.0"]
    assert EVIL in page.text
    assert len(page.all("img")) == 3
    assert all(a["src"].startswith("data:image/jpeg;base64,") for a in page.all("img"))
    assert len([a for a in page.all("svg") if a.get("role") == "img"]) == 3
    for attributes in page.all("svg"):
        assert attributes.get("aria-label")


def test_the_page_stays_below_its_budget_with_many_steps_and_samples(tmp_path):
    plant(tmp_path, steps=20_000, samples=60)
    path = write_training(tmp_path)
    assert path.stat().st_size < 5_000_000
    page = Page(path.read_text())
    assert 5 < len(page.all("img")) < 60
    (stage,) = read_stages(tmp_path)
    assert f"step {len(stage.samples) - 1}" in page.text  # the last is always shown


@pytest.mark.parametrize("value", ["NaN", "Infinity", '"x"', "[]", "1e999", "{}"])
def test_hostile_metrics_give_a_page(tmp_path, value):
    stage = tmp_path / "s"
    stage.mkdir()
    (stage / "metrics.jsonl").write_text(
        f'{{"step": 0, "task": "t", "loss": {value}, "seconds": 1}}\n'
        f'{{"step": 1, "held_out": {value}, "held_out_by_task": {{"t": {value}}}}}\n'
        f'{{"step": 1, "held_out": 1.0, "train": {value}}}\n'
        '{"step": 2, "task": "t", "loss": 0.5, "seconds": 1}\n'
    )
    page = Page(render_training(tmp_path))
    assert "nan" not in page.text.lower()
    assert not any("nan" in str(a.get("points", "")) for a in page.all("polyline"))


def test_a_folder_without_metrics_is_told(tmp_path):
    with pytest.raises(UsageError, match="holds no"):
        render_training(tmp_path)


def test_a_judged_stage_says_where_its_loss_began_and_no_rate_of_batches_that_differ(tmp_path):
    run = plant(tmp_path)
    task = {"name": "v2a", "own": True, "broken": False, "before": 7.25, "after": 1.0}
    judged = {"tasks": [task | {"learned": None, "bound": None}], "reasons": [], "before": 7.25}
    (run / "joint" / "held_out.json").write_text(json.dumps(judged))
    manifest = run / "joint" / "checkpoints" / "step-00000400" / "manifest.json"
    asked = json.loads(manifest.read_bytes())
    asked["config"]["stage"]["tokens"] = 1600
    manifest.write_text(json.dumps(asked))
    page = Page(render_training(run))
    assert "was 7.25" in page.text
    assert "samples/s" not in page.text
    assert "-86.2%" in page.text
