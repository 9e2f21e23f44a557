"""Ballots, and the append-only log that keeps them.

A ballot is on disk before its rater is told so. The last ballot of a rater on an item counts; the
same ballot sent twice is kept once.
"""

from __future__ import annotations

import fcntl
import json
import os
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StrictInt, StrictStr, ValidationError

from reelmill.datasets.workspace import writing
from reelmill.errors import DatasetError, ReelmillError, UsageError
from reelmill.evaluation.review.round import (
    Item,
    RaterName,
    Round,
    RoundFolder,
    Seat,
    Token,
    parts,
)
from reelmill.evaluation.vote import Choice

MAX_BALLOT_BYTES = 16 << 10
MAX_LOG_BYTES = 1 << 30
DAY = 86_400.0


class BallotError(ReelmillError):
    """A ballot that this round cannot take."""


class RoundClosedError(BallotError):
    """The round takes no more ballots."""


class Ballot(BaseModel):
    """One rater's answers to one item.

    answers: by row, `left`, `same` or `right` for a pair, 1 to 5 for a scale. marks: sub-dimensions
    in which something was wrong, where one clip is scored. seconds: taken; plays: how often it was
    seen to its end; at: the rater's clock, seconds since the epoch.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    round: Token
    rater: RaterName
    item: Token
    answers: Annotated[dict[str, StrictStr | StrictInt], Field(min_length=1, max_length=16)]
    marks: Annotated[tuple[StrictStr, ...], Field(max_length=64)] = ()
    note: Annotated[StrictStr, Field(max_length=2000)] = ""
    seconds: Annotated[float, Field(ge=0, le=30 * DAY, allow_inf_nan=False)] = 0.0
    plays: Annotated[StrictInt, Field(ge=0, le=100_000)] = 0
    at: Annotated[float, Field(ge=0, le=1e11, allow_inf_nan=False)] = 0.0

    @property
    def said(self) -> tuple[Any, ...]:
        """What makes two ballots the same word."""
        return tuple(sorted(self.answers.items())), tuple(sorted(self.marks)), self.note


def read_ballot(data: bytes, round_: Round) -> Ballot:
    """A ballot of this round, checked against what was asked.

    Raises BallotError that says what is wrong with it.
    """
    if len(data) > MAX_BALLOT_BYTES:
        raise BallotError(f"a ballot has at most {MAX_BALLOT_BYTES} bytes, this has {len(data)}.")
    try:
        ballot = Ballot.model_validate_json(data)
    except (ValidationError, RecursionError) as error:
        raise BallotError(f"this is no ballot: {_first(error)}.") from error
    if ballot.round != round_.id:
        raise BallotError(f"the ballot is of round {ballot.round[:8]}, this is {round_.id[:8]}.")
    seat = round_.seat(ballot.rater)
    if seat is None:
        raise BallotError(f"{ballot.rater!r} is no rater of this round.")
    _fits(ballot, seat)
    return ballot


def _first(error: ValidationError | RecursionError) -> str:
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    where = ".".join(str(part)[:40] for part in first["loc"])
    return f"{where}: {first['msg']}"[:300] if where else first["msg"][:300]


def _fits(ballot: Ballot, seat: Seat) -> None:
    item = seat.by_id.get(ballot.item)
    if item is None:
        raise BallotError(f"item {ballot.item[:8]} was not asked of {ballot.rater}.")
    rows = set(item.rows)
    if missing := sorted(rows - set(ballot.answers)):
        raise BallotError(f"no answer for {', '.join(missing)}.")
    if unasked := sorted(set(ballot.answers) - rows):
        raise BallotError(f"{unasked[0][:60]!r} was not asked.")
    for row, answer in ballot.answers.items():
        if not _possible(item, answer):
            words = "left, same or right" if item.paired else "a whole number from 1 to 5"
            raise BallotError(f"{row}: {str(answer)[:20]!r} is no answer; use {words}.")
    if ballot.marks and item.paired:
        raise BallotError("marks go with one clip, not with a pair.")
    if strange := sorted(set(ballot.marks) - parts()):
        raise BallotError(f"{strange[0][:60]!r} is no part of a dimension.")


def _possible(item: Item, answer: str | int) -> bool:
    if item.paired:
        return isinstance(answer, str) and answer in set(Choice)
    return isinstance(answer, int) and not isinstance(answer, bool) and 1 <= answer <= 5


class VoteLog:
    """The log of one round, for one or several processes and threads."""

    def __init__(self, path: Path, round_: Round):
        self.path = path
        self.round = round_
        self._inside = threading.Lock()
        self._said: dict[tuple[str, str], tuple[Any, ...]] = {}
        self._known_to = 0  # bytes of the log that _said knows

    def read(self) -> list[Ballot]:
        """All ballots in the order of writing; a torn last line was never confirmed and is left.

        Raises DatasetError for a line that is damaged, or of another round.
        """
        return list(self._lines(self._bytes()))

    def last(self) -> dict[tuple[str, str], Ballot]:
        """The ballot that counts, by rater and item, in the order of first answers."""
        return {(ballot.rater, ballot.item): ballot for ballot in self.read()}

    def add(self, ballots: Iterable[Ballot]) -> int:
        """Appends what is new and returns how many that were. When it returns, they are on disk.

        Raises RoundClosedError once the round is closed, WorkspaceError when the disk refuses;
        then none of them counts.
        """
        with self.held() as file:
            if RoundFolder(self.path.parent).closed:
                raise RoundClosedError("the round is closed; it takes no more votes.")
            data = self._bytes()
            whole = data.rfind(b"\n") + 1
            if whole < self._known_to:
                self._said, self._known_to = {}, 0
            for ballot in self._lines(data[self._known_to : whole]):
                self._said[ballot.rater, ballot.item] = ballot.said
            self._known_to = whole
            new: dict[tuple[str, str], Ballot] = {}
            for ballot in ballots:
                place = ballot.rater, ballot.item
                if self._said.get(place) != ballot.said:
                    new[place] = ballot
                else:
                    new.pop(place, None)
            lines = b"".join(b.model_dump_json().encode() + b"\n" for b in new.values())
            if whole + len(lines) > MAX_LOG_BYTES:
                raise UsageError(f"{self.path} is full: {MAX_LOG_BYTES >> 20} MiB of votes.")
            if lines:
                file.truncate(whole)
                file.write(lines)
                file.flush()
                os.fsync(file.fileno())
            return len(new)

    def _bytes(self) -> bytes:
        try:
            if self.path.stat().st_size > MAX_LOG_BYTES + MAX_BALLOT_BYTES:
                raise DatasetError(f"{self.path} is larger than {MAX_LOG_BYTES >> 20} MiB.")
            return self.path.read_bytes()
        except FileNotFoundError:
            return b""

    def _lines(self, data: bytes) -> Iterator[Ballot]:
        for number, line in enumerate(data[: data.rfind(b"\n") + 1].splitlines(), 1):
            try:
                yield read_ballot(line, self.round)
            except BallotError as error:
                raise DatasetError(f"{self.path}, line {number}: {error}") from error

    @contextmanager
    def held(self) -> Iterator[Any]:
        """The log's file, while nobody else adds to it."""
        with self._inside, writing(self.path), self.path.open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield file


def read_export(path: Path, round_: Round) -> list[Ballot]:
    """Ballots that a page exported, one a line. Raises UsageError naming the line that is wrong."""
    try:
        if path.stat().st_size > MAX_LOG_BYTES:
            raise UsageError(f"{path} is larger than {MAX_LOG_BYTES >> 20} MiB: no list of votes.")
        data = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}.") from error
    found = []
    for number, line in enumerate(data.splitlines(), 1):
        if not line.strip():
            continue
        try:
            found.append(read_ballot(line, round_))
        except BallotError as error:
            raise UsageError(f"{path}, line {number}: {error}") from error
    if not found:
        raise UsageError(f"{path} holds no vote.")
    return found


def answered(ballots: Mapping[tuple[str, str], Ballot], seat: Seat) -> int:
    """How many of a rater's items have a ballot."""
    return sum((seat.rater, item.id) in ballots for item in seat.items)


def dumped(ballot: Ballot) -> dict[str, Any]:
    """As the page reads it."""
    return json.loads(ballot.model_dump_json())
