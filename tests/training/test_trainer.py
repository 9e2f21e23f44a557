import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import safetensors.torch
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tests.scene_shards import film_sample, still_sample, write_set

from reelmill.datasets.approval import approve
from reelmill.datasets.latents import LatentDataset
from reelmill.datasets.shards import read_manifest
from reelmill.datasets.workspace import open_workspace
from reelmill.errors import (
    CheckpointError,
    DatasetError,
    Diverged,
    GateError,
    Interrupted,
    UsageError,
)
from reelmill.model.pipeline import Pipeline
from reelmill.reports.training import render_training
from reelmill.training import checkpoint as checkpoints
from reelmill.training.config import TrainOptions
from reelmill.training.curriculum import Curriculum, Model, Optim, TrainStage
from reelmill.training.encode import EncodeOptions, encode
from reelmill.training.trainer import train

pytestmark = pytest.mark.long

TASKS = {"v2a": 3.0, "t2av": 2.0, "t2i": 1.0, "i2v": 1.0, "a2v": 1.0}


def make_curriculum(steps=12, *, tasks=TASKS, lr=2e-3, **fields):
    stage = {
        "name": "joint",
        "tasks": tasks,
        "steps": steps,
        "batch": 4,
        "optim": Optim(lr=lr, warmup_steps=3),
        "held_out": 0.3,
        "validate_every": 5,
        "checkpoint_every": 4,
    }
    stages = (TrainStage(**(stage | fields)),)
    return Curriculum(name="test", model=Model(preset="tiny", patch=(1, 4, 4)), stages=stages)


@pytest.fixture(scope="module")
def latents(tmp_path_factory):
    root = tmp_path_factory.mktemp("latents")
    films = [film_sample(i, seconds=1.1) for i in range(12)]
    shards = [
        write_set(root / "shards" / "video", films),
        write_set(root / "shards" / "image", [still_sample(50 + i) for i in range(6)]),
    ]
    options = EncodeOptions(
        shards=tuple(shards), output=root / "set", height=32, width=32, frames=(9,), stride=4
    )
    return encode(options).output


def options(latents, output, curriculum, **fields):
    return TrainOptions(
        latents, output, curriculum, **({"unreviewed": True, "threads": 1} | fields)
    )


def tensors(folder):
    found = checkpoints.latest(folder / "joint" / "checkpoints")
    names = ("weights", "ema", "optimizer")
    return {n: safetensors.torch.load_file(found / f"{n}.safetensors") for n in names}


def assert_equal_runs(a, b):
    left, right = tensors(a), tensors(b)
    for name, group in left.items():
        assert group.keys() == right[name].keys()
        for key, value in group.items():
            assert torch.equal(value, right[name][key]), (name, key)
    assert metrics(a) == metrics(b)


def metrics(folder):
    lines = (folder / "joint" / "metrics.jsonl").read_text().splitlines()
    timed = ("seconds", "pace")
    return [{k: v for k, v in json.loads(line).items() if k not in timed} for line in lines]


@pytest.fixture(scope="module")
def whole(latents, tmp_path_factory):
    """A run that nothing interrupted."""
    output = tmp_path_factory.mktemp("whole")
    return output, train(options(latents, output, make_curriculum()))


CHILD = """
import sys
from pathlib import Path
from reelmill.training.config import TrainOptions
from reelmill.training.curriculum import Curriculum
from reelmill.training.trainer import train
text, latents, output = sys.argv[1:]
print("ready", flush=True)
train(TrainOptions(Path(latents), Path(output), Curriculum.model_validate_json(text),
                   unreviewed=True, threads=1))
"""


def start(latents, output, curriculum):
    command = [sys.executable, "-c", CHILD, curriculum.model_dump_json(), latents, output]
    return subprocess.Popen(command, env=os.environ | {"PYTHONPATH": str(Path.cwd())})


def wait_for_step(child, output, step):
    log = output / "joint" / "metrics.jsonl"
    until = time.monotonic() + 240
    folder = output / "joint" / "checkpoints" / f"step-{step:08d}"
    while not folder.is_dir():
        assert child.poll() is None, "it ended before it could be stopped"
        assert time.monotonic() < until, log
        time.sleep(0.005)


