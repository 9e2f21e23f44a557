import json

import pytest
import torch

from reelmill.errors import CheckpointError, WorkspaceError
from reelmill.training.checkpoint import Checkpoint, latest, load, save


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
