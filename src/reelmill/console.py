"""What the command line shows.

Answers go to stdout, everything else to stderr: progress bars on a terminal, log lines otherwise.
With `--json` the one line on stdout is the answer as an object.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

LOG_EVERY_S = 10.0
log = logging.getLogger("reelmill")

_as_json = False


def set_json(on: bool) -> None:
    """Chooses between answers for people and one JSON object."""
    global _as_json
    _as_json = on


def set_logging(verbose: bool) -> None:
    """Log lines of this package on stderr; of other packages only their warnings."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    log.handlers = [handler]
    log.setLevel(logging.DEBUG if verbose else logging.INFO)
    log.propagate = False


def say(text: str = "") -> None:
    """A line for a person; silent with --json."""
    if not _as_json:
        print(text, flush=True)


def note(text: str) -> None:
    """A remark beside the answer."""
    print(text, file=sys.stderr, flush=True)


def answer(value: dict[str, Any]) -> None:
    """The command's result as one line, when --json asked for it."""
    if _as_json:
        print(json.dumps(value, ensure_ascii=False, default=str), flush=True)


def fail(message: str, kind: str, exit_code: int) -> None:
    """An error: its text on stderr, and with --json also as the object on stdout."""
    red, plain = ("\x1b[31m", "\x1b[0m") if sys.stderr.isatty() and colour() else ("", "")
    print(f"{red}{kind}:{plain} {message}", file=sys.stderr, flush=True)
    answer({"error": kind, "message": message, "exit_code": exit_code})


def colour() -> bool:
    return not os.environ.get("NO_COLOR")


class Bar:
    """Progress of one step as log lines; call it with how much was done since the last call."""

    def __init__(self, label: str, total: float | None) -> None:
        self.label = label
        self.total = total
        self.done = 0.0
        self._last = time.monotonic()
        self._first: tuple[float, float] | None = None

    def __call__(self, n: int = 1) -> None:
        self.at(self.done + n)

    def at(self, done: float, total: float | None = None, text: str = "") -> None:
        """What is done now, how much there is when known, and a few words."""
        self.done, self.total = done, total or self.total
        now = time.monotonic()
        if now - self._last >= LOG_EVERY_S:
            self._last = now
            of = f" of {self.total:g}" if self.total else ""
            log.info("%s: %g%s%s %s", self.label, done, of, self._left(now), text)
        self._first = self._first or (self._last, done)

    def _left(self, now: float) -> str:
        """How long the rest takes at the rate so far; what was there at first took no time."""
        began, had = self._first or (now, self.done)
        if not self.total or self.done <= had or self.done >= self.total:
            return ""
        seconds = (self.total - self.done) * (now - began) / (self.done - had)
        hours, minutes = divmod(round(seconds / 60), 60)
        if seconds < 90:
            return f", about {seconds:.0f} s left"
        return f", about {f'{hours} h ' if hours else ''}{minutes} min left"


class _RichBar(Bar):
    def __init__(self, label: str, total: float | None, progress: Any) -> None:
        super().__init__(label, total)
        self._progress = progress
        self._task = progress.add_task(label, total=total, text="")

    def at(self, done: float, total: float | None = None, text: str = "") -> None:
        self.done, self.total = done, total or self.total
        self._progress.update(self._task, completed=done, total=self.total, text=text)


@contextmanager
def bar(label: str, total: float | None = None) -> Iterator[Bar]:
    """A progress bar on a terminal, a log line every few seconds elsewhere."""
    if not sys.stderr.isatty():
        yield Bar(label, total)
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description:32}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[text]}", markup=False),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        yield _RichBar(label, total, progress)
