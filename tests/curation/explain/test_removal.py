"""Forget: nothing of the asset is left, everything else is as if it had never been there."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from tests.latents import make_sample, write
from tests.small_run import curate
from tests.trees import digests

from reelmill.curation.explain.failures import forget_failures
from reelmill.curation.explain.history import History
from reelmill.curation.explain.removal import Removal
from reelmill.datasets.latents import LatentDataset
from reelmill.datasets.ledger import Ledger
from reelmill.errors import UsageError, WorkspaceError
from reelmill.reports import page


def mentions(root: Path, *texts: str) -> list[str]:
    """Files that hold one of the texts in their names or bytes."""
    found = []
    for path in root.rglob("*"):
        data = path.read_bytes() if path.is_file() else b""
        if any(t in str(path.relative_to(root)) or t.encode() in data for t in texts):
            found.append(str(path.relative_to(root)))
    return sorted(found)


@pytest.fixture
def shown(workspace):
    """Sha256 of the asset to remove."""
    return History.of(workspace, "fine.mp4").sha256


def test_looking_changes_nothing_and_names_what_holds_it(workspace, shown):
    before = digests(workspace.root)
    found = Removal.look(workspace, "fine.mp4")
    assert digests(workspace.root) == before
    assert found.sha256 == shown
    assert found.samples == 1
    assert len(found.shards) == len(found.runs) == len(found.paths) == 1


def test_nothing_of_the_asset_is_left_but_its_digest(workspace, shown):
    assert len(mentions(workspace.root, shown[:16], "fine.mp4")) > 5
    done = Removal.look(workspace, "fine.mp4").carry_out(workspace)
    assert done.rows > 5
    assert done.files >= 2
    (left,) = mentions(workspace.root, shown[:16], "fine.mp4")
    assert left == f"ledger/removed/{shown}"
    with pytest.raises(UsageError, match="saw no"):
        History.of(workspace, "fine.mp4")
    for run in workspace.runs.iterdir():
        assert page.load(run).totals.clips.kept.count == 2  # the figures of that day stay


@pytest.fixture
def latents(workspace, shown) -> Path:
    """Latent shards of the asset, another file's beside them, and codecs fitted to both."""
    own = [make_sample(i, text=True) for i in range(3)]
    meta = own[1].meta | {"clip": f"{shown[:16]}_0_1", "asset": shown}
    own[1] = replace(own[1], key=f"{shown[:16]}_0_1_9_0", asset=shown, meta=meta)
    folder = workspace.latents / "video"
    write(folder, own).close()
    (folder / "codecs.json").write_text('{"fitted_for": "x", "fitted": ["audio"]}')
    return folder


def test_nothing_of_the_asset_is_left_in_latent_shards(workspace, shown, latents):
    with LatentDataset(latents) as before:
        videos = [before.read(row).video for row in (0, 2)]
    found = Removal.look(workspace, "fine.mp4")
    assert found.latents == (str(latents / "part-00000.tar"),)
    assert found.codecs == (str(latents / "audio_codec"),)
    assert len(mentions(latents, shown[:16])) >= 3
    found.carry_out(workspace)
    assert mentions(workspace.root, shown[:16]) == [f"ledger/removed/{shown}"]
    with LatentDataset(latents) as after:
        assert after.column("key") == ["k000", "k002"]
        for row, video in enumerate(videos):
            assert (after.read(row).video == video).all()
    assert Removal.look(workspace, shown).latents == ()


@pytest.mark.parametrize("moved", range(0, 8, 2))
def test_killed_while_latents_are_replaced_the_same_request_ends_it(
    workspace, shown, latents, monkeypatch, moved
):
    real, left = Path.replace, [moved]

    def dying(path, target):
        if path.parent.parent.name == "forgetting":
            if left[0] == 0:
                raise KeyboardInterrupt
            left[0] -= 1
        return real(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", dying)
        try:
            Removal.look(workspace, "fine.mp4").carry_out(workspace)
        except KeyboardInterrupt:
            assert left == [0]
    Removal.look(workspace, shown).carry_out(workspace)
    assert mentions(workspace.root, shown[:16]) == [f"ledger/removed/{shown}"]
    with LatentDataset(latents) as after:
        assert after.column("key") == ["k000", "k002"]


def test_shards_and_later_runs_are_as_if_it_had_never_been(workspace, corpus, tmp_path):
    Removal.look(workspace, "fine.mp4").carry_out(workspace)
    without = shutil.copytree(corpus, tmp_path / "without", copy_function=os.link)
    (without / "fine.mp4").unlink()
    curate(without, tmp_path / "w2")
    expected = digests(tmp_path / "w2" / "shards")
    assert digests(workspace.root / "shards") == expected
    again = curate(corpus, workspace.root)
    assert digests(workspace.root / "shards") == expected
    assert again.redone == 0
    reasons = [s.verdict["reason"] for s in History.of(workspace, "fine.mp4").asset.stages]
    assert reasons == ["removal_request"]


def test_the_facts_of_others_stay(workspace, corpus):
    Removal.look(workspace, "fine.mp4").carry_out(workspace)
    assert curate(corpus, workspace.root).redone == 0
    assert History.of(workspace, "quiet.mp4").clips[0].outcome == "rejected"


def test_a_second_request_and_one_for_the_file_itself_end_well(workspace, corpus, shown):
    Removal.look(workspace, "fine.mp4").carry_out(workspace)
    for name in (shown, str(corpus / "fine.mp4")):
        assert Removal.look(workspace, name).carry_out(workspace).rows == 0
    with pytest.raises(UsageError):
        Removal.look(workspace, "nope.mp4")


@pytest.mark.parametrize("after", [0, 1, 2, 4, 8, 16, 32])
def test_killed_at_any_commit_the_same_request_ends_it(workspace, shown, monkeypatch, after):
    """Every file that counts is written by commit_bytes: dying there stands for dying anywhere."""
    import reelmill.datasets.ledger as ledger

    real, left = ledger.commit_bytes, [after]

    def dying(path, data):
        if left[0] == 0:
            raise KeyboardInterrupt
        left[0] -= 1
        real(path, data)

    monkeypatch.setattr(ledger, "commit_bytes", dying)
    removal = Removal.look(workspace, "fine.mp4")
    try:
        removal.carry_out(workspace)
    except KeyboardInterrupt:
        Ledger(workspace)  # it can be read, whatever happened
    monkeypatch.undo()
    Removal.look(workspace, shown).carry_out(workspace)
    assert mentions(workspace.root, shown[:16]) == [f"ledger/removed/{shown}"]


def test_while_a_run_writes_nothing_is_removed(workspace):
    removal = Removal.look(workspace, "fine.mp4")
    with workspace.lock(), pytest.raises(WorkspaceError, match="in use"):
        removal.carry_out(workspace)


def test_forgotten_failures_are_measured_again_and_only_they(workspace, corpus):
    (failure,) = forget_failures(workspace)
    assert (failure.stage, failure.cause) == ("Integrity", "corrupt")
    assert forget_failures(workspace, "Cut") == []
    curate(corpus, workspace.root)
    assert len(forget_failures(workspace, "Integrity")) == 1
