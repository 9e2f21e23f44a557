"""Reviewers' words on the cards of reports: agree, disagree, unsure; and what they come to.

    <workspace>/votes.jsonl    append-only; a reviewer's last word on a card counts

A vote is on a verdict: of one stage on one unit. It counts for every run in which that stage
decides so again.
"""

from __future__ import annotations

import fcntl
import math
import os
import threading
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, StringConstraints, ValidationError

from reelmill.errors import DatasetError, UsageError
from reelmill.reports.schema import Group, OutcomeName, Reviewed, Text
from reelmill.reports.tally import Record

FILE = "votes.jsonl"
MAX_VOTE_BYTES = 4 << 10
MAX_LOG_BYTES = 256 << 20
DRAWN: frozenset[Group] = frozenset({"kept", "rejected"})  # groups that are drawn by lot
Word = Literal["agree", "disagree", "unsure"]
Short = Annotated[Text, StringConstraints(min_length=1, max_length=200)]


class Vote(Record):
    """stage: its slug. unit, outcome, reason, group: of the card. word: agree, the verdict is
    right. at: seconds since the epoch, set when the vote is written."""

    run: Short
    stage: Short
    unit: Short
    outcome: OutcomeName
    reason: Annotated[Text, StringConstraints(max_length=200)] = ""
    group: Group
    word: Word
    reviewer: Annotated[Text, StringConstraints(min_length=1, max_length=100, pattern=r"\S")]
    note: Annotated[Text, StringConstraints(max_length=1000)] = ""
    at: float = Field(default=0.0, ge=0)

    @property
    def card(self) -> tuple[str, str, str, str]:
        """What is voted on."""
        return self.stage, self.unit, self.outcome, self.reason


def read_vote(data: bytes) -> Vote:
    """A vote from a page. Raises UsageError that says what is wrong with it."""
    try:
        return Vote.model_validate_json(data).model_copy(update={"at": round(time.time(), 3)})
    except (ValidationError, RecursionError) as error:
        if isinstance(error, RecursionError):
            raise UsageError("this is no vote: it is nested too deeply.") from error
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(str(part)[:40] for part in first["loc"])
        raise UsageError(f"this is no vote: {where}: {first['msg'][:200]}.") from error


class VoteLog:
    """The votes of a workspace, for several processes and threads."""

    def __init__(self, workspace: Path):
        self.path = workspace / FILE
        self._inside = threading.Lock()

    def add(self, vote: Vote) -> None:
        """Appends a vote. When it returns, it is on disk."""
        line = vote.model_dump_json().encode() + b"\n"
        with self._inside, self.path.open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            size = file.seek(0, os.SEEK_END)
            if size + len(line) > MAX_LOG_BYTES:
                raise UsageError(f"{self.path} is full: {MAX_LOG_BYTES >> 20} MiB of votes.")
            if size and self.path.read_bytes()[-1:] != b"\n":
                file.truncate(self.path.read_bytes().rfind(b"\n") + 1)  # never confirmed
            file.write(line)
            file.flush()
            os.fsync(file.fileno())

    def last(self) -> list[Vote]:
        """The word of each reviewer on each card that counts. Raises DatasetError."""
        try:
            if self.path.stat().st_size > MAX_LOG_BYTES:
                raise DatasetError(f"{self.path} is larger than {MAX_LOG_BYTES >> 20} MiB.")
            data = self.path.read_bytes()
        except FileNotFoundError:
            return []
        found: dict[tuple[str, ...], Vote] = {}
        for number, line in enumerate(data[: data.rfind(b"\n") + 1].splitlines(), 1):
            try:
                vote = Vote.model_validate_json(line)
            except (ValidationError, RecursionError) as error:
                raise DatasetError(f"{self.path}, line {number}, is no vote.") from error
            found[vote.reviewer, *vote.card] = vote
        return list(found.values())


def counted(votes: Iterable[Vote]) -> Reviewed:
    """Cards by what most of their reviewers said; a tie is unsure. Only cards drawn by lot."""
    cards: dict[tuple[str, ...], list[Word]] = {}
    for vote in votes:
        if vote.group in DRAWN:
            cards.setdefault(vote.card, []).append(vote.word)
    sums = {"agree": 0, "disagree": 0, "unsure": 0}
    for words in cards.values():
        agree, disagree = words.count("agree"), words.count("disagree")
        sums["agree" if agree > disagree else "disagree" if disagree > agree else "unsure"] += 1
    return Reviewed(**sums)


def reviewed(votes: Iterable[Vote], outcomes: Mapping[str, str]) -> dict[OutcomeName, Reviewed]:
    """What was said of the kept and of the rejected of one stage.

    votes: of this stage. outcomes: of the units that came into it now, by id; a vote on another
    verdict than that does not count.
    """
    valid = [vote for vote in votes if outcomes.get(vote.unit) == vote.outcome]
    found: dict[OutcomeName, Reviewed] = {}
    names: tuple[OutcomeName, ...] = ("rejected", "kept")
    for name in names:
        word = counted(vote for vote in valid if vote.outcome == name)
        if word.cards:
            found[name] = word
    return found


def wilson(good: int, all_: int) -> tuple[float, float]:
    """The 95 % interval of a share (Wilson, 1927)."""
    if not all_:
        return 0.0, 1.0
    z, share = 1.959964, good / all_
    middle = share + z * z / (2 * all_)
    spread = z * math.sqrt(share * (1 - share) / all_ + z * z / (4 * all_ * all_))
    scale = 1 + z * z / all_
    return max(0.0, (middle - spread) / scale), min(1.0, (middle + spread) / scale)
