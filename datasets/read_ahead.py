"""Reads what will be asked for next, while what was asked for last is worked on."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

DEPTH = 2  # results that wait at most: each may be large

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
            self._reading[name] = self._pool.submit(self._read, name)
