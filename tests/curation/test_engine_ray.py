"""The Ray engine on clusters of several nodes: same bytes, order, protection, kinds of death."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.curation_content import content
from tests.faults import do, pause, process, toil
from tests.media import noise_video
from tests.ray_nodes import Nodes, below, command, wait_until_gone
from tests.toil import PARTITIONS, Doomed, Told, bulk, curate, curation, visible_gpu
from tests.trees import digests

from reelmill.curation import engine, engine_ray, passes
from reelmill.curation.engine import CurateOptions, Curation
from reelmill.curation.engine_ray import WINDOW, RayWorkers
from reelmill.curation.engine_ray_bench import Setting, code_digest, fingerprint
from reelmill.curation.stage import Resources
from reelmill.curation.workers import Limits, Lost
from reelmill.errors import MediaError, ReelmillError, UsageError

pytestmark = pytest.mark.long

FILES = 6
GROUPS = FILES // PARTITIONS["short"]


@pytest.fixture(scope="module", autouse=True)
def _recipes_as_before():
    """tests.toil puts a recipe of its own in place of the engine's, in this process too."""
    before = engine.video, engine.ASSETS_A_GROUP
    yield
    engine.video, engine.ASSETS_A_GROUP = before


@pytest.fixture(scope="module")
def nodes():
    made = Nodes(2)
    yield made
    made.close()


@pytest.fixture(scope="module")
def films(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("films")
    for seed in range(FILES):
        noise_video(folder / f"film-{seed}.mp4", seconds=0.5 + 0.125 * seed, seed=seed)
    return folder


@pytest.fixture(scope="module")
def marks(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("marks")


@pytest.fixture(scope="module")
def local(films, marks, tmp_path_factory) -> Path:
    """The workspace of a run without Ray that nothing disturbed."""
    root = tmp_path_factory.mktemp("local") / "w"
    result = curate([str(films)], str(root), str(marks), workers=2)
    assert result.clips.kept == FILES
    return root


def same(workspace: Path, local: Path) -> None:
    assert digests(workspace / "shards") == digests(local / "shards")
    assert content(workspace) == content(local)
    assert list((workspace / "cuts").iterdir()) == []


def results(crew: RayWorkers, items: list[tuple], function=do) -> list:
    return list(crew.map(function, items, name=lambda i: f"item {i}"))


# One crew, many items -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def crew(nodes):
    with RayWorkers(2, Limits(patience_s=3.0), nodes.address) as made:
        yield made


@pytest.mark.slow
def test_results_come_in_the_order_of_the_items_from_more_than_one_node(crew):
    items = [(0.3, 0), (0.0, 1), (0.2, 2), (0.0, 3), (0.1, 4)]
    assert results(crew, items, pause) == [0, 1, 2, 3, 4]
    seen: set[int] = set()
    while len(seen) < 2:  # a node joins when it is ready
        seen |= set(results(crew, [(0,)] * 9, process))
    assert os.getpid() not in seen
    assert len({bench.node.id for bench in crew._benches}) == 2


@pytest.mark.parametrize(
    ("fault", "says", "cause"),
    [
        ("segfault", "SIGSEGV", "corrupt"),
        ("hang", "no sign of life", "corrupt"),
        ("be_killed", "SIGKILL", "transient"),
    ],
)
def test_what_breaks_its_worker_is_lost_and_nothing_else(crew, fault, says, cause):
    found = results(crew, [("", 2), (fault, 3), ("", 4), ("", 5)])
    assert found[:1] + found[2:] == [4, 16, 25]
    lost = found[1]
    assert isinstance(lost, Lost)
    assert lost.cause == cause
    assert says in lost.message
    assert "item 1" in lost.message


def test_what_breaks_once_is_tried_again_and_comes_through(crew, tmp_path):
    items = [("once segfault", 2, str(tmp_path)), ("", 3), ("once be_killed", 4, str(tmp_path))]
    assert results(crew, items) == [4, 9, 16]


def test_who_shows_signs_of_life_may_take_longer(crew):
    assert results(crew, [(4.0, 2)], toil) == [2]


def test_one_map_may_run_inside_another(crew):
    outer = crew.map(pause, [(0.1, i) for i in range(9)], name=str)
    assert [(i, results(crew, [("", i)])) for i in outer] == [(i, [i * i]) for i in range(9)]


def test_no_more_is_handed_out_than_the_window_holds(crew):
    items = Told([("", i) for i in range(500)])
    found = crew.map(do, items, name=str)
    for due in range(40):
        assert next(found) == due * due
        time.sleep(0.01)
        assert items.reached <= due + WINDOW * max(WINDOW, 3)
    assert [*found][-1] == 499 * 499


def test_an_error_of_the_function_is_raised_here_and_the_crew_lives_on(crew):
    with pytest.raises(MediaError, match="value 7") as caught:
        results(crew, [("", 1), ("refuse", 7), ("", 2)])
    assert caught.value.cause == "transient"
    assert results(crew, [("", 3)]) == [9]


@pytest.mark.slow
def test_a_killed_bench_is_replaced_and_its_items_go_on(crew):
    found = []
    for i, value in enumerate(crew.map(pause, [(0.1, i) for i in range(30)], name=str)):
        found.append(value)
        if i == 5:
            os.kill(_bench_process(crew), signal.SIGKILL)
    assert found == list(range(30))
    while len(crew._benches) < 2:  # its core must be free again
        assert results(crew, [("", 1)]) == [1]
    assert len({b.node.id for b in crew._benches}) == 2


def _bench_process(crew: RayWorkers) -> int:
    """Of a bench that is at work, or else of one that works now and then."""
    ready = [b for b in crew._benches if b.greeting]
    return max(ready, key=lambda b: b.busy).greeting.process


# Refusals ---------------------------------------------------------------------------------------


def test_a_node_that_sees_another_file_is_refused_by_name(nodes, crew):
    """/proc/self is another file to every process."""
    crew.close()  # its cores are wanted here
    shared = [Path("/proc/self/stat")]
    with (
        RayWorkers(address=nodes.address, shared=lambda: shared) as other,
        pytest.raises(UsageError, match="does not see /proc/self/stat"),
    ):
        results(other, [("", 1)])


def test_a_node_must_have_the_code_the_folders_and_the_right_to_write(tmp_path):
    file = tmp_path / "a"
    file.write_text("here")
    files = {str(file): fingerprint(str(file))}
    ours = Setting(str(tmp_path), (), {}, code_digest(), files, (str(tmp_path),))
    assert ours.complaint() == ""
    assert "other versions" in Setting(str(tmp_path), (), {}, "x", {}, ()).complaint()
    absent = str(tmp_path / "absent")
    assert "no folder" in Setting(absent, (), {}, ours.code, {}, ()).complaint()
    assert "cannot write" in Setting("/", (), {}, ours.code, {}, (absent,)).complaint()
    file.write_text("else")
    assert "does not see" in ours.complaint()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"engine": "ray", "workers": 0}, "--workers is 0"),
        ({"engine": "ray", "address": "ray://here:10001"}, "client protocol"),
        ({"engine": "ray", "address": "here"}, "HOST:PORT or auto"),
        ({"address": "auto"}, "--engine ray"),
        ({"engine": "spark"}, "must be local or ray"),
    ],
)
def test_senseless_options_are_refused_before_anything_starts(tmp_path, options, says):
    with pytest.raises(UsageError, match=says):
        Curation(CurateOptions((str(tmp_path),), tmp_path / "w", **options))


