"""What all workers of a run know together: which words were said of which clip, how many questions.

A file of lines, appended under a lock. Each process reads what is new to it. A process that is
killed leaves whole lines, or one that is cut off, which the next writer closes and all pass over.
"""

from __future__ import annotations

import fcntl
import os
import threading
from pathlib import Path

from reelmill.datasets.workspace import writing


class SharedLog:
    """Names with the value that each was given first. path: None for a log of this process alone.

    May be used by several threads and processes at once. Names and values are without white space.
    """

    def __init__(self, path: Path | None):
        self._path = path
        self._known: dict[str, str] = {}
        self._read = 0
        self._lock = threading.Lock()

    def claim(self, name: str, value: str) -> str:
        """The value that the name has; this one, where it had none."""
        with self._lock:
            if self._path is None or name in self._known:
                return self._known.setdefault(name, value)
            with writing(self._path):
                self._path.parent.mkdir(parents=True, exist_ok=True)
                file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
                try:
                    fcntl.flock(file, fcntl.LOCK_EX)
                    self._catch_up(file)
                    if name not in self._known:
                        self._append(file, f"{name} {value}\n".encode())
                finally:
                    os.close(file)
            return self._known.setdefault(name, value)

    def _catch_up(self, file: int) -> None:
        data = os.pread(file, max(0, os.fstat(file).st_size - self._read), self._read)
        whole = data.rfind(b"\n") + 1
        for line in data[:whole].decode(errors="replace").splitlines():
            name, _, value = line.partition(" ")
            if value:
                self._known.setdefault(name, value)
        self._read += whole

    def _append(self, file: int, line: bytes) -> None:
        size = os.fstat(file).st_size
        closing = b"" if size == self._read else b"\n"
        os.write(file, closing + line)


class SharedCount:
    """Counts up to a bound over all workers of a run: one byte for each."""

    def __init__(self, path: Path | None):
        self._path = path
        self._lock = threading.Lock()
        self.own = 0  # of this process

    def take(self, most: int) -> bool:
        """Takes one of `most`, where there is one left; 0: there is no bound."""
        with self._lock:
            if most and self._path is None and self.own >= most:
                return False
            if most and self._path is not None and not self._take(self._path, most):
                return False
            self.own += 1
            return True

    @staticmethod
    def _take(path: Path, most: int) -> bool:
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
            try:
                fcntl.flock(file, fcntl.LOCK_EX)
                if os.fstat(file).st_size >= most:
                    return False
                os.write(file, b".")
                return True
            finally:
                os.close(file)
