"""Where: the bytes that it names are the clip's; training runs are told by their latents."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from reelmill.curation.explain.whereabouts import Whereabouts
from reelmill.datasets.latents import LatentSample, PartWriter, finish, held_out_rows
from reelmill.datasets.shards import iter_shard
from reelmill.datasets.workspace import Workspace, open_workspace
from reelmill.errors import DatasetError


def write_latents(place: Workspace, samples: dict[str, str], name: str = "video"):
    """Latents of clips by key, with their asset."""
    folder = place.latents / name
    folder.mkdir(parents=True)
    part = PartWriter(folder, "part-0", "key")
    for key, asset in samples.items():
        meta = {"frames": 1, "height": 8, "width": 8, "caption": ""}
        part.add(LatentSample(key, asset, np.zeros((1, 1, 1, 1), np.float32), None, None, meta))
    part.commit()
    return finish(
        folder, ["part-0"], video="v", audio="a", text="", sources={}, options={},
        constants={"null_text": np.zeros((1, 1), np.float32)},
    )  # fmt: skip


def write_checkpoint(place: Workspace, stage: str, latents: str, held_out: float = 0.0) -> Path:
    import torch

    from reelmill.training.checkpoint import Checkpoint, save

    one = {"w": torch.zeros(1)}
    config = {"stage": {"name": stage, "held_out": held_out}, "latents": latents}
    folder = place.checkpoints / stage / "checkpoints"
    return save(folder, Checkpoint(7, one, one, one, {}, config))


def test_member_offsets_lead_to_the_clips_bytes(ran):
    found = Whereabouts.of(open_workspace(ran), "fine.mp4")
    assert {m.member for m in found.shards} == {"mp4", "json"}
    (shard,) = {m.shard for m in found.shards}
    members = dict(iter_shard(Path(shard)))[found.clips[0]["clip"]]
    for member in found.shards:
        data = Path(shard).read_bytes()[member.offset : member.offset + member.size]
        assert data == members[member.member]
    assert json.loads(members["json"])["asset"] == found.sha256
    assert found.kept == 1


def test_what_was_rejected_is_in_no_shard(ran):
    found = Whereabouts.of(open_workspace(ran), "quiet.mp4")
    assert (found.shards, found.latents, found.training, found.kept) == ((), (), (), 0)


def test_training_runs_are_told_by_the_latents_that_they_read(workspace):
    found = Whereabouts.of(workspace, "fine.mp4")
    clip, asset = found.clips[0]["clip"], found.sha256
    other = Whereabouts.of(workspace, "again.mp4").sha256
    both = {clip: asset, f"{other[:16]}_0_1": other}
    mine = write_latents(workspace, dict(sorted(both.items())))
    without = write_latents(workspace, {f"{other[:16]}_0_1": other}, "without")
    write_checkpoint(workspace, "saw", mine.digest)
    write_checkpoint(workspace, "not", without.digest)
    write_checkpoint(workspace, "old", "0" * 64)
    share = 0.5
    write_checkpoint(workspace, "held", mine.digest, share)
    held = held_out_rows(list(both.values()), share)[list(both.values()).index(asset)]
    found = Whereabouts.of(workspace, "fine.mp4")
    assert {(m.member, m.clip) for m in found.latents} == {("safetensors", clip), ("json", clip)}
    assert {t.stage: (t.role, t.known, t.step) for t in found.training} == {
        "saw": ("trained", True, 7),
        "old": ("unknown", False, 7),
        "held": ("validated" if held else "trained", True, 7),
    }


def test_a_damaged_checkpoint_manifest_is_our_error(workspace):
    path = write_checkpoint(workspace, "saw", "0" * 64)
    (path / "manifest.json").write_text("{")
    with pytest.raises(DatasetError, match="damaged"):
        Whereabouts.of(workspace, "fine.mp4")
