"""KnownDuplicate: what another data set holds is rejected by name, whichever copy is better."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from tests.media import smooth_noise

from reelmill.curation.engine import CurateOptions, Curation
from reelmill.curation.explain.verdict_table import VerdictTable
from reelmill.curation.known_duplicate import KnownDuplicate
from reelmill.curation.near_duplicate import HASHES
from reelmill.curation.result import CurateResult
from reelmill.curation.stage import FactTable
from reelmill.datasets.corpus import defects
from reelmill.datasets.media.encode import write_video
from reelmill.datasets.sample import Clip, Kind
from reelmill.datasets.shards import ShardSample, write_shards
from reelmill.datasets.workspace import open_workspace
from reelmill.errors import DatasetError, UsageError

CLIP = Clip("f" * 64, Kind.VIDEO, 0, 1000, Fraction(1, 1000), 0, 0, 1)
RECIPE = """
kind: video
max_failed: 1.0
stages:
  - Probe
  - Shots: {{min_seconds: 0.5}}
  - PHash
  - KnownDuplicate: {{against: {against}}}
  - Cut: {{preset: ultrafast}}
"""


def curate(source: Path, workspace: Path, against: list[str]) -> CurateResult:
    recipe = workspace.with_suffix(".yaml")
    recipe.write_text(RECIPE.format(against=json.dumps(against)))
    curation = Curation(
        CurateOptions(
            sources=(str(source),),
            workspace=workspace,
            recipe=str(recipe),
            workers=0,
        )
    )
    for step in curation.steps():
        step.run()
    return curation.result()


def verdicts(workspace: Path) -> dict[str, tuple[str, str]]:
    """Outcome and detail of each clip, by the name of its file."""
    rows = VerdictTable(open_workspace(workspace)).rows("level = 'clip'")
    return {
        Path(row["path"]).stem: (row["reason"] or row["outcome"], row["detail"]) for row in rows
    }


@pytest.fixture(scope="module")
def old(tmp_path_factory) -> Path:
    """A workspace that holds two films, small ones."""
    root = tmp_path_factory.mktemp("old")
    for seed in range(2):
        film = defects.resized(smooth_noise(48, (128, 192), seed=seed, drift=1), 96, 64)
        write_video(root / "media" / f"old{seed}.mp4", film, fps=24)
    curate(root / "media", root / "work", [])
    return root / "work"


def test_clips_that_another_data_set_holds_are_rejected_and_named(old, tmp_path):
    film = smooth_noise(48, (128, 192), seed=0, drift=1)
    media = tmp_path / "media"
    write_video(media / "larger.mp4", film, fps=24)
    write_video(media / "mirrored.mp4", defects.mirrored(film), fps=24)
    write_video(media / "crop.mp4", film[:, 6:122, 10:182], fps=24)
    write_video(media / "late.mp4", film[12:], fps=24)
    write_video(media / "other.mp4", smooth_noise(48, (128, 192), seed=7, drift=1), fps=24)
    (media / "same.mp4").write_bytes((old.parent / "media" / "old1.mp4").read_bytes())
    curate(media, tmp_path / "work", [str(old)])
    found = verdicts(tmp_path / "work")
    assert {name: reason for name, (reason, _) in found.items()} == {
        "other": "kept",
        **dict.fromkeys(("larger", "mirrored", "crop", "late", "same"), "known_duplicate"),
    }
    for name, words in (("mirrored", ", mirrored"), ("crop", ", cropped"), ("same", ": 0 of 64")):
        assert words in found[name][1]
    assert f"in {old}/shards/video" in found["same"][1]
    assert "its 0.00-1.25 s shows what 0.50-1.75 s there shows" in found["late"][1]


def test_it_is_compared_again_when_the_other_data_set_changes(old, tmp_path, monkeypatch):
    media = tmp_path / "media"
    write_video(media / "a.mp4", smooth_noise(48, (128, 192), seed=5, drift=1), fps=24)
    curate(media, tmp_path / "first", [])
    searched = []
    real = KnownDuplicate.compare
    monkeypatch.setattr(
        KnownDuplicate, "compare", lambda self, table: searched.append(1) or real(self, table)
    )
    against = [str(old), str(tmp_path / "other")]
    write_video(tmp_path / "b" / "b.mp4", smooth_noise(48, (128, 192), seed=6, drift=1), fps=24)
    curate(tmp_path / "b", tmp_path / "other", [])
    searched.clear()
    for _ in range(2):
        curate(media, tmp_path / "work", against)
        assert verdicts(tmp_path / "work")["a"][0] == "kept"
    assert len(searched) == 1
    (tmp_path / "b" / "copy.mp4").write_bytes((media / "a.mp4").read_bytes())
    curate(tmp_path / "b", tmp_path / "other", [])
    curate(media, tmp_path / "work", against)
    assert verdicts(tmp_path / "work")["a"][0] == "known_duplicate"


def test_what_holds_no_shards_is_refused_before_anything_is_measured(tmp_path):
    write_video(tmp_path / "media" / "a.mp4", smooth_noise(24, (64, 96), seed=5), fps=24)
    with pytest.raises(UsageError, match=r"nowhere.*holds no shards"):
        curate(tmp_path / "media", tmp_path / "work", [str(tmp_path / "nowhere")])
    assert not (tmp_path / "work" / "ledger" / "facts").exists()


@pytest.mark.parametrize("facts", [{}, {"phash": "zz"}, {"phash": 3}, {"phash": "0" * 15}])
def test_shards_without_hashes_are_an_error_in_words(tmp_path, facts):
    whole = dict.fromkeys((*HASHES, "phash_ms"), "0" * 16) | facts
    record = {"kind": "video", "facts": whole if facts else {}}
    sample = ShardSample("a_0_1", ".mp4", b"x", record)
    write_shards([sample], tmp_path / "set", prefix="a", max_samples=9, max_bytes=99)
    table = FactTable([CLIP], {n: np.array(["0" * 16], object) for n in (*HASHES, "phash_ms")})
    with pytest.raises(DatasetError, match=r"a_0_1.*no hashes"):
        KnownDuplicate(against=(str(tmp_path / "set"),)).compare(table)


def test_the_own_workspace_is_refused(old):
    with pytest.raises(UsageError, match="own workspace"):
        curate(old.parent / "media", old, [str(old)])
