"""No process of a run outlives it: a rank dies with its launcher, and soon after another rank did.

A collective of gloo or NCCL notices a lost peer only when it next talks to it, which a rank deep in
its own work does not do for a while, and then holds a GPU that the next try needs.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import threading
from collections.abc import Sequence
from contextlib import AbstractContextManager

_PR_SET_PDEATHSIG = 1
GRACE_S = 3.0  # for a rank to end by itself, with words
LOST = 75  # exit code: the same command resumes


def die_with_parent() -> None:
    """The kernel kills this process when the thread that started it ends."""
    parent = os.getppid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(LOST)


class Watch(AbstractContextManager):
    """Ends this process GRACE_S seconds after one of `others`, processes of this machine, ended."""

    def __init__(self, others: Sequence[int]):
        self._read, self._write = os.pipe()
        self._others = []
        for other in others:
            try:
                self._others.append(os.pidfd_open(other))
            except ProcessLookupError:
                os._exit(LOST)
        self._thread = threading.Thread(target=self._wait, name="watch", daemon=True)
        self._thread.start()

    def _wait(self) -> None:
        ready = select.select([*self._others, self._read], [], [])[0]
        if self._read not in ready and not select.select([self._read], [], [], GRACE_S)[0]:
            os._exit(LOST)

    def __exit__(self, *_: object) -> None:
        os.write(self._write, b".")
        self._thread.join()
        for number in (self._read, self._write, *self._others):
            os.close(number)
