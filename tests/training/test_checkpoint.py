import json
import random
import subprocess
import sys
import threading
import time

import pytest
import torch

from reelmill.errors import CheckpointError, WorkspaceError
from reelmill.training import checkpoint as checkpoints
from reelmill.training.checkpoint import Checkpoint, latest, load, place, save
from reelmill.training.writer import Writer


def make(step=1, **config):
    return Checkpoint(
        step=step,
        weights={"a": torch.arange(6.0).reshape(2, 3)},
        ema={"a": torch.ones(2, 3)},
        optimizer={"a.exp_avg": torch.zeros(2, 3), "a.step": torch.tensor(3.0)},
        state={"held_out": [[0, 1.5]]},
        config={"seed": 1, "stage": {"lr": 0.1, "tasks": {"t2v": 1.0}}} | config,
    )


def test_what_is_saved_is_loaded(tmp_path):
    path = save(tmp_path, make(7))
    assert latest(tmp_path) == path
    found = load(path, config=make().config)
    assert (found.step, found.state) == (7, {"held_out": [[0, 1.5]]})
    assert torch.equal(found.weights["a"], torch.arange(6.0).reshape(2, 3))
    assert found.optimizer["a.step"] == 3.0


def test_the_newest_two_are_kept(tmp_path):
    for step in (1, 2, 10, 9):
        save(tmp_path, make(step))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-00000009", "step-00000010"]


def test_differing_fields_are_named_with_both_values(tmp_path):
    path = save(tmp_path, make())
    asked = {"seed": 2, "stage": {"lr": 0.1, "tasks": {"t2v": 1.0, "v2a": 2.0}}}
    with pytest.raises(CheckpointError) as error:
        load(path, config=asked)
    assert "seed: saved 1, asked 2" in str(error.value)
    assert "stage.tasks.v2a: saved None, asked 2.0" in str(error.value)
    assert "lr" not in str(error.value)


@pytest.mark.parametrize(
    "name", ["weights.safetensors", "ema.safetensors", "optimizer.safetensors", "state.json"]
)
def test_one_flipped_byte_anywhere_is_found_and_named(tmp_path, name, caplog):
    old = save(tmp_path, make(1))
    path = save(tmp_path, make(2)) / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(bytes(content))
    with pytest.raises(CheckpointError, match=name):
        load(path.parent)
    assert latest(tmp_path) == old
    assert name in caplog.text


@pytest.mark.parametrize("text", ["", "null", "{}", '{"schema": 9}', "[1]", '{"schema": 1}'])
def test_a_manifest_that_is_none_is_a_checkpoint_error(tmp_path, text):
    path = save(tmp_path, make())
    (path / "manifest.json").write_text(text)
    with pytest.raises(CheckpointError):
        load(path)
    assert latest(tmp_path) is None


def test_a_manifest_cannot_name_files_elsewhere(tmp_path):
    path = save(tmp_path, make())
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["files"]["../../secret"] = "0" * 64
    (path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(CheckpointError):
        load(path)


def test_half_written_folders_do_not_count(tmp_path):
    save(tmp_path, make(1))
    (tmp_path / ".step-00000002.tmp-99").mkdir()
    (tmp_path / "step-00000003").mkdir()
    assert latest(tmp_path).name == "step-00000001"
    assert latest(tmp_path / "nothing") is None


def test_a_folder_that_cannot_be_written_is_a_workspace_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(WorkspaceError, match="cannot be written"):
        save(tmp_path / "file" / "checkpoints", make())


def test_what_is_written_beside_training_is_what_was_when_it_was_taken(tmp_path, monkeypatch):
    write, may_write = checkpoints.save, threading.Event()

    def waiting(folder, point):
        assert may_write.wait(30)
        return write(folder, point)

    monkeypatch.setattr(checkpoints, "save", waiting)
    point = make(3)
    with Writer(tmp_path, background=True) as writer:
        writer.save(point)  # returns although nothing can be written yet
        assert latest(tmp_path) is None
        point.weights["a"].add_(1)
        point.optimizer["a.step"].fill_(9)
        point.state["held_out"].append([3, 2.5])
        may_write.set()
        writer.wait()
    found = load(place(tmp_path, 3))
    assert torch.equal(found.weights["a"], torch.arange(6.0).reshape(2, 3))
    assert found.optimizer["a.step"] == 3.0
    assert found.state == {"held_out": [[0, 1.5]]}


def test_what_goes_wrong_beside_training_is_raised_by_the_next_call(tmp_path):
    (tmp_path / "file").write_text("")
    with Writer(tmp_path / "file" / "checkpoints", background=True) as writer:
        writer.save(make(1))
        with pytest.raises(WorkspaceError, match="cannot be written"):
            writer.wait()
        writer.wait()  # once


@pytest.mark.parametrize("background", [False, True])
def test_what_a_killed_run_left_half_written_is_swept(tmp_path, background):
    old = save(tmp_path, make(1))
    left = tmp_path / ".step-00000002.tmp-99"
    left.mkdir()
    (left / "weights.safetensors").write_bytes(b"half")
    with Writer(tmp_path, background=background) as writer:
        assert list(tmp_path.iterdir()) == [old]
        for step in (2, 3, 4):
            writer.save(make(step))
    assert [load(path).step for path in sorted(tmp_path.iterdir())] == [3, 4]


WRITING = """
import itertools, sys
from pathlib import Path
import torch
from reelmill.training.checkpoint import Checkpoint, latest, load
from reelmill.training.writer import Writer
folder = Path(sys.argv[1])
with Writer(folder, background=True) as writer:
    found = latest(folder)
    first = load(found).step + 1 if found else 1
    for step in itertools.count(first):
        tensors = {"a": torch.full((1_000_000,), float(step))}
        state, config = {"step": step}, {}
        writer.save(Checkpoint(step, tensors, tensors, {"a.exp_avg": tensors["a"]}, state, config))
        print(step, flush=True)
"""


@pytest.mark.slow
def test_kill_9_while_a_checkpoint_is_written_leaves_the_one_before(tmp_path):
    chance, inside, last = random.Random(0), 0, 0
    for _ in range(6):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITING, str(tmp_path)], stdout=subprocess.PIPE, text=True
        )
        for _ in range(chance.randrange(1, 4)):
            assert process.stdout.readline()
        time.sleep(chance.uniform(0, 0.05))
        process.kill()
        process.communicate()
        inside += bool(list(tmp_path.glob(".step-*.tmp-*")))
        found = latest(tmp_path)
        if found is None:
            assert last == 0
            continue
        point = load(found)
        assert last <= point.step == point.state["step"]
        last = point.step
        for group in (point.weights, point.ema, point.optimizer):
            for tensor in group.values():
                assert torch.equal(tensor, torch.full((1_000_000,), float(last)))
    assert inside >= 3
    assert last >= 3
