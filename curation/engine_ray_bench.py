"""What runs on a node of a Ray cluster: one bench, with a seat for each item in work there.

A seat is a worker process of that node (reelmill.curation.workers), so an item has on a cluster the
same deadline, the same limit of memory and the same protection from a crash as on one machine, and
ends with the same words. The bench passes calls and replies on as bytes. They are pickles between
processes of one run, and come from the run through Ray, which trusts whoever holds its token.
"""

from __future__ import annotations

import hashlib
import os
import socket
import sys
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from queue import Empty, SimpleQueue

import reelmill
from reelmill.curation.workers import Limits, Lost, Workers, machine_memory, pack_task
from reelmill.errors import ReelmillError

LIBRARIES = ("av", "numpy", "opencv-python-headless", "pyarrow", "scipy", "torch")
HEAD_BYTES = 4096
START_S = 120.0


def code_digest() -> str:
    """Digest of the code that measures, and of the libraries that it measures with."""
    digest = hashlib.sha256()
    root = Path(reelmill.__file__).parent
    for folder in ("curation", "datasets"):
        for file in sorted((root / folder).resolve().rglob("*.py")):
            digest.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
    for name in LIBRARIES:
        digest.update(f"{name}=={version(name)}\n".encode())
    return digest.hexdigest()


def fingerprint(path: str) -> str:
    """Of a file as this machine sees it: enough to tell that it is the same one; "" for none."""
    try:
        with Path(path).open("rb") as file:
            head = file.read(HEAD_BYTES)
            size = os.fstat(file.fileno()).st_size
    except OSError:
        return ""
    return f"{size} {hashlib.sha256(head).hexdigest()}"


@dataclass(frozen=True)
class Setting:
    """What a node must have in common with the run.

    folder: where relative paths begin. path: where modules are found. files: fingerprints by path
    of files that it must see. written: folders that it must be able to write.
    """

    folder: str
    path: tuple[str, ...]
    environment: dict[str, str]
    code: str
    files: dict[str, str]
    written: tuple[str, ...]

    def complaint(self) -> str:
        """What this machine lacks, in words, or nothing."""
        if code_digest() != self.code:
            return "it has another Reelmill, or other versions of its libraries. Install the same"
        if not Path(self.folder).is_dir():
            return f"it has no folder {self.folder}. Mount it there under the same path"
        for path, seen in self.files.items():
            if fingerprint(path) != seen:
                return f"it does not see {path}. Mount its folder there under the same path"
        for path in self.written:
            if not os.access(path, os.W_OK):
                return f"it cannot write {path}. Mount it there writable, for the same user"
        return ""


@dataclass(frozen=True)
class Greeting:
    """What a bench says first. memory: bytes of its machine. complaint: why it cannot work."""

    host: str
    process: int
    memory: float
    complaint: str


class Bench:
    """Seats on one node. Its methods are called from threads of a Ray actor."""

    def __init__(self, setting: Setting):
        os.environ.update(setting.environment)
        sys.path += [p for p in setting.path if p not in sys.path]
        self._setting = setting
        self._idle: SimpleQueue[Workers] = SimpleQueue()

    def greet(self) -> Greeting:
        complaint = self._setting.complaint()
        if not complaint:
            os.chdir(self._setting.folder)
            reply = self.work(pack_task(os.getpid, ()), START_S, Limits(), 1)
            if isinstance(reply, Lost):
                complaint = f"no worker starts on it ({reply.message}). See Ray's logs there"
        return Greeting(socket.gethostname(), os.getpid(), machine_memory(), complaint)

    def pulse(self) -> None:
        """Answers, as a sign of life of the bench itself."""

    def work(self, task: bytes, patience_s: float, limits: Limits, sharers: int) -> bytes | Lost:
        """One try at a task: its reply, or what its worker died of. sharers: seats in use here."""
        try:
            workers = self._idle.get_nowait()
        except Empty:
            workers = Workers(1, limits)
        try:
            return workers.attempt(task, patience_s, limits.memory(sharers))
        except ReelmillError as error:  # the nursery is gone; the next call starts another
            return Lost(str(error).split(". ")[0], "transient")
        finally:
            self._idle.put(workers)
