"""Reads what will be asked for next, while what was asked for last is worked on."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

DEPTH = 6  # results that wait at most: each may be large
SWITCH_S = 2e-4
"""How long a thread keeps the interpreter while another wants it. Reading asks for it often, and
each time for a moment: at Python's own 5 ms it would wait for most of what it is to run beside."""

T = TypeVar("T")


class ReadAhead(Generic[T]):
    """Calls `read` for names of a given order in a thread, DEPTH of them before they are taken.

    Who takes a name passes over those before it. A name that is out of date is to be forgotten.
    """

    def __init__(self, read: Callable[[str], T]):
        self._read = read
        self._pool: ThreadPoolExecutor | None = None
        self._next: list[str] = []
        self._reading: dict[str, Future[T]] = {}

    def want(self, names: Iterable[str]) -> None:
        """These names will be taken next, in this order; what was wanted before is not."""
        self.stop()
        self._next = list(dict.fromkeys(names))
        self._start()

    def take(self, name: str) -> T:
        """read(name), at once where it has been read. What read raises, this raises."""
        if name in self._reading:
            while (first := next(iter(self._reading))) != name:
                self._reading.pop(first).cancel()
            future = self._reading.pop(name)
            self._start()
            return future.result()
        if name in self._next:
            self.stop(keep=self._next[self._next.index(name) + 1 :])
        found = self._read(name)
        self._start()
        return found

    def forget(self, name: str) -> None:
        """What is read of a name from now on differs from what has been read."""
        if (future := self._reading.pop(name, None)) is not None:
            future.cancel()
        if name in self._next:
            self._next.remove(name)
        self._start()

    def stop(self, keep: Iterable[str] = ()) -> None:
        """Wants nothing, or only these names."""
        for future in self._reading.values():
            future.cancel()
        self._reading.clear()
        self._next = list(keep)

    def _start(self) -> None:
        while self._next and len(self._reading) < DEPTH:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(1, "reelmill-read-ahead")
            name = self._next.pop(0)
            self._reading[name] = self._pool.submit(self._read_beside, name)

    def _read_beside(self, name: str) -> T:
        with _pace:
            return self._read(name)


class _Pace:
    """Switches threads every SWITCH_S for as long as anything is read."""

    def __init__(self) -> None:
        self._lock, self._readers, self._before = threading.Lock(), 0, 0.0

    def __enter__(self) -> None:
        with self._lock:
            if not self._readers:
                self._before = sys.getswitchinterval()
                sys.setswitchinterval(min(SWITCH_S, self._before))
            self._readers += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._readers -= 1
            if not self._readers:
                sys.setswitchinterval(self._before)


_pace = _Pace()
