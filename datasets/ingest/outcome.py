"""How an attempt at a file can end when it does not bring it, and how often it is made."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


class Refused(Exception):  # noqa: N818 - an outcome of a fetch, told to the user by its words
    """The file cannot be had, and another try would not change it."""


class Passing(Exception):  # noqa: N818
    """Another try may have it. wait: seconds that the server asked for."""

    def __init__(self, message: str, wait: float = 0.0):
        super().__init__(message)
        self.wait = wait


def persist(
    call: Callable[[], T], *, attempts: int, backoff: float, pause: Callable[[float], None]
) -> T:
    """What `call` gives, tried again while it raises Passing; the waits double. Raises Refused."""
    for attempt in range(1, attempts):
        try:
            return call()
        except Passing as error:
            pause(max(error.wait, backoff * 2 ** (attempt - 1)))
    try:
        return call()
    except Passing as error:
        raise Refused(f"{error} ({attempts} attempts)") from None
