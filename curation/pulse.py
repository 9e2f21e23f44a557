"""Signs of life: long work says that it goes on, so that who waits can tell slow from stuck."""

from __future__ import annotations

import time
from collections.abc import Callable

EVERY_S = 1.0

_send: Callable[[], None] | None = None
_last = 0.0


def beat() -> None:
    """Called inside loops over media. Costs nothing where nobody listens."""
    global _last
    if _send is not None and (now := time.monotonic()) - _last >= EVERY_S:
        _last = now
        _send()


def listen(send: Callable[[], None]) -> None:
    """Sends every beat on, at most one a second."""
    global _send
    _send = send
