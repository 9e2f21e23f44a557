"""Progress where there is no terminal: log lines that say how long the rest takes."""

from __future__ import annotations

import logging

import pytest

from reelmill import console


class Lines(logging.Handler):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(record.getMessage().strip())


def told(
    monkeypatch: pytest.MonkeyPatch, moments: list[tuple[float, float]], total: float | None
) -> list[str]:
    """The lines of a bar that is told so much at such seconds, from its start on."""
    clock, lines = [1000.0], Lines()
    monkeypatch.setattr(console.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(console.log, "handlers", [lines])
    monkeypatch.setattr(console.log, "propagate", False)
    console.log.setLevel(logging.INFO)
    bar = console.Bar("work", total)
    for seconds, done in moments:
        clock[0] = 1000.0 + seconds
        bar.at(done)
    return lines.said


@pytest.mark.parametrize(
    ("moments", "total", "lines"),
    [
        (
            [(0, 0), (10, 5), (20, 10)],
            20,
            ["5 of 20, about 30 s left", "10 of 20, about 20 s left"],
        ),
        ([(0, 100), (10, 110)], 300, ["110 of 300, about 3 min left"]),  # 100 were there before
        ([(0, 0), (10, 1)], 2000, ["1 of 2000, about 5 h 33 min left"]),
        ([(0, 0), (10, 0), (20, 4)], 4, ["0 of 4", "4 of 4"]),
        ([(0, 0), (10, 3)], None, ["3"]),
    ],
)
def test_the_rest_is_told_at_the_rate_so_far(monkeypatch, moments, total, lines):
    assert told(monkeypatch, moments, total) == [f"work: {line}" for line in lines]