def test_an_address_where_nobody_listens_is_told_at_once():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with (
        RayWorkers(address=f"127.0.0.1:{port}") as other,
        pytest.raises(UsageError, match="no Ray"),
    ):
        results(other, [("", 1)])


def test_a_machine_too_busy_to_start_ray_is_told_in_words(monkeypatch):
    """Ray then raises a bare Exception."""
    import ray

    def busy(**_):
        raise Exception("The current node timed out during startup.")

    monkeypatch.setattr(ray, "init", busy)
    with RayWorkers(1) as other, pytest.raises(ReelmillError, match="does not start here"):
        results(other, [("", 1)])


def test_the_command_line_does_not_import_ray():
    code = (
        "import sys, reelmill.cli, reelmill.curation.engine; "
        "print([m for m in sys.modules if m.split('.')[0] == 'ray'])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


# Whole runs -------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 3])
def test_a_node_that_dies_midway_changes_no_byte(nodes, crew, films, marks, local, tmp_path, count):
    """With shuffled input; one node is killed during the shared decode."""
    crew.close()
    nodes.refill(count)
    files = [str(f) for f in films.iterdir()]
    random.Random(1).shuffle(files)
    made = curation(files, str(tmp_path / "w"), str(marks), engine="ray", address=nodes.address)
    for step in made.steps():
        if step.label == f"video: shared decode 2/{GROUPS}":
            nodes.kill()
        step.run()
    assert made.result().clips.kept == FILES
    same(tmp_path / "w", local)
    assert nodes.working() == []


def test_a_large_group_is_committed_in_parts(films, marks, local, tmp_path, monkeypatch):
    """Without Ray: what a pass gathers is bounded, and says the same."""
    monkeypatch.setattr(passes, "SPILL_ROWS", 1)
    curate([str(films)], str(tmp_path / "w"), str(marks), workers=2)
    same(tmp_path / "w", local)
    parts = list((tmp_path / "w" / "ledger" / "media").rglob("*.parquet"))
    assert len(parts) == FILES


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 4])
def test_any_number_of_workers_writes_the_same_bytes(films, marks, local, tmp_path, count):
    files = [str(f) for f in films.iterdir()]
    random.Random(count).shuffle(files)
    given = [files, str(tmp_path / "w"), str(marks), {"engine": "ray", "workers": count}]
    code = "import json, sys; from tests.toil import curate; a = json.loads(sys.argv[1]); "
    subprocess.run(  # a cluster of its own, in a process of its own: this one has been on others
        [sys.executable, "-c", code + "curate(*a[:3], **a[3])", json.dumps(given)],
        cwd=Path(__file__).parents[2],
        check=True,
    )
    same(tmp_path / "w", local)
    trees = [digests(w / "ledger" / "commits") for w in (tmp_path / "w", local)]
    assert trees[0] == trees[1]


