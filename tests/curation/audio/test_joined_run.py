"""Joining as a part of the run: counted, named, resumed, and reached by removal requests."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from tests.small_run import recipe_file
from tests.trees import digests

from reelmill.curation.engine import CurateOptions, Curation
from reelmill.curation.explain.removal import Removal
from reelmill.curation.explain.whereabouts import shard_members
from reelmill.curation.result import CurateResult
from reelmill.datasets.index import ShardIndex
from reelmill.datasets.joining import JOINED, NOTE
from reelmill.datasets.workspace import open_workspace
from reelmill.errors import ReelmillError
from reelmill.reports import page

RECIPE = """
kind: audio
stages:
  - Probe
  - Chunks
  - Loudness
  - SoundClass
  - Cut: {join_seconds: 15}
"""
SPEECH = (
    "lj001_0001.wav", "lj001_0002.wav", "sr_english.wav", "voicebank_p287_001_clean.wav",
    "voicebank_p287_002_clean.wav", "vad_s.wav",
)  # fmt: skip


def run(folder: Path, weights: Path | None = None, text: str = RECIPE) -> CurateResult:
    options = CurateOptions(
        sources=(str(folder / "media"),), workspace=folder / "w", recipe=recipe_file(folder, text),
        weights=weights, workers=0, allow_missing=weights is None,
    )  # fmt: skip
    curation = Curation(options)
    for step in curation.steps():
        step.run()
    return curation.result()


@pytest.fixture
def talks(tmp_path, media) -> Path:
    for place in ("all", "without"):
        (tmp_path / place / "media").mkdir(parents=True)
        for name in SPEECH:
            if place == "all" or name != "lj001_0002.wav":
                shutil.copy(media / "audio" / name, tmp_path / place / "media")
    return tmp_path


@pytest.mark.media
def test_a_run_joins_counts_names_and_does_not_do_it_again(talks, weights):
    folder = talks / "all"
    result = run(folder, weights)
    counts = result.joined
    assert counts["clips"] == result.clips.kept == counts["parts"] + counts["alone"]
    assert counts["parts"] >= 4  # the voicebank files are 48 kHz, the others 16 kHz or 22.05 kHz
    (note,) = [note for note in result.notes if "joined" in note]
    assert f"{counts['clips']} clips = {counts['parts']} in {counts['joined']}" in note
    assert note in page.load(Path(result.report).parent).notes
    assert json.loads(result.to_json())["joined"] == counts
    joined = folder / "w/joined/audio"
    before = digests(joined)
    changed = {path: path.stat().st_mtime_ns for path in joined.iterdir()}
    again = run(folder, weights)
    assert again.joined == counts
    assert changed == {path: path.stat().st_mtime_ns for path in joined.iterdir()}
    (joined / NOTE).unlink()  # as a kill before the last write leaves it
    run(folder, weights)
    assert digests(joined) == before


@pytest.mark.media
@pytest.mark.slow
def test_a_removed_source_leaves_joined_shards_as_if_it_had_never_been(talks, weights):
    run(talks / "all", weights)
    run(talks / "without", weights)
    workspace = open_workspace(talks / "all/w")
    digest = next(
        asset for asset in _assets(workspace.joined("audio")) if asset[1] == "lj001_0002.wav"
    )[0]
    assert any(m.clip.startswith(JOINED) for m in shard_members(workspace, digest))
    looked = Removal.look(workspace, "lj001_0002.wav")
    assert any("joined/audio" in shard for shard in looked.shards)
    looked.carry_out(workspace)
    for place in ("joined/audio", "shards/audio"):
        assert digests(talks / "all/w" / place) == digests(talks / "without/w" / place)
    assert not list(shard_members(workspace, digest))


@pytest.mark.media
@pytest.mark.slow
def test_a_joined_set_that_says_nothing_of_itself_goes_with_a_removal(talks, weights):
    run(talks / "all", weights)
    workspace = open_workspace(talks / "all/w")
    (workspace.joined("audio") / NOTE).write_text("{}")
    Removal.look(workspace, "lj001_0002.wav").carry_out(workspace)
    assert not workspace.joined("audio").exists()


def test_a_length_that_will_not_do_is_refused_before_work_starts(tmp_path):
    (tmp_path / "media").mkdir()
    with pytest.raises(ReelmillError, match="join_seconds"):
        run(tmp_path, text=RECIPE.replace("15", "0"))
    assert not (tmp_path / "w").exists()


def _assets(folder: Path) -> set[tuple[str, str]]:
    """(digest, name) of the files of all joined clips."""
    with ShardIndex.read(folder) as index:
        records = [json.loads(index.member(key, "json")) for key in index.keys]
    return {(p["asset"], p["file"]) for record in records for p in record.get("joined", [])}
