"""The process that workers are forked from, and what a worker does.

The nursery imports the stages once, on one thread and with no media open; a worker is then ready
in milliseconds, also after one before it died. The parent speaks to the nursery over one socket
and to each worker over another. When the parent dies, the nursery ends and its workers with it.
Messages are pickles between processes of one program; no file is ever unpickled.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import os
import pickle
import signal
import socket
import struct
import sys
import traceback
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NoReturn

# scipy.signal and pandas are what stages and pyarrow import at their first use.
PRELOAD = (
    "reelmill.curation.recipes",
    "reelmill.curation.materialise",
    "reelmill.curation.preview",
    "scipy.signal",
    "pandas",
)
FORK, WAIT = b"f", b"w"
NUMBER = struct.Struct("=q")
_PR_SET_PDEATHSIG = 1


def main(control: int) -> NoReturn:
    """Serves the parent: forks a worker for a socket it sends, waits for one that died."""
    for name in PRELOAD:
        importlib.import_module(name)
    channel = socket.socket(fileno=control)
    while True:
        message, descriptors, _, _ = socket.recv_fds(channel, 64, 1)
        if not message:
            os._exit(0)
        if message[:1] == FORK:
            worker = os.fork()
            if worker == 0:
                channel.close()
                _work(Connection(descriptors[0]))
            os.close(descriptors[0])
            channel.send(NUMBER.pack(worker))
        elif message[:1] == WAIT:
            _, status = os.waitpid(NUMBER.unpack(message[1:])[0], 0)
            channel.send(NUMBER.pack(os.waitstatus_to_exitcode(status)))


def _work(connection: Connection) -> NoReturn:
    """Calls what it is sent, one call at a time, and sends back what came of it."""
    from reelmill.curation import pulse

    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # it may be busy when that ends
    with contextlib.suppress(OSError):  # when memory ends, the kernel takes a worker, not the run
        Path("/proc/self/oom_score_adj").write_text("900")
    pulse.listen(lambda: connection.send_bytes(b""))
    while True:
        try:
            data = connection.recv_bytes()
        except (EOFError, OSError):
            os._exit(0)
        connection.send_bytes(_answer(data))


def _answer(data: bytes) -> bytes:
    try:
        sys.path[:], task = pickle.loads(data)
        function, arguments = pickle.loads(task)
        return pickle.dumps(("done", function(*arguments)), pickle.HIGHEST_PROTOCOL)
    except MemoryError:
        return pickle.dumps(("memory", None))
    except BaseException as error:  # it belongs to the parent, whatever it is
        error.add_note("in a worker:\n" + "".join(traceback.format_exception(error)))
        try:
            reply = pickle.dumps(("raised", error))
            pickle.loads(reply)
        except Exception:
            return pickle.dumps(("raised", RuntimeError(f"{type(error).__name__}: {error}")))
        return reply