def test_kill_9_and_resume_equal_a_run_that_was_never_interrupted(latents, whole, tmp_path):
    child = start(latents, tmp_path, make_curriculum())
    try:
        wait_for_step(child, tmp_path, 4)
    finally:
        child.kill()
        child.wait()
    assert checkpoints.latest(tmp_path / "joint" / "checkpoints") is not None
    result = train(options(latents, tmp_path, make_curriculum()))
    assert result.resumed_from in (4, 8)
    assert_equal_runs(whole[0], tmp_path)
    assert result.loss_end == whole[1].loss_end
    assert result.loss_start == whole[1].loss_start


@pytest.mark.slow
def test_sigterm_saves_the_step_it_was_at_and_says_that_it_resumes(latents, tmp_path):
    until = make_curriculum(steps=5000, checkpoint_every=4)
    child = start(latents, tmp_path, until)
    try:
        wait_for_step(child, tmp_path, 4)
        child.send_signal(signal.SIGTERM)
        assert child.wait(120) == 1  # a traceback of Interrupted: only the CLI maps it to 75
    finally:
        child.kill()
        child.wait()
    point = checkpoints.load(checkpoints.latest(tmp_path / "joint" / "checkpoints"))
    steps = [m for m in metrics(tmp_path) if "loss" in m]
    assert point.step == len(steps) < 5000


def test_interrupted_is_raised_in_process_and_resumes_bit_exactly(latents, whole, tmp_path):
    def interrupt(done, total, text):
        if done == 6:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(Interrupted, match="step 6 of 12"):
        train(options(latents, tmp_path, make_curriculum()), interrupt)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    result = train(options(latents, tmp_path, make_curriculum()))
    assert result.resumed_from == 6
    assert_equal_runs(whole[0], tmp_path)


def test_a_finished_run_is_not_trained_again(latents, whole):
    before = tensors(whole[0])
    again = train(options(latents, whole[0], make_curriculum()))
    assert (again.steps, again.resumed_from) == (12, 12)
    assert (again.loss_start, again.loss_end) == (whole[1].loss_start, whole[1].loss_end)
    assert torch.equal(
        before["ema"]["video.inp.weight"], tensors(whole[0])["ema"]["video.inp.weight"]
    )


def test_the_ema_is_what_a_recomputation_gives(latents, tmp_path):
    steps = make_curriculum(steps=4, checkpoint_every=1)
    average = None
    for step in range(4):
        stop_at = step + 1

        def interrupt(done, total, text, stop_at=stop_at):
            if done == stop_at:
                signal.raise_signal(signal.SIGINT)

        with contextlib.suppress(Interrupted):
            train(options(latents, tmp_path, steps), interrupt)
        found = tensors(tmp_path)
        weight = found["weights"]["video.inp.weight"].double()
        if average is not None:
            decay = min(0.99, (1 + step) / (10 + step))
            average = decay * average + (1 - decay) * weight
            np.testing.assert_allclose(found["ema"]["video.inp.weight"], average, atol=1e-7)
        else:
            average = found["ema"]["video.inp.weight"].double()


def test_metrics_name_losses_by_task_and_by_time(whole):
    lines = metrics(whole[0])
    tasks = [line["task"] for line in lines if "task" in line]
    assert len(tasks) == 12
    assert all(abs(tasks.count(t) - 12 * w / 8) < 1 for t, w in TASKS.items())
    checks = [line for line in lines if "held_out" in line]
    assert [line["step"] for line in checks] == [5, 10, 12]
    assert set(checks[0]["held_out_by_task"]) == set(TASKS)
    assert any(name.startswith("v2a/audio/t") for name in checks[0]["train"])
    assert not any(name.startswith("v2a/video") for name in checks[0]["train"])


