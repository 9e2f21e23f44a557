"""The process that workers are forked from, and what a worker does.

The nursery imports the stages once, on one thread and with no media open; a worker is then ready
in milliseconds, also after one before it died. The parent speaks to the nursery over one socket
and to each worker over another. When the parent dies, the nursery ends and its workers with it.
Messages are pickles on sockets that only processes of this program hold; no file and nothing from
another program is ever unpickled.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import os
import pickle
import select
import signal
import socket
import struct
import sys
import time
import traceback
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from types import FrameType
from typing import NoReturn

# scipy.signal, rapidocr and pandas are what stages and pyarrow import at their first use.
PRELOAD = (
    "reelmill.curation.recipes",
    "reelmill.curation.materialise",
    "reelmill.curation.preview",
    "scipy.signal",
    "pandas",
    "rapidocr.main",
)
FORK, WAIT = b"f", b"w"
DONE, RAISED, OUT_OF_MEMORY = b"d", b"r", b"m"  # what a reply begins with
REAP_S = 5.0
LOOK_S = 0.5
NUMBER = struct.Struct("=q")
_PR_SET_PDEATHSIG = 1


def main(control: int) -> NoReturn:
    """Serves the parent: forks a worker for a socket it sends, waits for one that died."""
    channel = socket.socket(fileno=control)
    with _ending_with_parent(channel):
        for name in PRELOAD:
            importlib.import_module(name)
    while True:
        message, descriptors, _, _ = socket.recv_fds(channel, 64, 1)
        if not message:
            os._exit(0)
        if message[:1] == FORK:
            nursery = os.getpid()
            worker = os.fork()
            if worker == 0:
                _become_worker(channel, nursery, descriptors[0])
            os.close(descriptors[0])
            channel.send(NUMBER.pack(worker))
        elif message[:1] == WAIT:
            channel.send(NUMBER.pack(_reap(NUMBER.unpack(message[1:])[0])))


@contextlib.contextmanager
def _ending_with_parent(channel: socket.socket) -> Iterator[None]:
    """Imports take seconds: looks meanwhile whether the parent is there, without a thread."""
    hung_up = select.poll()
    hung_up.register(channel, 0)  # a hang-up is always told

    def look(signum: int, frame: FrameType | None) -> None:
        if hung_up.poll(0):
            os._exit(0)

    signal.signal(signal.SIGALRM, look)
    signal.setitimer(signal.ITIMER_REAL, LOOK_S, LOOK_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)


def _reap(worker: int) -> int:
    """Exit code of a killed worker. One that hangs in the kernel (a dead mount) is left there."""
    end = time.monotonic() + REAP_S
    while time.monotonic() < end:
        ended, status = os.waitpid(worker, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.001)
    return -signal.SIGKILL


def _become_worker(channel: socket.socket, nursery: int, descriptor: int) -> NoReturn:
    """What a fresh fork does. It never returns into the nursery's own loop."""
    try:
        channel.close()
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # it may be busy when that ends
        if os.getppid() != nursery:  # that ended before the line above
            os._exit(0)
        with contextlib.suppress(OSError):  # when memory ends, the kernel takes a worker
            Path("/proc/self/oom_score_adj").write_text("900")
        _work(Connection(descriptor))
    finally:
        os._exit(1)


def _work(connection: Connection) -> NoReturn:
    """Calls what it is sent, one call at a time, and sends back what came of it."""
    from reelmill.curation import pulse

    def send(data: bytes) -> None:
        try:
            connection.send_bytes(data)
        except OSError:  # nobody listens any more
            os._exit(0)

    pulse.listen(lambda: send(b""))
    while True:
        try:
            data = connection.recv_bytes()
        except (EOFError, OSError):
            os._exit(0)
        send(_answer(data))


def _answer(data: bytes) -> bytes:
    """The reply to a call: how it went, and a pickle of what came of it."""
    try:
        sys.path[:], task = pickle.loads(data)
        function, arguments = pickle.loads(task)
        return DONE + pickle.dumps(function(*arguments), pickle.HIGHEST_PROTOCOL)
    except MemoryError:
        return OUT_OF_MEMORY
    except BaseException as error:  # it belongs to the parent, whatever it is
        error.add_note("in a worker:\n" + "".join(traceback.format_exception(error)))
        try:
            reply = pickle.dumps(error)
            pickle.loads(reply)
        except Exception:
            reply = pickle.dumps(RuntimeError(f"{type(error).__name__}: {error}"))
        return RAISED + reply
