"""One call of the engine as one Prefect task.

Prefect's own result cache stays off: it knows nothing of file contents. A task that found its
work done ends in the state `Reused`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, TypeVar

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.states import Completed, State

log = logging.getLogger("reelmill")
T = TypeVar("T")


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
