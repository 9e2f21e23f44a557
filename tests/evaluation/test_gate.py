"""A checkpoint after another: who may follow, the page, the history, the command's exit code."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml
from tests.evaluation.footage import panning, prompt, write
from typer.testing import CliRunner

from reelmill import console
from reelmill.commands.evaluate import app
from reelmill.errors import GateError, UsageError, WorkspaceError
from reelmill.evaluation.bench import Bench
from reelmill.evaluation.damage import Damage, damaged
from reelmill.evaluation.gate import Bound, promote, read_bounds
from reelmill.evaluation.history import Judged, judge, read_history
from reelmill.evaluation.metrics.loudness import Loudness
from reelmill.evaluation.metrics.picture import Colourfulness, Exposure, Sharpness

BENCH = Bench(prompts=tuple(prompt(id=f"p{i}") for i in range(6)))
METRICS = (Sharpness(), Exposure(), Colourfulness(), Loudness())
BOUNDS = {"Sharpness": Bound(may_fall=1e-4)}


def make(home: Path, name: str, level: int, prompts: int = 6) -> None:
    folder = home / "clips" / name
    folder.mkdir(parents=True)
    for i in range(prompts):
        footage = damaged(panning(i, seconds=0.6, size=(96, 64)), Damage.BLUR, level)
        write(folder / f"p{i}_0.mkv", footage)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clips of four checkpoints: fine, the same again, blurred, and fine with two prompts only."""
    folder = tmp_path_factory.mktemp("history")
    for name, level, prompts in (("a", 0, 6), ("b", 0, 6), ("c", 2, 6), ("d", 0, 2)):
        make(folder, name, level, prompts)
    return folder


@pytest.fixture(scope="module")
def judged(home: Path) -> dict[str, Judged]:
    return {n: judge(home, n, METRICS, BOUNDS, bench=BENCH) for n in ("a", "b", "c", "d")}


def test_what_falls_for_certain_is_not_promoted_and_the_next_is_held_against_the_last_that_was(
    home: Path, judged: dict[str, Judged]
):
    assert judged["a"].decision is None
    assert judged["b"].decision.promoted
    assert (judged["c"].decision.incumbent, judged["c"].decision.promoted) == ("b", False)
    (fall,) = judged["c"].decision.falls
    assert fall.metric == "Sharpness"
    assert fall.change.high < -1e-4
    assert judged["d"].decision.incumbent == "b"
    assert [(p.name, p.promoted) for p in read_history(home)] == [
        ("a", True),
        ("b", True),
        ("c", False),
        ("d", True),
    ]
    assert judged["c"].evaluation.redone == 6  # those of a and b were measured before


def test_judged_again_a_checkpoint_keeps_its_place_and_whom_it_is_held_against(
    home: Path, judged: dict[str, Judged]
):
    told = read_history(home)
    again = judge(home, "b", METRICS, BOUNDS, bench=BENCH)
    assert again.decision.incumbent == "a"
    assert again.evaluation.redone == 0
    assert read_history(home) == told


def test_bounds_of_a_dimension_of_a_mean_and_of_what_must_be_there(judged: dict[str, Judged]):
    summary = judged["c"].summary
    whole = promote(summary, "c", "b", {"visual_quality": Bound()})
    assert {f.metric for f in whole.falls} == {"Sharpness"}
    assert promote(summary, "b", "c", {"visual_quality": Bound()}).promoted
    assert promote(summary, "c", "b", {"Sharpness": Bound(may_fall=100)}).promoted
    for first, second in (("a", "b"), ("b", "a")):
        assert promote(summary, first, second, {"visual_quality": Bound(certain=False)}).promoted
    few = judged["d"].summary
    assert promote(few, "d", "c", {"Sharpness": Bound(certain=False)}).promoted
    assert not promote(few, "c", "d", {"Sharpness": Bound(certain=False)}).promoted
    assert promote(few, "c", "d", {"Sharpness": Bound()}).promoted  # two prompts prove nothing
    for name in ("Loudness", "Colourfulness", "Charm"):
        with pytest.raises(UsageError, match="has a direction"):
            promote(summary, "c", "b", {name: Bound()})
    with pytest.raises(UsageError, match="no clips of 'x'"):
        promote(summary, "x", "b", {})


def test_the_page_is_one_small_file_with_the_verdict_and_the_trend(judged: dict[str, Judged]):
    page = judged["c"].page.read_text()
    assert "Not promoted" in page
    assert "it fell for certain" in page
    assert page.count("<polyline") >= 2
    assert not re.search(r"https?://(?!www\.w3\.org)", page)
    assert "<script" not in page
    assert len(page) < 200_000
    assert "nothing to compare" in judged["a"].page.read_text()


def test_a_hostile_name_and_a_damaged_history_are_refused(home: Path, tmp_path: Path):
    for name in ("../x", "", "a/b", ".hidden", "<b>"):
        with pytest.raises(UsageError, match="checkpoint name"):
            judge(home, name, METRICS, BOUNDS, bench=BENCH)
    with pytest.raises(UsageError, match="no clips of e"):
        judge(home, "e", METRICS, BOUNDS, bench=BENCH)
    (tmp_path / "history.json").write_text('[{"name": 3}]')
    with pytest.raises(WorkspaceError, match="no history"):
        read_history(tmp_path)


def test_bounds_are_data(tmp_path: Path):
    path = tmp_path / "gate.yaml"
    path.write_text("visual_quality:\nSharpness: {may_fall: 0.5, required: true}\n")
    assert read_bounds(path) == {
        "visual_quality": Bound(),
        "Sharpness": Bound(may_fall=0.5, required=True),
    }
    for text in ("[]", "", "Sharpness: {may_fall: -1}", "Sharpness: {fall: 1}", "a: ["):
        path.write_text(text)
        with pytest.raises(UsageError, match=r"gate\.yaml"):
            read_bounds(path)


def test_the_command_says_4_when_a_bound_is_broken(home: Path, tmp_path: Path):
    for name in ("b", "c"):
        (tmp_path / "clips").mkdir(exist_ok=True)
        (tmp_path / "clips" / name).symlink_to(home / "clips" / name)
    rows = [p.model_dump(mode="json") for p in BENCH.prompts]
    (tmp_path / "bench.yaml").write_text(yaml.safe_dump(rows))
    (tmp_path / "gate.yaml").write_text("Sharpness: {}\n")

    def run(name: str):
        console.set_json(False)
        args = ["checkpoint", "--name", name, "--history", str(tmp_path), "--workers", "1",
                "--prompts", str(tmp_path / "bench.yaml"), "--bounds", str(tmp_path / "gate.yaml"),
                "--json"]  # fmt: skip
        return CliRunner().invoke(app, args)

    for name in ("b", "c"):  # a link to a folder is not walked into: copy
        link = tmp_path / "clips" / name
        link.unlink()
        link.mkdir()
        for clip in (home / "clips" / name).iterdir():
            (link / clip.name).write_bytes(clip.read_bytes())
    first, second = run("b"), run("c")
    assert first.exit_code == 0, first.output
    assert isinstance(second.exception, GateError)
    assert second.exception.exit_code == 4
    answer = json.loads(second.stdout.splitlines()[-1])
    assert (answer["promoted"], answer["falls"]) == (False, ["Sharpness"])
