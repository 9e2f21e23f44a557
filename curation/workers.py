"""Worker processes for all that opens media: parallel, and apart from the run itself.

    with Workers(4) as workers:
        for found in workers.map(decode_file, items, name=...):
            ...

Results come in the order of the items, whoever worked them out, so what a run writes does not
depend on the number of workers. A worker has one item at a time. When it dies, hangs or takes too
much memory, only that item is lost: it is tried once more, alone on the machine, and then given
back as `Lost`.

Calls and replies are pickles on a pipe between processes of this program; no pickle is ever read
from a file. Workers keep the run from what breaks or stalls a decoder. They are no sandbox: a file
that made a decoder run code of its own would have the user's rights.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, Pipe, wait
from pathlib import Path
from typing import Any, TypeVar

from reelmill.curation.nursery import DONE, OUT_OF_MEMORY
from reelmill.curation.stage import Resources
from reelmill.curation.zygote import Zygote, shared_zygote
from reelmill.errors import MediaError, UsageError

Result = TypeVar("Result")

TICK_S = 0.25
SHARE = 0.7
LEAST_GB = 2.0
ONE_CORE = Resources()
LEAKED = 0.8  # of its memory, held with nothing to do: such a worker is let go
MAX_WORKERS = 512
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Limits:
    """What a worker may take for one item.

    patience_s: seconds without a sign of life after which it counts as stuck; an item may ask for
    more. memory_gb: resident memory; None is 70 % of the machine's, shared by the workers (at
    least 2 GB each), and unshared at the second try.
    """

    patience_s: float = 120.0
    memory_gb: float | None = None

    def memory(self, count: int) -> float:
        """Bytes that one of `count` workers on this machine may hold."""
        if self.memory_gb is not None:
            return self.memory_gb * 1e9
        return max(LEAST_GB * 1e9, SHARE * machine_memory() / count)


@dataclass(frozen=True)
class Lost:
    """An item that took its worker with it, twice. cause: as of MediaError."""

    message: str
    cause: str


@dataclass(eq=False)
class _Worker:
    zygote: Zygote
    process: int
    connection: Connection
    index: int = -1
    deadline_s: float = 0.0
    heard: float = 0.0


@dataclass
class _Job:
    """One call of `map`. task: of an item, pickled."""

    task: Callable[[int], bytes]
    patience: Callable[[int], float]
    busy: list[_Worker] = field(default_factory=list)
    lost: dict[int, Lost] = field(default_factory=dict)


class Workers:
    """A pool of worker processes, started when first needed.

    count: None is one for each core; 0 runs everything in this process, without isolation.
    """

    def __init__(self, count: int | None = None, limits: Limits | None = None):
        if count is not None and not 0 <= count <= MAX_WORKERS:
            raise UsageError(f"--workers is {count}; it must be from 0 to {MAX_WORKERS}.")
        self.count = len(os.sched_getaffinity(0)) if count is None else count
        self.limits = limits or Limits()
        self._idle: list[_Worker] = []
        self._all: list[_Worker] = []

    def warm_up(self) -> None:
        """Begins to import what workers need, while the run does something else."""
        if self.count:
            shared_zygote()

    def map(
        self,
        function: Callable[..., Result],
        items: Sequence[tuple[Any, ...]],
        *,
        name: Callable[[int], str],
        patience: Callable[[int], float] = lambda index: 0.0,
        needs: Resources = ONE_CORE,
    ) -> Iterator[Result | Lost]:
        """function(*item) for each item, in order (as of reelmill.curation.crew.Crew).

        function and items go to another process and are pickled. needs: as many work at a time as
        memory holds, and one where they want a GPU.
        """
        if self.count == 0:
            yield from (function(*item) for item in items)
            return
        job = _Job(
            lambda index: pack_task(function, items[index]),
            lambda index: self.limits.patience_s + patience(index),
        )
        most = 1 if needs.gpus else max(1, int(machine_memory() / (needs.memory_gb * 1e9)))
        count = min(self.count, most)
        found: dict[int, Result | Lost] = {}
        due = 0
        try:
            for index, reply in self._run(job, count, range(len(items))):
                found[index] = open_reply(reply)
                while due in found:
                    yield found.pop(due)
                    due += 1
            for index, first in sorted(job.lost.items()):
                job.lost.clear()
                for _, reply in self._run(job, 1, [index]):
                    found[index] = open_reply(reply)
                if index in job.lost:
                    found[index] = twice(name(index), first, job.lost[index])
            yield from (found[index] for index in sorted(found))
        finally:
            while job.busy:
                self._end(job.busy.pop())

    def call(self, function: Callable[..., Result], *item: Any, name: str) -> Result:
        """function(*item), in a worker. Raises MediaError when the item is lost."""
        (result,) = self.map(function, [item], name=lambda index: name)
        if isinstance(result, Lost):
            raise MediaError(result.message, cause=result.cause)
        return result

    def attempt(self, task: bytes, patience_s: float, memory: float) -> bytes | Lost:
        """One try at one task, by one worker: its reply, both pickled.

        patience_s: seconds that it may be silent. memory: bytes that its worker may hold.
        """
        job = _Job(lambda index: task, lambda index: patience_s)
        try:
            replies = [reply for _, reply in self._run(job, 1, [0], memory)]
            return replies[0] if replies else job.lost[0]
        finally:
            while job.busy:
                self._end(job.busy.pop())

    def _run(
        self, job: _Job, count: int, indices: Sequence[int], memory: float | None = None
    ) -> Iterator[tuple[int, bytes]]:
        """(index, reply) of items as they are done, by `count` workers; notes those lost."""
        waiting = deque(indices)
        if memory is None:
            memory = self.limits.memory(count)
        while waiting or job.busy:
            while waiting and len(job.busy) < count:
                self._start(job, waiting.popleft())
            for worker in self._ready(memory, job):
                yield from self._collect(worker, job)
            for worker in [w for w in self._idle if _resident(w.process) > LEAKED * memory]:
                self._idle.remove(worker)
                self._end(worker)

    def _start(self, job: _Job, index: int) -> None:
        data = pickle.dumps((sys.path, job.task(index)))  # the path may have grown
        worker = self._take()
        worker.index, worker.deadline_s = index, job.patience(index)
        worker.heard = time.monotonic()
        job.busy.append(worker)
        with contextlib.suppress(OSError):  # it died just now: `_collect` will hear that
            worker.connection.send_bytes(data)

    def _take(self) -> _Worker:
        """An idle worker that lives, or a new one. An item is not to blame for a dead one."""
        while self._idle:
            worker = self._idle.pop()
            if not worker.connection.poll():  # idle, it says nothing: this would be its end
                return worker
            self._end(worker)
        return self._new()

    def _ready(self, memory: float, job: _Job) -> list[_Worker]:
        """Workers that said something; those that took too much or hang are lost on the way."""
        told = set(wait([worker.connection for worker in job.busy], TICK_S))
        now = time.monotonic()
        for worker in job.busy[:]:
            if worker.connection in told:
                continue
            if now - worker.heard > worker.deadline_s:
                text = f"no sign of life for {worker.deadline_s:.0f} s"
                self._lose(worker, job, Lost(text, "corrupt"))
            elif _resident(worker.process) > memory:
                text = f"more than {memory / 1e9:.1f} GB of memory"
                self._lose(worker, job, Lost(text, "corrupt"))
        return [worker for worker in job.busy if worker.connection in told]

    def _collect(self, worker: _Worker, job: _Job) -> Iterator[tuple[int, bytes]]:
        """What a worker has to say: a sign of life, a reply, or its end."""
        try:
            data = worker.connection.recv_bytes()
        except (EOFError, OSError):
            job.busy.remove(worker)
            job.lost[worker.index] = _death(self._end(worker))
            return
        worker.heard = time.monotonic()
        if not data:
            return
        if data == OUT_OF_MEMORY:
            self._lose(worker, job, Lost("more memory than there is", "corrupt"))
            return
        job.busy.remove(worker)
        self._idle.append(worker)
        yield worker.index, data

    def _lose(self, worker: _Worker, job: _Job, lost: Lost) -> None:
        job.busy.remove(worker)
        job.lost[worker.index] = lost
        self._end(worker)

    def _new(self) -> _Worker:
        zygote = shared_zygote()
        ours, theirs = Pipe()
        with theirs:
            worker = _Worker(zygote, zygote.fork(theirs.fileno()), ours)
        self._all.append(worker)
        return worker

    def _end(self, worker: _Worker) -> int:
        """Ends a worker and returns its exit code, negative for a signal."""
        self._all.remove(worker)
        with worker.connection:
            return worker.zygote.kill(worker.process)

    def close(self) -> None:
        """Ends all workers. The pool can be used again: it starts others."""
        self._idle.clear()
        while self._all:
            self._end(self._all[-1])

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def pack_task(function: Callable[..., Any], item: tuple[Any, ...]) -> bytes:
    """A call as it is sent to a worker."""
    return pickle.dumps((function, item), pickle.HIGHEST_PROTOCOL)


def open_reply(reply: bytes) -> Any:
    """What a worker's function gave back. Raises what it raised."""
    value = pickle.loads(memoryview(reply)[1:])
    if reply[:1] != DONE:
        raise value
    return value


def machine_memory() -> float:
    """Bytes of memory that this process may use: the machine's, or its control group's."""
    total = float(os.sysconf("SC_PHYS_PAGES") * _PAGE)
    try:
        return min(total, float(Path("/sys/fs/cgroup/memory.max").read_text()))
    except (OSError, ValueError):  # no control group, or "max"
        return total


def _resident(process: int) -> float:
    try:
        return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * float(_PAGE)
    except (OSError, IndexError, ValueError):
        return 0.0


def _death(status: int) -> Lost:
    """A worker that was killed from outside is no fault of its file."""
    if status >= 0:
        return Lost(f"its worker ended with exit code {status}", "corrupt")
    name = signal.Signals(-status).name
    return Lost(
        f"its worker died of {name}", "transient" if -status == signal.SIGKILL else "corrupt"
    )


def twice(name: str, first: Lost, second: Lost) -> Lost:
    """What is said of an item after its second try."""
    if second.cause == "transient":
        advice = "Something outside killed it (memory?); the next run tries again."
    else:
        advice = "The file breaks its decoder; `reelmill retry --failed` lets a run try again."
    return Lost(f"{name}: {first.message}, and alone: {second.message}. {advice}", second.cause)
