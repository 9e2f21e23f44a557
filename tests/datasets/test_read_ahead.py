"""ReadAhead gives what a plain read gives, whatever order names are taken in."""

from __future__ import annotations

import sys
import threading
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reelmill.datasets.read_ahead import DEPTH, ReadAhead

names = st.sampled_from("abcdef")


@given(st.lists(names), st.lists(st.tuples(st.sampled_from(["take", "forget", "change"]), names)))
def test_what_is_taken_is_what_is_there_now(wanted, steps):
    version: Counter[str] = Counter()
    ahead = ReadAhead(lambda name: (name, version[name]))
    ahead.want(wanted)
    for step, name in steps:
        if step == "take":
            assert ahead.take(name) == (name, version[name])
        elif step == "change":
            version[name] += 1
            ahead.forget(name)
        else:
            ahead.forget(name)


def test_names_in_order_are_read_once_and_never_far_ahead():
    read: list[str] = []
    taken = 0
    most = 0

    def note(name: str) -> str:
        nonlocal most
        read.append(name)
        most = max(most, len(read) - taken)
        return name

    ahead = ReadAhead(note)
    ahead.want("abcdefgh")
    for name in "abcdefgh":
        assert ahead.take(name) == name
        taken += 1
    assert "".join(read) == "abcdefgh"
    assert most <= DEPTH + 1


def test_what_reading_raises_is_raised_where_it_is_taken():
    def fail(name: str) -> str:
        raise ValueError(f"no {name}")

    ahead = ReadAhead(fail)
    ahead.want("ab")
    with pytest.raises(ValueError, match="no a"):
        ahead.take("a")
    with pytest.raises(ValueError, match="no b"):
        ahead.take("b")


def test_threads_switch_quicker_while_something_is_read_and_only_then():
    before = sys.getswitchinterval()
    reading, go_on = threading.Event(), threading.Event()

    def slow(name: str) -> float:
        reading.set()
        go_on.wait(10)
        return sys.getswitchinterval()

    two = [ReadAhead(slow) for _ in range(2)]
    for ahead in two:
        ahead.want("a")
    assert reading.wait(10)
    assert sys.getswitchinterval() < before
    go_on.set()
    assert all(ahead.take("a") < before for ahead in two)
    assert sys.getswitchinterval() == pytest.approx(before)
