"""The Ray engine: measured work is carried out by a Ray cluster, on one machine or on many.

    with RayWorkers(address="auto") as workers:
        for found in workers.map(decode_file, items, name=...):
            ...

Every node has an actor, a bench, whose seats are worker processes (engine_ray_bench). The driver
keeps each seat busy, holds at most WINDOW items a seat between what it has handed out and what the
run has taken, and gives results back in the order of the items. So the object store and the
driver's memory stay bounded, slow consumers slow the cluster down, and the bytes of a run depend
neither on the number of nodes nor on which of them die.

Why Ray's actors and not Ray Data's `map_batches` over an actor pool: Ray Data ends the whole run or
drops a whole block when a process dies, has no deadline for an item, and cannot say which item was
at fault (`max_errored_blocks`: one bad row took 999 good ones with it). A curation run needs three
outcomes for each item, and results in order.

What a cluster must have: the same Reelmill and libraries on every node; the workspace and the
sources mounted under the same paths everywhere, the workspace writable; weights too, where they
are used. A bench checks all that before it takes work. Only the driver writes the ledger and the
shards. Cuts and previews are written by the nodes, whole or not at all.

What is lost and what then happens:

- An item that crashes, hangs or eats its worker process is tried once more, alone on the cluster,
  and then given back as `Lost`, as without Ray.
- A bench or node that dies or stops to answer is replaced where there is a node, and its items go
  to others. That is not held against them; only what was there at the end of BENCHES_AN_ITEM
  benches is tried alone, and then `Lost`.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from reelmill.curation.engine_ray_bench import Bench, Greeting, Setting, code_digest, fingerprint
from reelmill.curation.engine_ray_cluster import Cluster, Node
from reelmill.curation.stage import Resources
from reelmill.curation.workers import (
    MAX_WORKERS,
    ONE_CORE,
    Limits,
    Lost,
    open_reply,
    pack_task,
    twice,
)
from reelmill.errors import ReelmillError, UsageError

Result = TypeVar("Result")

WINDOW = 4
TICK_S = 0.5
PULSE_S = 5.0
LOOK_S = 5.0  # between looks for nodes that came
BENCHES_AN_ITEM = 3
STARTS_A_NODE = 4
PASSED_ON = ("REELMILL_", "HF_", "TRANSFORMERS_")
log = logging.getLogger("reelmill")


@dataclass(eq=False)
class _Seated:
    """A bench as the driver sees it. cores: that it took. gpus: that one of its seats has."""

    actor: Any
    node: Node
    cores: int
    gpus: float
    late: bool = False
    greeting: Greeting | None = None
    busy: int = 0
    asked: Any = None
    heard: float = field(default_factory=time.monotonic)

    def seats(self, needs: Resources) -> int:
        """Items with such needs that it works on at a time."""
        if self.greeting is None or (needs.gpus and not self.gpus):
            return int(self.greeting is not None)
        fit = int(self.greeting.memory / (needs.memory_gb * 1e9))
        return max(1, min(self.cores, int(self.cores / needs.cpus), fit))


@dataclass(eq=False)
class _Job:
    """One call of `map`. fallen: benches that ended under an item. lost: how items broke."""

    task: Callable[[int], bytes]
    patience_s: Callable[[int], float]
    needs: Resources
    waiting: list[int] = field(default_factory=list)
    found: dict[int, bytes | Lost] = field(default_factory=dict)
    lost: dict[int, Lost] = field(default_factory=dict)
    fallen: dict[int, int] = field(default_factory=dict)
    given: int = 0


@dataclass(frozen=True)
class _Ticket:
    job: _Job
    index: int
    bench: _Seated
    alone: bool


class RayWorkers:
    """A crew (reelmill.curation.crew.Crew) on a Ray cluster.

    count: seats in all; None is one for each core that the cluster has free. address: of the
    cluster, as of engine_ray_cluster.Cluster. shared: files of the run that every node must see
    alike. written: folders that every node must be able to write. bench_patience_s: seconds
    without an answer after which a bench counts as dead. start_s: seconds in which a bench must
    start, and without any bench after which the run ends. Raises UsageError for a cluster that is
    not there, or of which a node lacks something.
    """

    def __init__(
        self,
        count: int | None = None,
        limits: Limits | None = None,
        address: str | None = None,
        *,
        shared: Callable[[], Sequence[Path]] = tuple,
        written: Sequence[Path] = (),
        bench_patience_s: float = 60.0,
        start_s: float = 180.0,
    ):
        if count is not None and not 1 <= count <= MAX_WORKERS:
            raise UsageError(
                f"--workers is {count}; with --engine ray it must be from 1 to {MAX_WORKERS}."
            )
        self.limits = limits or Limits()
        self._count = count
        self._cluster = Cluster(address, count or len(os.sched_getaffinity(0)))
        self._shared, self._written = shared, written
        self._bench_patience_s, self._start_s = bench_patience_s, start_s
        self._manned = 0.0
        self._ray: Any = None
        self._setting: Setting | None = None
        self._benches: list[_Seated] = []
        self._out: dict[Any, _Ticket] = {}
        self._starts: dict[tuple[str, bool], int] = {}
        self._opened = self._barred = False
        self._why = "none has a free core"
        self._looked = 0.0

    def warm_up(self) -> None:
        """Nothing: Ray starts with the first item."""

    def map(
        self,
        function: Callable[..., Result],
        items: Sequence[tuple[Any, ...]],
        *,
        name: Callable[[int], str],
        patience: Callable[[int], float] = lambda index: 0.0,
        needs: Resources = ONE_CORE,
    ) -> Iterator[Result | Lost]:
        """function(*item) for each item, in order (as of reelmill.curation.crew.Crew)."""
        job = _Job(
            lambda index: pack_task(function, items[index]),
            lambda index: self.limits.patience_s + patience(index),
            needs,
        )
        self._manned, self._looked = time.monotonic(), 0.0
        try:
            for due in range(len(items)):
                while due not in job.found:
                    self._open(job.needs)
                    self._give(job, due, len(items))
                    if due not in job.found:
                        self._take(TICK_S)
                reply = job.found.pop(due)
                if isinstance(reply, Lost):
                    yield twice(name(due), job.lost.pop(due, reply), reply)
                else:
                    job.lost.pop(due, None)
                    yield open_reply(reply)
        finally:
            for bench in {t.bench for t in self._out.values() if t.job is job}:
                self._end(bench)  # what it works on is wanted no more

    def _give(self, job: _Job, due: int, total: int) -> None:
        """Hands out items to free seats, as far as the window goes; what broke goes alone."""
        benches = [b for b in self._benches if self._suits(b, job.needs)]
        seats = sum(b.seats(job.needs) for b in benches)
        job.waiting.sort()
        while True:
            more = job.given < min(total, due + WINDOW * max(seats, WINDOW))
            if not job.waiting and not more:
                break
            bench = max(benches, key=lambda b: b.seats(job.needs) - b.busy, default=None)
            if bench is None or bench.busy >= bench.seats(job.needs):
                break
            if job.waiting:
                index = job.waiting.pop(0)
            else:
                index, job.given = job.given, job.given + 1
            self._start(job, index, bench, alone=False)
        broken = [index for index in sorted(job.lost) if index not in job.found]
        ready = [b for b in benches if b.seats(job.needs)]
        if broken and not self._out and ready:
            self._start(job, broken[0], ready[0], alone=True)

    def _start(self, job: _Job, index: int, bench: _Seated, *, alone: bool) -> None:
        sharers = 1 if alone else bench.seats(job.needs)
        if not bench.busy:
            bench.heard = time.monotonic()
        bench.busy += 1
        ref = bench.actor.work.remote(job.task(index), job.patience_s(index), self.limits, sharers)
        self._out[ref] = _Ticket(job, index, bench, alone)

    # What comes back -----------------------------------------------------------------------

    def _take(self, timeout_s: float) -> None:
        """Takes in what benches have to say, for all jobs; ends those that say nothing."""
        now = time.monotonic()
        for bench in self._benches:
            if bench.asked is None and bench.busy and now - bench.heard > PULSE_S:
                bench.asked, bench.heard = bench.actor.pulse.remote(), now
        asked = {b.asked: b for b in self._benches if b.asked is not None}
        waited = [*self._out, *asked]
        if not waited:
            time.sleep(timeout_s)
            return
        ready, _ = self._ray.wait(waited, timeout=timeout_s)
        if ready:
            ready, _ = self._ray.wait(waited, num_returns=len(waited), timeout=0)
        self._opened |= any(b.greeting is not None for b in self._benches)
        for ref in ready:
            if ref in asked:
                self._hear(asked[ref], ref)
            elif ref in self._out:  # not of a bench that ended just now
                self._receive(ref)
        for bench in self._benches[:]:
            if bench.greeting is None:
                patience_s = self._start_s
            elif bench.asked is not None:
                patience_s = self._bench_patience_s
            else:
                continue
            if time.monotonic() - bench.heard > patience_s:
                self._end(bench)

    def _receive(self, ref: Any) -> None:
        ticket = self._out[ref]
        reply = self._get(ref, ticket.bench)
        if reply is None:
            return
        del self._out[ref]
        ticket.bench.busy -= 1
        ticket.bench.heard = time.monotonic()
        self._starts.pop(_place(ticket.bench), None)  # work gets done there
        if not isinstance(reply, Lost) or ticket.alone:
            ticket.job.found[ticket.index] = reply
        else:
            ticket.job.lost[ticket.index] = reply

    def _hear(self, bench: _Seated, ref: Any) -> None:
        """An answer to `greet` or `pulse`."""
        answer = self._get(ref, bench)
        if bench not in self._benches:
            return
        bench.asked, bench.heard = None, time.monotonic()
        if isinstance(answer, Greeting):
            if not answer.complaint:
                bench.greeting = answer
                return
            text = (
                f"node {answer.host} ({bench.node.address}) cannot work for this run: "
                f"{answer.complaint}, or take the node out of the cluster."
            )
            if not bench.late:
                raise UsageError(text)
            log.warning("%s", text)
            self._starts[_place(bench)] = STARTS_A_NODE + 1
            self._end(bench)

    def _get(self, ref: Any, bench: _Seated) -> Any:
        """What a bench gave back; None when it or its node is gone, which ends it here too."""
        errors = self._ray.exceptions
        try:
            return self._ray.get(ref)
        except (
            errors.RayActorError,
            errors.ObjectLostError,
            errors.WorkerCrashedError,
            errors.NodeDiedError,
            errors.OutOfMemoryError,
        ) as error:
            self._why = str(error).strip().splitlines()[-1]
            if bench in self._benches and bench.greeting is not None:
                log.warning("a bench on %s is gone; its work goes to others", bench.node.address)
            self._end(bench)
            return None
        except errors.RayTaskError as error:
            raise ReelmillError(f"the Ray engine broke on {bench.node.address}: {error}") from None
        except errors.RayError as error:
            text = str(error).strip().splitlines()[0]
            raise ReelmillError(f"Ray is gone: {text} Run the same command again.") from error

    # Benches -------------------------------------------------------------------------------

    def _suits(self, bench: _Seated, needs: Resources) -> bool:
        """GPU work goes to benches with a GPU where there are any, all other work to the rest."""
        if needs.gpus and any(b.gpus for b in self._benches):
            return bench.gpus == needs.gpus
        return not bench.gpus

    def _open(self, needs: Resources) -> None:
        """Connects, and puts benches on nodes that have none, now and every LOOK_S seconds."""
        if self._ray is None:
            self._ray = self._cluster.connect()
            self._manned = time.monotonic()
        now = time.monotonic()
        if any(b.greeting is not None for b in self._benches):
            self._manned = now
        elif now - self._manned > self._start_s or (self._barred and not self._benches):
            raise ReelmillError(
                f"no node of the Ray cluster works for this run: {self._why}. See `ray status`; "
                "what is committed stays, and the same command goes on from there."
            )
        manned = any(self._suits(b, needs) for b in self._benches)
        if now - self._looked >= (LOOK_S if manned else TICK_S):
            self._looked = now
            self._look(needs)

    def _look(self, needs: Resources) -> None:
        nodes = self._cluster.nodes()
        barred = [self._starts.get((node.id, False), 0) > STARTS_A_NODE for node in nodes]
        self._barred = bool(nodes) and all(barred)
        left = self._count - sum(b.cores for b in self._benches if not b.gpus) if self._count else 0
        if needs.gpus and not any(b.gpus == needs.gpus for b in self._benches):
            for bench in [b for b in self._benches if b.gpus]:
                self._end(bench)  # of another share of a GPU
        taken = {b.node.id for b in self._benches if not b.gpus}
        lenders = [node for node in nodes if node.id not in taken and node.cpus >= 1]
        for i, node in enumerate(lenders):
            cores = int(node.cpus)
            if self._count:
                cores = min(cores, -(-left // (len(lenders) - i)))
                left -= cores
            if cores > 0:
                self._bench(node, cores, 0.0)
        if needs.gpus:
            taken = {b.node.id for b in self._benches if b.gpus}
            for node in nodes:
                if node.id not in taken:
                    for _ in range(int(node.gpus / max(1.0, needs.gpus))):
                        self._bench(node, max(1, int(1 / needs.gpus)), needs.gpus)

    def _bench(self, node: Node, cores: int, gpus: float) -> None:
        """Starts a bench on a node. One with GPUs takes no cores: the others idle meanwhile."""
        key = node.id, bool(gpus)
        late, tries = self._opened, self._starts.get(key, 0) + 1
        self._starts[key] = tries
        if tries > STARTS_A_NODE:
            if tries == STARTS_A_NODE + 1:
                log.warning("node %s is left out: benches keep dying there", node.address)
            return
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        actor = (
            self._ray.remote(Bench)
            .options(
                num_cpus=0 if gpus else cores,
                num_gpus=max(1.0, gpus) if gpus else 0,
                max_concurrency=cores + 2,
                max_restarts=0,
                max_task_retries=0,
                scheduling_strategy=NodeAffinitySchedulingStrategy(node.id, soft=False),
            )
            .remote(self._ray.put(self._common()))
        )
        seated = _Seated(actor, node, cores, gpus, late, asked=actor.greet.remote())
        self._benches.append(seated)

    def _common(self) -> Setting:
        if self._setting is None:
            self._setting = Setting(
                folder=str(Path.cwd()),
                path=tuple(str(Path(p).resolve()) for p in sys.path if Path(p).is_dir()),
                environment={k: v for k, v in os.environ.items() if k.startswith(PASSED_ON)},
                code=code_digest(),
                files={str(p.absolute()): fingerprint(str(p)) for p in self._shared()},
                written=tuple(str(p.absolute()) for p in self._written),
            )
        return self._setting

    def _end(self, bench: _Seated) -> None:
        """Ends a bench. What it worked on goes to others, or alone if that happens too often."""
        if bench not in self._benches:
            return
        self._benches.remove(bench)
        self._looked = 0.0
        with contextlib.suppress(self._ray.exceptions.RayError, ValueError):
            self._ray.kill(bench.actor)
        for ref, ticket in [(r, t) for r, t in self._out.items() if t.bench is bench]:
            del self._out[ref]
            job, index = ticket.job, ticket.index
            job.fallen[index] = job.fallen.get(index, 0) + 1
            lost = Lost("the node or actor that worked on it died", "transient")
            if job.fallen[index] < BENCHES_AN_ITEM:
                if not ticket.alone:  # what is tried alone is still among the lost
                    job.waiting.append(index)
            elif ticket.alone:
                job.found[index] = lost
            else:
                job.lost[index] = lost

    def close(self) -> None:
        """Ends all benches and leaves the cluster."""
        while self._benches:
            self._end(self._benches[-1])
        self._ray = None
        self._cluster.close()

    def __enter__(self) -> RayWorkers:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _place(bench: _Seated) -> tuple[str, bool]:
    return bench.node.id, bool(bench.gpus)
