"""How long a run may take, and each of its steps.

Prefect's own `timeout_seconds` belongs to the code of a flow, and not to its form. What was
committed before stays, as after Ctrl-C: the same run goes on from there.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Annotated

from prefect.utilities.timeout import timeout
from pydantic import Field

from reelmill.errors import TimedOut

LEAST_S = 0.01  # an alarm of no time at all would be none

Timeout = Annotated[
    float | None,
    Field(gt=0, description="Seconds after which the run ends as TimedOut; run again, it goes on."),
]
StepTimeout = Annotated[
    float | None,
    Field(gt=0, description="Seconds that a single step may take, against one that hangs."),
]


@dataclass(frozen=True)
class Limit:
    """run_s: from now on. step_s: of each `within`. None: as long as it takes."""

    run_s: float | None = None
    step_s: float | None = None
    began: float = field(default_factory=time.monotonic)

    @property
    def left(self) -> float | None:
        """Seconds that are left of run_s, at least LEAST_S."""
        if self.run_s is None:
            return None
        return max(LEAST_S, self.began + self.run_s - time.monotonic())

    @contextmanager
    def within(self, label: str) -> Iterator[None]:
        """What is inside ends in time. Raises TimedOut where it does not."""
        left = self.left
        whole = left is not None and (self.step_s is None or left < self.step_s)
        try:
            with timeout(left if whole else self.step_s, TimedOut):
                yield
        except TimedOut as error:
            if error.told:
                raise
            passed = f"{self.run_s:g} s of the run" if whole else f"{self.step_s:g} s"
            raise TimedOut(
                f"{label} was not done within {passed}. What is committed stays: run again, it "
                "goes on from there.",
                told=True,
            ) from None


NONE = Limit()
