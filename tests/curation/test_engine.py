"""The engine on real encoded media: outcomes, conservation, resume, isolation, same bytes."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from tests.media import noise, truncated_copy

from reelmill.curation.engine import CurateOptions, Curation
from reelmill.datasets.corpus.render import render_scene
from reelmill.datasets.corpus.scene import random_scene
from reelmill.datasets.corpus.sound import scene_audio
from reelmill.datasets.media.encode import write_audio, write_image, write_video
from reelmill.datasets.workspace import aside
from reelmill.errors import RecipeError, SourceError, WorkspaceError
from reelmill.reports.page import load

pytestmark = pytest.mark.long

QUIET = ("Balance.max_share=null",)


def film(path: Path, seed: int, seconds: float = 3.0, **options) -> Path:
    scene = random_scene(seed)
    frames = list(render_scene(scene, 16, (192, 128)))[: int(16 * seconds)]
    sound = scene_audio(scene, 44_100)[:, : int(44_100 * seconds)]
    write_video(path, iter(frames), fps=16, audio=sound, audio_rate=44_100, **options)
    return path


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    """Seven good and bad files of three kinds."""
    folder = tmp_path_factory.mktemp("corpus")
    good = film(folder / "a.mp4", 1)
    film(folder / "b.mkv", 2)
    (folder / "a.txt").write_text("a shape bounces")
    (folder / "again.mp4").write_bytes(good.read_bytes())
    truncated_copy(good, folder / "cut-off.mp4", 0.6)
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "notes.md").write_text("# not media")
    frame = next(iter(render_scene(random_scene(3), 16, (320, 256))))
    write_image(folder / "still.jpg", np.asarray(frame))
    write_audio(folder / "hiss.flac", noise(4.0), 48_000)
    return folder


def run(corpus: Path, workspace: Path, *overrides: str, **options):
    curation = Curation(
        CurateOptions(sources=(str(corpus),), workspace=workspace, overrides=overrides, **options)
    )
    outcomes = {step.label: step.run() for step in curation.steps()}
    return curation.result(), outcomes


def digests(folder: Path) -> dict[str, str]:
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def verdicts(result) -> dict[str, tuple[str, str]]:
    path = Path(result.workspace) / "ledger" / "verdicts" / f"{result.run}.parquet"
    rows = [r for r in pq.read_table(path).to_pylist() if r["level"] != "clip"]
    return {Path(r["path"]).name: (r["outcome"], r["reason"]) for r in rows}


@pytest.fixture(scope="module")
def first(corpus, tmp_path_factory):
    return run(corpus, tmp_path_factory.mktemp("w") / "w")[0]


def test_every_file_ends_in_its_own_bin(first):
    found = verdicts(first)
    assert found["again.mp4"] == ("rejected", "exact_duplicate")
    assert found["empty.mp4"] == ("failed", "corrupt")
    assert found["cut-off.mp4"] == ("failed", "corrupt")
    assert found["notes.md"] == ("rejected", "not_media")
    assert found["a.mp4"][0] == found["b.mkv"][0] == found["still.jpg"][0] == "kept"
    assert first.files.into == 8
    assert first.assets.to_json()["in"] == 7
    assert first.assets.failed == 2
    assert first.exit_code == 3
    assert "2 of 7 assets failed" in first.over_budget


@pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)  # webdataset leaves tars open
def test_shards_hold_the_survivors_with_their_captions(first):
    import webdataset

    kept = {}
    for shard in first.shards:
        for sample in webdataset.WebDataset(shard, shardshuffle=False, empty_check=False):
            kept[sample["__key__"]] = sample
    records = {key: json.loads(sample["json"]) for key, sample in kept.items()}
    assert len(kept) == first.clips.kept
    captions = {records[k]["file"]: s.get("txt", b"").decode() for k, s in kept.items()}
    assert captions["a.mp4"] == "a shape bounces"
    facts = next(r["facts"] for r in records.values() if r["file"] == "b.mkv")
    assert captions["b.mkv"] == facts["caption_structured"]
    assert captions["b.mkv"].startswith("A video")
    assert all(key == record["id"] for key, record in records.items())


def test_the_report_holds_the_same_figures(first):
    report = load(Path(first.report).parent)
    assert report.totals.clips.kept.count == first.clips.kept
    assert report.failures_total == 2
    assert {s.file for s in report.shards} == {Path(s).name for s in first.shards}
    assert Path(first.report).stat().st_size < 5e6


def test_a_second_run_measures_nothing_and_changes_no_shard(corpus, first):
    before = digests(Path(first.workspace) / "shards")
    again, _ = run(corpus, Path(first.workspace))
    assert again.redone == 0
    assert digests(Path(first.workspace) / "shards") == before


def test_another_workspace_gets_the_same_bytes(corpus, first, tmp_path):
    other, _ = run(corpus, tmp_path / "w")
    assert digests(Path(other.workspace) / "shards") == digests(Path(first.workspace) / "shards")


def test_a_moved_bound_decides_again_without_opening_media(corpus, first, tmp_path, monkeypatch):
    import reelmill.datasets.media.container as container

    def refuse(path):
        raise AssertionError(f"{path} was opened")

    workspace = shutil.copytree(first.workspace, tmp_path / "w")
    monkeypatch.setattr(container.av, "open", refuse)
    moved, _ = run(corpus, workspace, "Shots.min_seconds=60")
    assert moved.redone == 0
    assert moved.clips.kept == 1 + verdict_count(moved, "audio")


def verdict_count(result, kind: str) -> int:
    path = Path(result.workspace) / "ledger" / "verdicts" / f"{result.run}.parquet"
    rows = pq.read_table(path).to_pylist()
    return sum(r["level"] == "clip" and r["kind"] == kind and r["outcome"] == "kept" for r in rows)


def test_deleted_files_leave_the_shards_as_if_they_had_never_been(corpus, first, tmp_path):
    media = tmp_path / "media"
    media.mkdir()
    for file in corpus.iterdir():
        if file.name != "b.mkv":
            os.link(file, media / file.name)
    left, _ = run(media, shutil.copytree(first.workspace, tmp_path / "w"))
    alone, _ = run(media, tmp_path / "alone")
    assert left.clips == alone.clips
    assert digests(tmp_path / "w" / "shards") == digests(tmp_path / "alone" / "shards")
    assert digests(tmp_path / "w" / "shards") != digests(Path(first.workspace) / "shards")
    assert left.redone == 0 < alone.redone


def test_one_changed_file_is_the_only_one_measured(corpus, first, tmp_path):
    media = tmp_path / "media"
    media.mkdir()
    for file in corpus.iterdir():
        os.link(file, media / file.name)
    (media / "b.mkv").unlink()
    film(media / "b.mkv", 4)
    _, outcomes = run(media, shutil.copytree(first.workspace, tmp_path / "w"))
    measured = {label: outcome.measured for label, outcome in outcomes.items()}
    assert measured["probe"] == 1
    assert measured["video: shared decode"] == 1
    assert measured["video: cut"] == 1


@pytest.mark.slow
def test_killed_at_any_point_the_next_run_ends_the_same(corpus, first, tmp_path):
    code = (
        "import sys; from pathlib import Path; "
        "from reelmill.curation.engine import *; "
        "c = Curation(CurateOptions(sources=(sys.argv[1],), workspace=Path(sys.argv[2]))); "
        "print('go', flush=True); [s.run() for s in c.steps()]"
    )
    workspace = tmp_path / "w"
    for delay in (0.05, 0.4, 1.0, 1.7):
        process = subprocess.Popen(
            [sys.executable, "-c", code, str(corpus), str(workspace)], stdout=subprocess.PIPE
        )
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
    run(corpus, workspace)
    assert digests(workspace / "shards") == digests(Path(first.workspace) / "shards")


def test_interrupting_a_step_keeps_what_was_done(corpus, tmp_path):
    curation = Curation(CurateOptions(sources=(str(corpus),), workspace=tmp_path / "w"))

    def stop_after_one(n: int) -> None:
        raise KeyboardInterrupt

    steps = curation.steps()
    for step in steps:
        if step.label == "video: shared decode":
            with pytest.raises(KeyboardInterrupt):
                step.run(stop_after_one)
            break
        step.run()
    steps.close()
    _, outcomes = run(corpus, tmp_path / "w")
    assert outcomes["video: shared decode"].measured == 2  # of three, one was done


def test_what_killed_runs_left_half_written_is_removed(corpus, first, tmp_path):
    curation = Curation(CurateOptions(sources=(str(corpus),), workspace=tmp_path / "w"))
    steps = curation.steps()
    for step in steps:
        step.run()
        if step.label.startswith("video: cut"):
            break
    steps.close()
    workspace = curation.workspace
    cut = next(workspace.cuts.glob("*.mp4"))
    cut.with_name(f"{'f' * 16}_0_1000.{'0' * 32}.mp4").write_bytes(b"of a file that is gone")
    cut.with_name(f"{cut.name.partition('.')[0]}.{'0' * 32}.mp4").write_bytes(b"of other settings")
    folders = (workspace.cuts, workspace.previews, workspace.tracks / "Shots", workspace.manifest)
    for folder in folders:
        folder.mkdir(exist_ok=True, parents=True)
        aside(folder / "part.mp4").write_bytes(b"half")
        (folder / f".part.parquet.tmp-{os.getpid()}").write_bytes(b"half")
    run(corpus, tmp_path / "w")
    assert list(workspace.root.rglob(".*.tmp-*")) == []
    assert list(workspace.cuts.iterdir()) == []
    assert digests(workspace.root / "shards") == digests(Path(first.workspace) / "shards")


def test_an_unreadable_file_fails_and_harms_no_other(corpus, tmp_path, monkeypatch):
    real = Path.open

    def locked(self, *args, **kwargs):
        if self.name == "b.mkv":
            raise PermissionError(13, "Permission denied")
        return real(self, *args, **kwargs)

    monkeypatch.setattr(Path, "open", locked)
    result, _ = run(corpus, tmp_path / "w")
    found = verdicts(result)
    assert found["b.mkv"] == ("failed", "transient")
    assert found["a.mp4"][0] == "kept"


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"sources": ("nowhere",)}, SourceError, "nowhere does not exist"),
        ({"recipe": "film"}, RecipeError, "neither video, image, audio nor a file"),
    ],
)
def test_what_can_be_known_before_is_refused_before(corpus, tmp_path, options, error, says):
    defaults = {"sources": (str(corpus),), "workspace": tmp_path / "w"}
    with pytest.raises(error, match=says):
        Curation(CurateOptions(**(defaults | options)))
    assert not (tmp_path / "w").exists()


def test_a_workspace_that_is_in_use_is_refused(corpus, tmp_path):
    options = CurateOptions(sources=(str(corpus),), workspace=tmp_path / "w")
    running = Curation(options).steps()
    next(running)
    with pytest.raises(WorkspaceError, match="in use"):
        next(Curation(options).steps())
    running.close()
