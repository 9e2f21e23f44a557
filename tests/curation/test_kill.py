"""Death at any moment, of the run or of a worker: the next run, or this one, ends the same."""

from __future__ import annotations

import os
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from tests.curation_content import content
from tests.kills import Scene, kill_and_resume, real_clips
from tests.media import noise_video
from tests.small_run import curate, recipe_file
from tests.trees import digests

pytestmark = pytest.mark.long

FILES = 6
CODE = """
import sys
from pathlib import Path
from reelmill.curation.engine import CurateOptions, Curation
from reelmill.errors import ReelmillError
curation = Curation(CurateOptions(
    sources=(sys.argv[1],), workspace=Path(sys.argv[2]), recipe=sys.argv[3], workers=2))
print("go", flush=True)
try:
    for step in curation.steps():
        print(step.label, step.run().measured, flush=True)
except ReelmillError as error:
    sys.exit(f"{type(error).__name__}: {error}")
"""


@pytest.fixture(scope="module")
def films(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("films")
    for seed in range(FILES):
        noise_video(folder / f"film-{seed}.mp4", seconds=1.0 + 0.25 * seed, seed=seed)
    return folder


@pytest.fixture(scope="module")
def whole(films, tmp_path_factory) -> Path:
    """The workspace of a run that nothing disturbed."""
    root = tmp_path_factory.mktemp("whole") / "w"
    curate(films, root)
    return root


def start(films: Path, workspace: Path, **options) -> subprocess.Popen[str]:
    recipe = recipe_file(workspace.parent)
    process = subprocess.Popen(
        [sys.executable, "-c", CODE, str(films), str(workspace), recipe],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )
    assert process.stdout is not None
    process.stdout.readline()
    return process


def below(process: int) -> list[int]:
    """Ids of all processes that descend from one."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(path.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        if parent == process:
            found += [int(path.parent.name), *below(int(path.parent.name))]
    return found


def wait_until_gone(ids: list[int]) -> None:
    for _ in range(100):
        if not any(Path(f"/proc/{i}").exists() for i in ids):
            return
        time.sleep(0.1)
    raise AssertionError(f"{ids} outlived their run")


def test_kill_9_of_the_run_at_random_points(films, whole, tmp_path):
    kills = 3
    chance = random.Random(kills)
    ends = 0
    for _ in range(kills):
        process = start(films, tmp_path / "w")
        try:
            process.wait(chance.uniform(0.0, 6.0))
            ends += 1
        except subprocess.TimeoutExpired:
            family = below(process.pid)
            process.kill()
            process.wait()
            wait_until_gone(family)
        process.communicate()
    curate(films, tmp_path / "w")
    assert digests(tmp_path / "w" / "shards") == digests(whole / "shards")
    assert content(tmp_path / "w") == content(whole)
    assert list((tmp_path / "w" / "cuts").iterdir()) == []
    assert ends < kills


@pytest.fixture(scope="module")
def real_scene(media, tmp_path_factory) -> Scene:
    return Scene.play(real_clips(media), tmp_path_factory.mktemp("real"), "real")


@pytest.mark.slow
@pytest.mark.media
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("part", range(3))
def test_kill_9_of_the_run_inside_its_decodes(real_scene, tmp_path, part):
    """30 times, on real clips; what a kill loses, the run's marks and its ledger tell alike."""
    toll = kill_and_resume(real_scene, tmp_path, 10, {"workers": 2}, seed=part)
    assert toll.inside >= 3


@pytest.mark.slow
def test_kill_9_of_workers_and_of_their_nursery_while_they_work(films, whole, tmp_path):
    """A worker that goes is replaced; without the nursery the run ends in words."""
    process = start(films, tmp_path / "w")
    killed = 0
    while process.poll() is None:
        nursery = below(process.pid)
        for worker in nursery[1:]:
            try:
                os.kill(worker, signal.SIGKILL)
                killed += 1
            except ProcessLookupError:
                pass
        time.sleep(0.4)
    _, error = process.communicate()
    assert "Traceback" not in error
    assert killed
    process = start(films, tmp_path / "w")
    while process.poll() is None and not below(process.pid):
        time.sleep(0.02)
    for nursery in below(process.pid)[:1]:
        os.kill(nursery, signal.SIGKILL)
    _, error = process.communicate()
    assert "Traceback" not in error
    curate(films, tmp_path / "w")
    assert digests(tmp_path / "w" / "shards") == digests(whole / "shards")
    assert content(tmp_path / "w") == content(whole)


def test_a_full_disk_ends_the_run_in_words_and_the_next_one_goes_on(films, whole, tmp_path):
    """A limit on file size stands for the full disk: the same refusal, at the first large file."""

    def small_disk() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))

    process = start(films, tmp_path / "w", preexec_fn=small_disk)
    _, error = process.communicate()
    assert process.returncode == 1
    assert error.startswith("WorkspaceError: disk full")
    assert "Traceback" not in error
    curate(films, tmp_path / "w")
    assert digests(tmp_path / "w" / "shards") == digests(whole / "shards")
    assert content(tmp_path / "w") == content(whole)


@pytest.mark.slow
def test_what_was_committed_is_not_measured_again(films, tmp_path):
    """Killed after the shared decode, the next run decodes nothing."""
    process = start(films, tmp_path / "w")
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("video: shared decode"):
            break
    process.kill()
    process.communicate()
    second = start(films, tmp_path / "w")
    told, _ = second.communicate()
    assert "shared decode" not in told
    assert "cut" in told
    decoded = [pq.read_table(p).num_rows for p in (tmp_path / "w").glob("ledger/decoded/*/*")]
    assert sum(decoded) == FILES
