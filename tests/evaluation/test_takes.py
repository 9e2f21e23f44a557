"""From a bench to clips on disk: our models', killed and resumed, and other systems'."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from tests.evaluation.footage import prompt
from typer.testing import CliRunner

from reelmill import console
from reelmill.commands.evaluate import app
from reelmill.errors import UsageError
from reelmill.evaluation.bench import Bench
from reelmill.evaluation.clips import find_clips
from reelmill.evaluation.takes import adopt, plan_takes
from reelmill.model.codecs.mel_pca import MelPCAAudio
from reelmill.model.codecs.patch_pca import PatchPCAVideo
from reelmill.model.config import preset
from reelmill.model.encoders.hash_text import HashTextEncoder
from reelmill.model.mmdit import MMDiT
from reelmill.model.pipeline import Pipeline

pytestmark = pytest.mark.long

BENCH = Bench(prompts=tuple(prompt(id=f"p{i}") for i in range(4)))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    random = np.random.default_rng(0)
    frames = random.integers(0, 256, (17, 32, 32, 3), dtype=np.uint8)
    video = PatchPCAVideo.fit([frames], channels=4)
    audio = MelPCAAudio.fit([random.standard_normal(40_000).astype(np.float32) / 9], channels=4)
    encoder = HashTextEncoder()
    config = preset("tiny", video_channels=4, audio_channels=4, text_dim=encoder.width)
    return Pipeline(MMDiT(config), video, audio, encoder).save(tmp_path_factory.mktemp("m") / "x")


def bench_file(folder: Path) -> Path:
    path = folder / "bench.yaml"
    rows = [p.model_dump(mode="json") for p in BENCH.prompts]
    path.write_text(yaml.safe_dump(rows))
    return path


@pytest.mark.slow
def test_clips_are_made_once_also_when_killed_between(model: Path, tmp_path: Path):
    out = tmp_path / "clips" / "ours"
    args = ["generate", "--model", str(model), "--out", str(out), "--prompts",
            str(bench_file(tmp_path)), "--seeds", "2", "--height", "32", "--width", "32",
            "--steps", "1", "--frames", "5", "--json"]  # fmt: skip
    first = out / "p0_0.mp4.json"
    child = subprocess.Popen(
        [sys.executable, "-c", "from reelmill.cli import main; main()", "evaluate", *args],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    end = time.monotonic() + 60
    while not first.exists() and child.poll() is None and time.monotonic() < end:
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    child.wait()
    there = {path: path.read_bytes() for path in out.glob("*.mp4") if told(path).exists()}
    assert there

    console.set_json(False)
    answer = json.loads(CliRunner().invoke(app, args).stdout.splitlines()[-1])
    assert answer["made"] + answer["reused"] == 8
    assert answer["reused"] >= len(there) > 0
    assert all(path.read_bytes() == data for path, data in there.items())
    entries = find_clips(tmp_path / "clips")
    assert [(e.model, e.prompt, e.seed) for e in entries] == [
        ("ours", f"p{i}", seed) for i in range(4) for seed in range(2)
    ]
    provenance = json.loads(told(out / "p3_1.mp4").read_text())
    assert (provenance["seed"], provenance["prompt"]) == (1, BENCH.prompts[3].text)


def told(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())


def test_another_systems_clips_are_found_by_the_pattern_and_the_missing_are_named(tmp_path: Path):
    touch(tmp_path, "0000/take0.mp4", "0001/take0.mp4", "3/take1.mov", "9/take0.mp4", "notes.txt",
          "0002/take7.mp4")  # fmt: skip
    found = adopt(tmp_path, "rival", BENCH, range(2), "{index}/take{seed}")
    assert [(e.model, e.prompt, e.seed) for e in found.entries] == [
        ("rival", "p0", 0),
        ("rival", "p1", 0),
        ("rival", "p3", 1),
    ]
    assert found.missing == ("p0_1", "p1_1", "p2_0", "p2_1", "p3_0")
    assert found.strange == ("0002/take7.mp4", "9/take0.mp4")
    touch(tmp_path, "00/take0.mp4")
    with pytest.raises(UsageError, match="are both p0_0"):
        adopt(tmp_path, "rival", BENCH, range(2), "{index}/take{seed}")


@pytest.mark.parametrize("names", ["{seed}", "{prompt}{index}", "{prompt}{prompt}", "{model}", "x"])
def test_a_pattern_that_names_no_take_is_refused(names: str, tmp_path: Path):
    with pytest.raises(UsageError, match="names"):
        adopt(tmp_path, "rival", BENCH, range(1), names)


@given(st.text("ab.*+()[]\\^$|? -_", max_size=6), st.integers(0, 3), st.integers(0, 9))
def test_a_pattern_is_text_and_no_regular_expression(text: str, index: int, seed: int):
    import re

    from reelmill.evaluation.takes import _name, _regex

    match = re.compile(_regex(f"{text}_{{prompt}}_{{seed}}")).fullmatch(f"{text}_p{index}_{seed}")
    assert _name(match, BENCH) == f"p{index}_{seed}"


def test_a_manifest_is_written_for_what_is_there(tmp_path: Path):
    touch(tmp_path / "rival", "p0_0.mp4", "p2_0.mp4")
    args = ["adopt", str(tmp_path / "rival"), "--name", "rival", "-o", str(tmp_path / "m.jsonl"),
            "--prompts", str(bench_file(tmp_path)), "--json"]  # fmt: skip
    console.set_json(False)
    result = CliRunner().invoke(app, args)
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout.splitlines()[-1])["missing"] == ["p1_0", "p3_0"]
    assert [e.prompt for e in find_clips(tmp_path / "m.jsonl")] == ["p0", "p2"]


def test_seeds_are_different_and_not_below_nought():
    assert [t.name for t in plan_takes(BENCH, (3, 1))][:2] == ["p0_3", "p0_1"]
    for seeds in ((), (1, 1), (-1,)):
        with pytest.raises(UsageError, match="seeds"):
            plan_takes(BENCH, seeds)