def test_metrics_tell_the_pace_of_every_step(latents, whole):
    with LatentDataset(latents) as data:
        row = next(i for i, n in enumerate(data.column("frames")) if n == 9)
        sounds = data.read(row).audio.shape[1]
    tokens = {"t2i": 1, "t2v": 3, "i2v": 3}
    lines = (whole[0] / "joint" / "metrics.jsonl").read_text().splitlines()
    for line in (line for line in map(json.loads, lines) if "loss" in line):
        pace = line["pace"]
        took = line["seconds"] + pace["data_wait"]
        assert pace["samples_per_s"] == pytest.approx(4 / took, rel=0.02)
        each = tokens.get(line["task"], 3 + sounds)
        assert pace["tokens_per_s"] == pytest.approx(each * pace["samples_per_s"], rel=0.02)
        assert pace["tflops_per_s"] > 0
        assert pace["memory_mib"] > 50
        assert pace["elsewhere"] >= 0
        assert ("mfu" in pace) == torch.cuda.is_available()


def test_the_held_out_loss_falls(latents, tmp_path):
    curriculum = make_curriculum(80, validate_every=80, tasks={"v2a": 1.0}, batch=8, lr=4e-3)
    result = train(options(latents, tmp_path, curriculum))
    assert result.loss_end < 0.95 * result.loss_start


def test_the_export_generates_sound_for_a_picture(latents, whole):
    pipeline = Pipeline.load(whole[1].export)
    assert pipeline.provenance["unreviewed"] is True
    assert pipeline.provenance["step"] == 12
    ema = tensors(whole[0])["ema"]
    assert torch.equal(pipeline.model.state_dict()["video.inp.weight"], ema["video.inp.weight"])
    clip = pipeline.generate(
        "a red circle bounces", task="t2av", frames=9, height=32, width=32, steps=2
    )
    assert clip.video.shape == (9, 32, 32, 3)
    assert clip.audio.shape[1] == round(9 / 16 * clip.audio_rate)


def test_another_config_is_refused_with_the_fields_that_differ(latents, whole):
    with pytest.raises(CheckpointError, match=r"stage\.optim\.lr: saved 0\.002, asked 0\.001"):
        train(options(latents, whole[0], make_curriculum(lr=1e-3)))
    with pytest.raises(CheckpointError, match="seed: saved 0, asked 7"):
        train(options(latents, whole[0], make_curriculum(), seed=7))


def test_a_damaged_checkpoint_is_passed_over_by_name(latents, whole, tmp_path, caplog):
    train(options(latents, tmp_path, make_curriculum()))
    path = tmp_path / "joint" / "checkpoints" / "step-00000012" / "weights.safetensors"
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(bytes(content))
    result = train(options(latents, tmp_path, make_curriculum()))
    assert result.resumed_from == 8
    assert "weights.safetensors" in caplog.text
    assert_equal_runs(whole[0], tmp_path)


def test_data_that_nobody_approved_is_refused(latents, tmp_path):
    with pytest.raises(GateError, match="approve"):
        train(options(latents, tmp_path, make_curriculum(), unreviewed=False))
    assert not (tmp_path / "joint").exists()


def test_an_approval_opens_the_gate_until_a_byte_changes(latents, tmp_path):
    workspace = open_workspace(tmp_path / "w")
    shards = write_set(workspace.shards("video"), [film_sample(i, seconds=1.1) for i in range(4)])
    listed = [{"sha256": shard.sha256} for shard in read_manifest(shards)]
    (workspace.runs / "r1").mkdir(parents=True)
    (workspace.runs / "r1" / "run.json").write_text(json.dumps({"shards": listed}))
    options_ = EncodeOptions((shards,), workspace.latents / "set", height=32, width=32, frames=(9,))
    found = encode(options_).output
    job = options(found, tmp_path / "run", make_curriculum(2, tasks={"v2a": 1.0}), unreviewed=False)
    with pytest.raises(GateError, match="nobody approved"):
        train(job)
    approve(workspace.root, "r1", "somebody")
    assert train(job).unreviewed is False
    (workspace.runs / "r1" / "run.json").write_text(json.dumps({"shards": listed, "x": 1}))
    with pytest.raises(GateError):
        train(job)
    write_set(shards, [film_sample(i, seconds=1.1) for i in range(3)])
    with pytest.raises(DatasetError, match="changed"):
        train(job)


