"""The parent's side of the nursery: it starts it, asks it for workers, and hears how they ended."""

from __future__ import annotations

import atexit
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence

from reelmill.curation.nursery import FORK, NUMBER, WAIT
from reelmill.errors import ReelmillError

_CODE = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from reelmill.curation.nursery import main; main(int(sys.argv[2]))"
)
_SINGLE = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class Zygote:
    """A nursery process. One thread of its worker uses one core: the pool is the parallelism."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _CODE, json.dumps(sys.path), str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C is for the run to handle
                env={**os.environ, **dict.fromkeys(_SINGLE, "1")},
            )

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def fork(self, descriptor: int) -> int:
        """A new worker that serves a socket; returns its process id."""
        return self._ask(FORK, [descriptor])

    def kill(self, worker: int) -> int:
        """Ends a worker, if it has not ended, and returns its exit code (negative: a signal)."""
        if not self.alive:
            return -signal.SIGKILL  # its workers went with it
        try:
            os.kill(worker, signal.SIGKILL)  # the id is the worker's until the nursery reaps it
            return self._ask(WAIT + NUMBER.pack(worker))
        except (ProcessLookupError, ReelmillError):  # the nursery ended just now
            return -signal.SIGKILL

    def _ask(self, message: bytes, descriptors: Sequence[int] = ()) -> int:
        with self._lock:
            try:
                socket.send_fds(self._channel, [message], descriptors)
                answer = self._channel.recv(NUMBER.size)
                if len(answer) != NUMBER.size:
                    raise EOFError
            except (OSError, EOFError) as error:
                self.close()
                raise ReelmillError(
                    "the process that workers are started from is gone. Run the same command "
                    "again; with --workers 0 everything runs in one process, and shows what is "
                    "wrong."
                ) from error
            except BaseException:  # Ctrl-C: the answer would be taken for the next one's
                self.close()
                raise
        return int(NUMBER.unpack(answer)[0])

    def close(self) -> None:
        self._channel.close()
        self._process.kill()
        self._process.wait()


_shared: Zygote | None = None
_starting = threading.Lock()


def shared_zygote() -> Zygote:
    """The one nursery of this process, started when first needed and when it died."""
    global _shared
    with _starting:
        if _shared is None or not _shared.alive:
            if _shared is None:
                atexit.register(_close)
            else:
                _shared.close()
            _shared = Zygote()
        return _shared


def _close() -> None:
    if _shared is not None:
        _shared.close()
