"""From a folder of clips to scores: three outcomes, resume, pairs, the command."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pyarrow.parquet as pq
import pytest
from tests.evaluation.footage import panning, prompt, write
from typer.testing import CliRunner

from reelmill import console
from reelmill.commands.evaluate import app
from reelmill.datasets.sample import Status
from reelmill.errors import BudgetExceeded, SourceError, UsageError, WorkspaceError
from reelmill.evaluation.bench import Bench
from reelmill.evaluation.clip import ClipMedia
from reelmill.evaluation.clips import ClipEntry, find_clips
from reelmill.evaluation.damage import Damage, damaged
from reelmill.evaluation.measure import _alone, measure
from reelmill.evaluation.metric import PICTURE, Better, Metric, Value
from reelmill.evaluation.metrics.loudness import Loudness
from reelmill.evaluation.metrics.picture import Exposure, Sharpness
from reelmill.evaluation.metrics.words import WordErrorRate
from reelmill.evaluation.taxonomy import Stream

BENCH = Bench(prompts=tuple(prompt(id=f"p{i}") for i in range(6)))
METRICS = (Sharpness(), Exposure(), Loudness(), WordErrorRate())


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six prompts by three models: `fine`, its damaged self, and the same clips once more."""
    folder = tmp_path_factory.mktemp("generated")
    for i in range(6):
        whole = panning(i, seconds=0.6, size=(96, 64))
        for model in ("fine", "blurred", "same"):
            (folder / model).mkdir(exist_ok=True)
            made = damaged(whole, Damage.BLUR, 2) if model == "blurred" else whole
            write(folder / model / f"p{i}_0.mkv", made)
    return folder


def test_a_folder_tells_model_prompt_and_seed(generated: Path, tmp_path: Path):
    entries = find_clips(generated)
    assert len(entries) == 18
    assert {(e.model, e.prompt, e.seed) for e in entries} >= {("fine", "p0", 0), ("same", "p3", 0)}
    flat = tmp_path / "model x"
    flat.mkdir()
    for name in ("p_1_12.mkv", "noname.mkv", ".p_2.mkv", "p_1.txt"):
        (flat / name).write_bytes(b"")
    found = [(e.model, e.prompt, e.seed) for e in find_clips(flat)]
    assert found == [("model x", "", 0), ("model x", "p_1", 12)]


def test_the_harness_says_which_is_better_on_what_and_ties_the_same_clips(
    generated: Path, tmp_path: Path
):
    made = measure(find_clips(generated), METRICS, tmp_path, bench=BENCH)
    summary = made.summary
    assert summary.comparison("blurred", "fine", "Sharpness").verdict == "fine"
    assert summary.comparison("fine", "same", "Sharpness").verdict == "tied"
    assert summary.comparison("blurred", "fine", "Loudness").difference is None
    assert summary.comparison("blurred", "fine", "Loudness").verdict == "no direction"
    line = summary.line("fine", "Sharpness")
    assert (line.applied, line.total, line.interval.prompts) == (6, 6, 6)
    assert line.interval.low <= line.interval.mean <= line.interval.high
    mute = summary.line("fine", "Loudness")
    assert (mute.applied, mute.total, mute.not_applicable, mute.interval) == (0, 6, 6, None)

    rows = pq.read_table(tmp_path / "scores.parquet").to_pylist()
    assert len(rows) == 18 * len(METRICS)
    assert all((row["value"] is None) == (row["status"] != "measured") for row in rows)
    assert json.loads((tmp_path / "summary.json").read_text())["models"] == [
        "blurred",
        "fine",
        "same",
    ]


def test_a_broken_clip_fails_alone_and_a_missing_prompt_is_counted(generated: Path, tmp_path: Path):
    entries = [e for e in find_clips(generated) if e.model == "fine" and e.prompt < "p3"]
    torn = tmp_path / "torn.mkv"
    torn.write_bytes(Path(entries[0].path).read_bytes()[:300])
    entries += [
        ClipEntry(path=str(torn), model="fine", prompt="p9"),
        ClipEntry(path=str(tmp_path / "gone.mkv"), model="fine", prompt="p8"),
    ]
    made = measure(entries, METRICS, tmp_path / "out", bench=BENCH)
    line = made.summary.line("fine", "Sharpness")
    assert (line.applied, line.failed, line.total) == (3, 2, 5)
    assert line.interval.clips == 3
    assert made.summary.prompts_missing == {"fine": 3}
    told = [s.why for s in made.scores if s.status is Status.FAILED and s.metric == "Sharpness"]
    assert any("torn.mkv" in why for why in told)
    assert any("No such file" in why for why in told)
    again = measure(entries, METRICS, tmp_path / "out", bench=BENCH)
    assert again.redone == 1  # what is gone may come back; what is torn stays torn
    assert again.scores == made.scores


def test_a_transcript_is_used_and_its_absence_is_not_measured(generated: Path, tmp_path: Path):
    said = prompt(id="said", sound="speech", text="She says: <dialogue>good day</dialogue>.")
    path = str(generated / "fine" / "p0_0.mkv")
    entries = [
        ClipEntry(path=path, model="m", prompt="said", seed=0, transcript="Good day!"),
        ClipEntry(path=path, model="m", prompt="said", seed=1),
    ]
    made = measure(entries, METRICS, tmp_path, bench=Bench(prompts=(said,)))
    line = made.summary.line("m", "WordErrorRate")
    assert (line.applied, line.not_measured, line.total) == (1, 1, 2)
    assert line.interval.mean == 0.0


