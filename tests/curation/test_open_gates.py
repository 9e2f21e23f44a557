"""Absent weights: what would decide by them stops the run, or is named where it stays open."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.media import noise_video
from tests.small_run import recipe_file
from typer.testing import CliRunner

from reelmill.cli import app
from reelmill.curation.engine import CurateOptions, Curation
from reelmill.curation.models.weights import Weights
from reelmill.curation.open_gates import deciding, open_gates
from reelmill.curation.recipes import KNOWN, audio, image, video
from reelmill.errors import WeightsError

RECIPE = "kind: video\nstages: [Probe, Integrity, Shots, Loudness, Voice, SoundClass, {}, Cut]\n"


@pytest.fixture
def bare(tmp_path, monkeypatch) -> Path:
    """A folder with a film, and no weights but those of packages."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("REELMILL_WEIGHTS", raising=False)
    noise_video(tmp_path / "m" / "a.mp4", seconds=2.5)
    return tmp_path


def curation(folder: Path, stages: str, **options) -> Curation:
    recipe = recipe_file(folder, RECIPE.format(stages))
    return Curation(CurateOptions((str(folder / "m"),), folder / "w", recipe, workers=0, **options))


def test_avsync_alone_may_stand_open_unasked():
    assert {name for name, stage in KNOWN.items() if stage.resources.optional} == {"AVSync"}


@pytest.mark.parametrize(
    ("stage", "rule"),
    [
        ("MOS", "MOS.min_overall=2"),
        ("Transcript", "Transcript.min_language_probability=0.8"),
        ("NISQA", "NISQA.min_overall=2"),
        ("SQUIM", "SQUIM.min_si_sdr=5"),
        ("UTMOS", "UTMOS.min_utmos=2"),
    ],
)
def test_bounds_on_absent_weights_stop_the_run_before_it_starts(bare, stage, rule):
    (name,) = KNOWN[stage].resources.weights
    if Weights().path(name) is not None:
        assert not curation(bare, stage, overrides=(rule,)).open_gates
        return
    with pytest.raises(WeightsError, match=f"{stage} decides by .*{name!r}"):
        curation(bare, stage, overrides=(rule,))
    assert not (bare / "w").exists()
    allowed = curation(bare, stage, overrides=(rule,), allow_missing=True)
    assert any(told.startswith(f"{stage} decides nothing") for told in allowed.open_gates)


def test_what_stays_open_is_said_at_the_start_and_in_the_report(bare):
    recipe = recipe_file(bare, RECIPE.format("Faces, Talking, AVSync, Transcript, TranscriptCheck"))
    args = ["curate", str(bare / "m"), "--workspace", str(bare / "w"), "--recipe", recipe]
    answer = CliRunner().invoke(app, [*args, "--workers", "0", "--json"])
    assert answer.exit_code == 0, answer.output
    lines = answer.output.splitlines()
    first = next(i for i, line in enumerate(lines) if "AVSync decides nothing" in line)
    assert first < next(i for i, line in enumerate(lines) if "clips" in line)
    found = json.loads(lines[-1])
    assert found["clips"]["kept"] == 1
    (sync,) = [note for note in found["notes"] if "AVSync decides nothing" in note]
    for bound in deciding(KNOWN["AVSync"]):
        assert bound in sync
    assert any(note.startswith("TranscriptCheck decides by") for note in found["notes"])
    record = json.loads((Path(found["report"]).parent / "run.json").read_text())
    assert sync in record["notes"]


def test_with_all_weights_no_gate_is_open():
    for recipe in (video(), audio(), image()):
        assert open_gates(recipe, ()) == []