@pytest.mark.slow
def test_a_bench_that_stops_to_answer_is_replaced(nodes):
    nodes.refill(3)
    with RayWorkers(address=nodes.address, bench_patience_s=5.0) as made:
        found, stopped = [], 0
        try:
            for i, value in enumerate(made.map(pause, [(0.3, i) for i in range(30)], name=str)):
                found.append(value)
                if i == 5:
                    stopped = _bench_process(made)
                    os.kill(stopped, signal.SIGSTOP)
        finally:
            if stopped:  # 0 would be this very process
                with contextlib.suppress(ProcessLookupError):
                    os.kill(stopped, signal.SIGKILL)
    assert found == list(range(30))


@pytest.mark.slow
def test_work_for_a_gpu_goes_to_seats_that_have_a_share_of_one(nodes):
    """Ray counts GPUs that it is told of; two of them, half of one for a seat."""
    node = nodes.add(gpus=2)
    try:
        with RayWorkers(address=nodes.address) as made:
            assert results(made, [(0.0,)] * 3, visible_gpu) == [""] * 3
            half, seen = Resources(gpus=0.5), set()
            while len(seen) < 2:  # until both benches are ready
                seen |= set(made.map(visible_gpu, [(0.2,)] * 8, name=str, needs=half))
            assert seen == {"0", "1"}
            benches = [bench for bench in made._benches if bench.gpus]
            assert [bench.seats(half) for bench in benches] == [2, 2]
            assert results(made, [(0.0,)] * 3, visible_gpu) == [""] * 3
    finally:
        nodes.remove(node)


@pytest.mark.slow
def test_a_cluster_on_which_nothing_starts_is_told_in_words(nodes, monkeypatch):
    monkeypatch.setattr(engine_ray, "Bench", Doomed)
    with RayWorkers(address=nodes.address) as made, pytest.raises(ReelmillError, match="no node"):
        results(made, [("", 1)])


@pytest.mark.slow
def test_the_driver_does_not_grow_with_what_passes_through(nodes):
    """1.5 GB of results through a cluster with 300 MB of object store."""
    with RayWorkers(address=nodes.address) as made:
        results(made, [(5,)] * 20, bulk)
        before = _resident()
        for value in made.map(bulk, [(5,)] * 300, name=str):
            assert len(value) == 5_000_000
            assert _resident() < before + 150e6


def _resident() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return float(pages * os.sysconf("SC_PAGE_SIZE"))


@pytest.mark.slow
@pytest.mark.parametrize("stop", [None, signal.SIGINT, signal.SIGTERM])
def test_the_command_is_quiet_stops_in_words_and_leaves_no_process(films, tmp_path, stop):
    """A cluster of its own, through the command line, whole and stopped midway."""
    words = [sys.executable, "-m", "reelmill.cli", "curate", str(films), "-w", "w"]
    options = ["--recipe", "video", "--allow-missing", "--engine", "ray"]
    run = subprocess.Popen(
        [*words, *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        start_new_session=True,
    )
    family: list[int] = []
    if stop is not None:
        while not any("nursery" in command(i) for i in below(run.pid)):
            assert run.poll() is None
            time.sleep(0.1)
        time.sleep(1.0)
        family = below(run.pid)
        os.killpg(run.pid, stop) if stop == signal.SIGINT else run.send_signal(stop)
    answer, error = run.communicate()
    assert "Traceback" not in error
    assert "ray" not in error.lower().replace(str(tmp_path), "")
    assert run.returncode == (0 if stop is None else 75), error
    if stop is not None:
        assert "Interrupted" in error
        wait_until_gone(family)
    else:
        assert "kept" in answer