def test_a_stage_starts_from_the_ema_of_the_one_before(latents, tmp_path):
    first = make_curriculum(4, tasks={"t2a": 1.0}, trainable="audio", name="sound")
    second = make_curriculum(2).stages[0].model_copy(update={"init_from": "sound"})
    both = first.model_copy(update={"stages": (*first.stages, second)})
    job = options(latents, tmp_path, both)
    with pytest.raises(CheckpointError, match="Train it first"):
        train(replace(job, stages=("joint",)))
    result = train(job)
    assert [stage.name for stage in result.stages] == ["sound", "joint"]
    start = safetensors.torch.load_file(result.stages[0].checkpoint / "ema.safetensors")
    fresh = first.model.config(4, 40, 64)
    assert start["video.inp.weight"].shape == (64, fresh.video.token_in)
    weights = safetensors.torch.load_file(result.stages[0].checkpoint / "weights.safetensors")
    assert torch.equal(weights["video.inp.weight"], start["video.inp.weight"])  # was not trained
    assert not torch.equal(weights["audio.inp.weight"], start["audio.inp.weight"])
    with pytest.raises(UsageError, match="sound, joint"):
        train(replace(job, stages=("nonesuch",)))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_samples_show_every_checkpoint_and_change_nothing(latents, whole, tmp_path):
    curriculum = make_curriculum(samples=2)
    train(options(latents, tmp_path / "run", curriculum))
    assert_equal_runs(tmp_path / "run", whole[0])
    found = sorted((tmp_path / "run" / "joint" / "samples").iterdir())
    assert [path.name for path in found] == [f"step-{n:08d}.jpg" for n in (4, 8, 12)]
    pictures = [cv2.imread(str(path)) for path in found]
    assert pictures[0].shape == pictures[2].shape
    assert np.abs(pictures[0].astype(int) - pictures[2]).mean() > 1
    train(options(latents, tmp_path / "again", curriculum))
    again = tmp_path / "again" / "joint" / "samples"
    assert [p.read_bytes() for p in sorted(again.iterdir())] == [p.read_bytes() for p in found]
    page = render_training(tmp_path / "run")
    assert page.count("data:image/jpeg") == 3
    assert "12 steps in 1 stage" in page


def test_tensorboard_gets_what_the_log_gets(latents, tmp_path):
    train(options(latents, tmp_path, make_curriculum(2), tensorboard=True))
    events = EventAccumulator(str(tmp_path / "joint" / "tensorboard")).Reload()
    logged = [line["loss"] for line in metrics(tmp_path) if "loss" in line]
    assert [e.value for e in events.Scalars("loss")] == pytest.approx(logged)


def test_a_loss_that_is_not_finite_is_never_applied_and_ends_the_run(
    latents, tmp_path, monkeypatch
):
    members = LatentDataset.members

    def poisoned(self, rows):
        found = members(self, rows)
        for number, row in enumerate(rows):
            if self.column("has_audio")[row] and not row % 2:
                found.one(number, "video")[...] = np.inf
        return found

    curriculum = make_curriculum(tasks={"t2v": 1.0}, held_out=0.3)
    train(
        options(
            latents,
            tmp_path,
            curriculum.model_copy(
                update={"stages": (curriculum.stages[0].model_copy(update={"steps": 4}),)}
            ),
        )
    )
    monkeypatch.setattr(LatentDataset, "members", poisoned)
    with pytest.raises(Diverged):
        train(options(latents, tmp_path / "other", curriculum))
    saved = tensors(tmp_path)
    assert all(bool(v.isfinite().all()) for group in saved.values() for v in group.values())


def test_a_task_without_samples_names_itself(latents, tmp_path):
    only = encode_stills(tmp_path)
    with pytest.raises(DatasetError, match="'v2a'"):
        train(options(only, tmp_path / "run", make_curriculum(tasks={"v2a": 1.0})))


def encode_stills(folder: Path):
    shards = write_set(folder / "image", [still_sample(80 + i) for i in range(4)])
    films = write_set(
        folder / "video", [film_sample(i, seconds=1.1, silent=i > 0) for i in range(2)]
    )
    return encode(
        EncodeOptions((shards, films), folder / "set", height=32, width=32, frames=(9,))
    ).output
