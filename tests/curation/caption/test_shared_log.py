"""What workers know together: first come, first kept, over threads, processes and kills."""

from __future__ import annotations

import multiprocessing
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from reelmill.curation.caption.shared_log import SharedCount, SharedLog


def claims(path: Path, worker: int) -> list[str]:
    log = SharedLog(path)
    return [log.claim(f"name{i}", f"worker{worker}") for i in range(200)]


def takes(path: Path, worker: int) -> int:
    count = SharedCount(path)
    return sum(count.take(100) for _ in range(80))


def in_processes(work, path: Path) -> list:
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        return pool.starmap(work, [(path, i) for i in range(3)])


def test_processes_agree_on_who_was_first(tmp_path):
    one, two, three = in_processes(claims, tmp_path / "a" / "log")
    assert one == two == three
    assert claims(tmp_path / "a" / "log", 9) == one


def test_a_count_is_kept_over_processes(tmp_path):
    assert sum(in_processes(takes, tmp_path / "count")) == 100
    assert not SharedCount(tmp_path / "count").take(100)
    assert SharedCount(tmp_path / "count").take(101)
    assert SharedCount(tmp_path / "count").take(0)


def test_alone_there_is_no_file():
    log, count = SharedLog(None), SharedCount(None)
    assert (log.claim("a", "1"), log.claim("a", "2")) == ("1", "1")
    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(lambda _: count.take(5), range(20))) == 5
    assert count.own == 5


@given(st.lists(st.sampled_from("abcd"), max_size=12), st.binary(max_size=6))
def test_a_line_that_was_cut_off_by_a_kill_harms_no_other(names, torn):
    folder = Path(os.environ.get("TMPDIR", "/tmp")) / f"torn-{os.getpid()}"
    folder.unlink(missing_ok=True)
    first = {name: SharedLog(folder).claim(name, "1") for name in names}
    with folder.open("ab") as file:
        file.write(torn.replace(b" ", b""))  # not a whole pair
    log = SharedLog(folder)
    assert all(log.claim(name, "2") == value for name, value in first.items())
    assert log.claim("new", "3") == "3"
    assert SharedLog(folder).claim("new", "4") == "3"
    folder.unlink(missing_ok=True)
