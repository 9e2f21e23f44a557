"""One call of the engine as one Prefect task.

Prefect's own result cache stays off: it knows nothing of file contents. A task that found its
work done ends in the state `Reused`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any, TypeVar

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.states import Completed, State

log = logging.getLogger("reelmill")
T = TypeVar("T")
LOG_EVERY_S = 30.0


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
) -> T:
    """Runs `work` as a task and returns its result; what it raises is raised.

    said: a line about the result, for the log and the task's state. reused: whether nothing had to
    be done.
    """
    results: list[T] = []

    def call() -> State[Any]:
        result = work()
        results.append(result)
        line = f"{label or name}: {said(result)}"
        log.info(line)
        get_run_logger().info(line)
        return Completed(name="Reused" if reused(result) else "Completed", message=line)

    task(name=name, task_run_name=label or name, cache_policy=NO_CACHE, retries=0)(call)()
    return results[0]
