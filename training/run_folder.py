"""One run at a time in a folder, and a run that is asked to stop."""

from __future__ import annotations

import fcntl
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from reelmill.datasets.workspace import writing
from reelmill.errors import WorkspaceError

PATIENCE_S = 15.0  # for processes of a run that was killed to end


@contextmanager
def locked(folder: Path, writes: bool = True) -> Iterator[None]:
    """Held while a run writes. Raises WorkspaceError when another still has it after a while."""
    if not writes:
        yield
        return
    path = folder / ".lock"
    with writing(path):
        folder.mkdir(parents=True, exist_ok=True)
        file = path.open("a+")
    with file:
        until = time.monotonic() + PATIENCE_S
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > until:
                    file.seek(0)
                    raise WorkspaceError(
                        f"{folder} is being trained in by {file.read().strip() or 'another run'}. "
                        "Wait for it, stop it, or train in another folder (--output)."
                    ) from None
                time.sleep(0.1)
        file.truncate(0)
        file.write(f"process {os.getpid()}\n")
        file.flush()
        try:
            yield
        finally:
            file.truncate(0)


@contextmanager
def stop_requests() -> Iterator[threading.Event]:
    """Set by SIGINT and SIGTERM while a run is in progress; a second SIGINT ends it at once."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def ask(number: int, frame: FrameType | None) -> None:
        if stop.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        stop.set()

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
