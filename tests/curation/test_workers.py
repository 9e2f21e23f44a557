"""Workers: order, isolation of what breaks its process, a retry alone, same bytes at any count."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from tests.faults import Fault, do, leak, pause, process, toil
from tests.media import noise_video
from tests.trees import digests

from reelmill.curation import engine
from reelmill.curation.asset.probe import Probe
from reelmill.curation.cut_stage import Cut
from reelmill.curation.engine import CurateOptions, Curation
from reelmill.curation.recipe import Recipe
from reelmill.curation.whole import WholeFile
from reelmill.curation.workers import Limits, Lost, Workers, open_reply, pack_task
from reelmill.datasets.sample import Kind
from reelmill.errors import MediaError, UsageError

pytestmark = pytest.mark.long

IMPATIENT = Limits(patience_s=2.0)
SMALL = Limits(memory_gb=0.9)


def results(workers: Workers, items: list[tuple], function=do) -> list:
    return list(workers.map(function, items, name=lambda i: f"item {i}"))


@pytest.fixture(scope="module")
def workers():
    with Workers(2) as pool:
        yield pool


def test_results_come_in_the_order_of_the_items(workers):
    items = [(0.3, 0), (0.0, 1), (0.2, 2), (0.0, 3)]
    assert results(workers, items, pause) == [0, 1, 2, 3]


def test_work_is_done_in_other_processes_and_by_more_than_one(workers):
    found = set(results(workers, [(0,)] * 12, process))
    assert os.getpid() not in found
    assert 1 <= len(found) <= 2
    assert results(Workers(0), [(0,)], process) == [os.getpid()]


@pytest.mark.parametrize(
    ("fault", "limits", "says"),
    [
        ("segfault", Limits(), "SIGSEGV"),
        ("hang", IMPATIENT, "no sign of life"),
        ("eat", SMALL, "GB of memory"),
    ],
)
def test_what_breaks_its_worker_is_lost_and_nothing_else(fault, limits, says):
    with Workers(2, limits) as pool:
        found = results(pool, [("", 2), (fault, 3), ("", 4), ("", 5)])
    assert found[:1] + found[2:] == [4, 16, 25]
    lost = found[1]
    assert isinstance(lost, Lost)
    assert lost.cause == "corrupt"
    assert says in lost.message
    assert "item 1" in lost.message


def test_what_breaks_once_is_tried_again_and_comes_through(workers, tmp_path):
    items = [("once segfault", 2, str(tmp_path)), ("", 3), ("once be_killed", 4, str(tmp_path))]
    assert results(workers, items) == [4, 9, 16]


def test_being_killed_from_outside_is_no_fault_of_the_file(workers):
    lost = results(workers, [("be_killed", 2)])[0]
    assert lost.cause == "transient"


def test_an_error_of_the_function_is_raised_here_and_the_pool_lives_on(workers):
    with pytest.raises(MediaError, match="value 7") as caught:
        results(workers, [("", 1), ("refuse", 7), ("", 2)])
    assert caught.value.cause == "transient"
    assert results(workers, [("", 3)]) == [9]


@pytest.mark.slow
def test_who_is_given_more_time_or_shows_signs_of_life_may_take_longer():
    with Workers(1, Limits(patience_s=1.5)) as pool:
        more = pool.map(pause, [(2.5, 1)], name=lambda i: "slow", patience=lambda i: 20.0)
        assert list(more) == [1]
        assert results(pool, [(4.0, 2)], toil) == [2]


def test_one_map_may_run_inside_another(workers):
    outer = workers.map(pause, [(0.2, i) for i in range(4)], name=str)
    assert [(i, results(workers, [("", i)])) for i in outer] == [(i, [i * i]) for i in range(4)]


def test_workers_that_died_idle_are_not_held_against_the_next_items():
    with Workers(2) as pool:
        results(pool, [(0.2, i) for i in range(4)], pause)
        idle = [worker.process for worker in pool._idle]
        assert len(idle) == 2
        for worker in idle:
            os.kill(worker, signal.SIGKILL)
        assert results(pool, [("", i) for i in range(4)]) == [0, 1, 4, 9]


def test_without_its_nursery_the_pool_starts_another():
    with Workers(2) as pool:
        results(pool, [("", 1)])
        nursery = pool._all[0].zygote._process
        nursery.kill()
        nursery.wait()
        assert results(pool, [("", i) for i in range(4)]) == [0, 1, 4, 9]


def test_a_worker_that_leaks_is_replaced():
    with Workers(1, Limits(memory_gb=0.9)) as pool:
        (before,) = results(pool, [(0,)], process)
        (leaky,) = results(pool, [(780,)], leak)
        (after,) = results(pool, [(0,)], process)
    assert before == leaky
    assert after != leaky


def test_single_attempts_replace_a_worker_that_leaks_too():
    with Workers(1) as pool:
        tasks = [pack_task(process, (0,)), pack_task(leak, (780,)), pack_task(process, (0,))]
        before, leaky, after = (open_reply(pool.attempt(task, 60.0, 0.9e9)) for task in tasks)
    assert before == leaky
    assert after != leaky


def test_workers_end_when_the_pool_closes():
    with Workers(2) as pool:
        ids = set(results(pool, [(0,)] * 4, process))
    assert ids
    for _ in range(50):
        if not any(Path(f"/proc/{i}").exists() for i in ids):
            return
        time.sleep(0.1)
    raise AssertionError("a worker is still there")


@pytest.mark.parametrize("count", [-1, 100_000])
def test_a_senseless_number_of_workers_is_refused(count):
    with pytest.raises(UsageError, match="--workers"):
        Workers(count)


# Through the engine, on real files ------------------------------------------------------------


@pytest.fixture(scope="module")
def films(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("films")
    for seed in range(5):
        noise_video(folder / f"film-{seed}.mp4", seconds=1.0 + 0.25 * seed, seed=seed)
    return folder


def recipe(**fault) -> Recipe:
    return Recipe(Kind.VIDEO, (Probe(), WholeFile(), Fault(**fault), Cut()), max_failed=1.0)


def curate(films: Path, workspace: Path, monkeypatch, made: Recipe, **options):
    monkeypatch.setattr(engine, "video", lambda: made)
    options = {"workers": 2} | options
    curation = Curation(
        CurateOptions(sources=(str(films),), workspace=workspace, recipe="video", **options)
    )
    for step in curation.steps():
        step.run()
    return curation.result()


def failures(result) -> dict[str, tuple[str, str]]:
    path = Path(result.workspace) / "ledger" / "verdicts" / f"{result.run}.parquet"
    rows = pq.read_table(path).to_pylist()
    return {
        Path(r["path"]).name: (r["reason"], r["detail"]) for r in rows if r["outcome"] == "failed"
    }


def test_any_number_of_workers_writes_the_same_bytes(films, tmp_path, monkeypatch):
    trees = []
    for count in (0, 1, 3):
        workspace = tmp_path / f"w{count}"
        result = curate(films, workspace, monkeypatch, recipe(), workers=count)
        assert result.clips.kept == 5
        trees.append(
            {name: digests(workspace / name) for name in ("shards", "tracks", "ledger/commits")}
        )
    assert trees[0] == trees[1] == trees[2]


@pytest.mark.parametrize("fault", ["segfault", "hang", "eat"])
def test_a_file_that_breaks_its_decoder_fails_by_name_and_alone(
    films, tmp_path, monkeypatch, fault
):
    bad = films / "film-2.mp4"
    broken = recipe(what=fault, on_bytes=bad.stat().st_size)
    limits = {"hang": Limits(patience_s=5.0), "eat": SMALL}.get(fault, Limits())
    result = curate(films, tmp_path / "w", monkeypatch, broken, limits=limits)
    assert set(failures(result)) == {"film-2.mp4"}
    cause, message = failures(result)["film-2.mp4"]
    assert cause == "corrupt"
    assert "film-2.mp4" in message
    assert (result.assets.kept, result.assets.failed) == (4, 1)
    again = curate(films, tmp_path / "w", monkeypatch, broken)
    assert (again.redone, again.assets.failed) == (0, 1)  # quarantined: not tried again
    others = tmp_path / "others"
    others.mkdir()
    for film in set(films.iterdir()) - {bad}:
        os.link(film, others / film.name)
    without = curate(others, tmp_path / "w2", monkeypatch, recipe())
    assert digests(Path(result.workspace) / "shards") == digests(Path(without.workspace) / "shards")


def test_a_worker_that_was_killed_from_outside_leaves_its_file_for_the_next_run(
    films, tmp_path, monkeypatch
):
    size = (films / "film-1.mp4").stat().st_size
    killed = recipe(what="be_killed", on_bytes=size)
    first = curate(films, tmp_path / "w", monkeypatch, killed)
    assert failures(first)["film-1.mp4"][0] == "transient"
    again = curate(films, tmp_path / "w", monkeypatch, killed)
    assert again.redone > 0