def test_measuring_goes_on_where_it_was_stopped(generated: Path, tmp_path: Path):
    entries = find_clips(generated)
    straight = measure(entries, METRICS, tmp_path / "a", bench=BENCH)
    out = tmp_path / "b"
    assert measure(entries[:5], METRICS, out, bench=BENCH).redone == 5
    log = out / "done.jsonl"
    log.write_bytes(log.read_bytes()[:-40])  # killed while it wrote
    # `same` has the bytes of `fine`: measured once for both
    again = measure(entries, METRICS, out, bench=BENCH)
    assert again.redone == 12 - 4
    assert again.scores == straight.scores
    assert (out / "scores.parquet").read_bytes() == (tmp_path / "a/scores.parquet").read_bytes()
    assert (out / "summary.json").read_bytes() == (tmp_path / "a/summary.json").read_bytes()
    assert measure(entries, METRICS, out, bench=BENCH).redone == 0
    other = (Sharpness(min_variance=2.0), *METRICS[1:])
    assert measure(entries, other, out, bench=BENCH).redone == 12


def test_workers_give_the_same_bytes(generated: Path, tmp_path: Path):
    entries = find_clips(generated)[:4]
    measure(entries, METRICS, tmp_path / "one", bench=BENCH)
    measure(entries, METRICS, tmp_path / "two", bench=BENCH, workers=2)
    for name in ("scores.parquet", "summary.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


@dataclass(frozen=True, kw_only=True)
class Deadly(Metric):
    """Kills its process on one clip, as a codec may."""

    better: ClassVar = Better.HIGHER
    part: ClassVar = "clarity"
    stream: ClassVar = Stream.VIDEO
    applies_to: ClassVar = (PICTURE,)
    victim: str = ""

    def _value(self, clip: ClipMedia) -> Value:
        if str(clip.path).endswith(self.victim):
            os._exit(9)
        return 1.0


def test_a_worker_that_dies_fails_its_clip_only(generated: Path, tmp_path: Path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))  # for the spawned workers
    entries = find_clips(generated)[:3]
    deadly = (Deadly(victim="p1_0.mkv"),)
    made = measure(entries, deadly, tmp_path, workers=2)
    status = {Path(s.entry.path).name: s.status for s in made.scores}
    assert status.pop("p1_0.mkv") is Status.FAILED
    assert set(status.values()) == {Status.MEASURED}


def test_two_runs_do_not_write_one_folder(generated: Path, tmp_path: Path):
    with _alone(tmp_path), pytest.raises(WorkspaceError, match="another process"):
        measure(find_clips(generated)[:1], METRICS, tmp_path)


def test_nothing_to_measure_is_a_usage_error(tmp_path: Path):
    with pytest.raises(UsageError, match="0 metrics"):
        measure([], (), tmp_path)
    with pytest.raises(SourceError, match="names no clip"):
        find_clips(tmp_path)
    with pytest.raises(SourceError, match="no such folder"):
        find_clips(tmp_path / "none")


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ('{"path": "a.mkv"}', "model"),
        ('{"path": "../a.mkv", "model": "m"}', "leads out"),
        ('{"path": "a.mkv", "model": "m", "seed": -1}', "seed"),
        ('{"path": "a.mkv", "model": "m", "extra": 1}', "Extra"),
        ("[1]", "row 1"),
        ("{", "no list of JSON lines"),
    ],
)
def test_a_wrong_manifest_names_its_row(line: str, told: str, tmp_path: Path):
    path = tmp_path / "manifest.jsonl"
    path.write_text(line + "\n")
    with pytest.raises(SourceError, match=told):
        find_clips(path)


def test_a_manifest_may_not_name_a_pair_twice(tmp_path: Path):
    path = tmp_path / "manifest.jsonl"
    row = {"model": "m", "prompt": "p", "seed": 1}
    path.write_text("\n".join(json.dumps({**row, "path": f"{n}.mkv"}) for n in "ab"))
    with pytest.raises(SourceError, match="more than one clip"):
        find_clips(path)


def test_the_command_fails_when_every_clip_does(tmp_path: Path):
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips" / "p_0.mp4").write_bytes(b"no clip")
    command = ["clips", str(tmp_path / "clips"), "--out", str(tmp_path / "out"), "--workers", "1"]
    run = CliRunner().invoke(app, command)
    assert isinstance(run.exception, BudgetExceeded)
    assert "1 failed" in run.stdout


def test_the_command_measures_and_answers(generated: Path, tmp_path: Path):
    out = tmp_path / "scores"
    source = generated / "fine"
    run = CliRunner().invoke(app, ["clips", str(source), "--out", str(out), "--workers", "1"])
    assert run.exit_code == 0, run.output
    assert "Sharpness" in run.stdout
    assert "6/6" in run.stdout
    try:
        run = CliRunner().invoke(
            app, ["clips", str(source), "--out", str(out), "--workers", "1", "--json"]
        )
        answer = json.loads(run.stdout.splitlines()[-1])
        assert (answer["clips"], answer["redone"], answer["models"]) == (6, 0, ["fine"])
        run = CliRunner().invoke(app, ["prompts", "--json"])
        answer = json.loads(run.stdout.splitlines()[-1])
        assert len(answer["prompts"]) == 120
        assert answer["missing_cells"] == []
    finally:
        console.set_json(False)
