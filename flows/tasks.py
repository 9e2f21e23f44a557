"""One call of the engine as one Prefect task.

Prefect's own result cache stays off: it knows nothing of file contents. A task that found its
work done ends in the state `Reused`. What goes on from where it was is tried again, with longer and
longer waits, after errors that may pass; the engine of curation does that by itself.
"""

from __future__ import annotations

import errno
import logging
import time
from collections.abc import Callable
from typing import Any, TypeVar

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.states import Completed, State

from reelmill.flows.limit import NONE, Limit

log = logging.getLogger("reelmill")
T = TypeVar("T")
LOG_EVERY_S = 30.0
WAITS_S: list[float] = [10.0, 60.0, 300.0]
# Of a disk or a network that is gone for a while. A full disk, a wrong path, a right that is
# lacking, a device's memory: trying again gives the same.
PASSING = frozenset(
    {errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EAGAIN, errno.EBUSY, errno.EINTR,
     errno.ECONNRESET, errno.ECONNREFUSED, errno.ECONNABORTED, errno.EHOSTUNREACH,
     errno.ENETUNREACH, errno.ENETDOWN, errno.ENOTCONN, errno.EPIPE, errno.EREMOTEIO}
)  # fmt: skip


def may_pass(error: BaseException) -> bool:
    """Whether trying again can help: an error of the system that is known to pass, as it is or as
    the cause of another."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno in PASSING:
            return True
        seen = seen.__cause__
    return False


async def _may_pass(task: object, run: object, state: State[Any]) -> bool:
    """As Prefect asks it."""
    try:
        await state.aresult()
    except Exception as error:
        return may_pass(error)
    return False


def ended(result: T, said: str) -> T:
    """What a flow returns, with a line for its state. Whoever called the flow gets the result."""
    state: Any = Completed(data=result, message=said)
    return state  # type: ignore[no-any-return]


class LogProgress:
    """Progress of a long task as log lines, one every LOG_EVERY_S seconds."""

    def __init__(self, label: str):
        self.label = label
        self._last = time.monotonic()

    def __call__(self, done: float, total: float | None = None, text: str = "") -> None:
        now = time.monotonic()
        if now - self._last >= LOG_EVERY_S:
            self._last = now
            line = f"{self.label}: {done:g}{f' of {total:g}' if total else ''} {text}"
            log.info(line)
            get_run_logger().info(line)


def run_task(
    name: str,
    work: Callable[[], T],
    said: Callable[[T], str],
    *,
    label: str = "",
    reused: Callable[[T], bool] = lambda result: False,
    resumes: bool = False,
    limit: Limit = NONE,
) -> T:
    """Runs `work` as a task and returns its result; what it raises is raised.

    said: a line about the result, for the log and the task's state. reused: whether nothing had to
    be done. resumes: called again, `work` goes on from where it was, so it is tried again after
    an error that may pass. limit: how long all its tries may take (or each one, by `step_s`); it
    ends in the state TimedOut and raises TimedOut.
    """
    results: list[T] = []

    def call() -> State[Any]:
        with limit.within(label or name):
            result = work()
        results.append(result)
        line = f"{label or name}: {said(result)}"
        log.info(line)
        get_run_logger().info(line)
        return Completed(name="Reused" if reused(result) else "Completed", message=line)

    task(
        name=name,
        task_run_name=label or name,
        cache_policy=NO_CACHE,
        retries=len(WAITS_S) if resumes else 0,
        retry_delay_seconds=WAITS_S if resumes else None,
        retry_jitter_factor=0.5 if resumes else None,
        retry_condition_fn=_may_pass if resumes else None,
    )(call)()
    return results[0]
