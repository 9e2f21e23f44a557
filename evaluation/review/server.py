"""Serves a round on this machine: pages, clips with ranges, votes. Standard library alone.

/<token>/                 the rater's page
/<token>/media/<name>     a clip; one byte range at a time, as browsers ask
/<token>/votes            GET: the rater's votes so far; POST: one vote

The token is the rater: without it there is nothing, and nobody votes in another's name. No reply
says when a file was made or what made it.
"""

from __future__ import annotations

import re
from http import HTTPStatus

from reelmill.errors import ReelmillError
from reelmill.evaluation.review.ballot import (
    MAX_BALLOT_BYTES,
    BallotError,
    RoundClosedError,
    VoteLog,
    dumped,
    read_ballot,
)
from reelmill.evaluation.review.round import RoundFolder, Seat
from reelmill.reports.local_http import LocalHandler, LocalServer, Refused

_PATH = re.compile(r"^/([0-9a-f]{16,64})/(?:(votes)|media/([0-9a-f]{16,64}\.mp4))?$")


class ReviewServer(LocalServer):
    """One open round behind one address. Raises UsageError when the address cannot be had."""

    def __init__(self, folder: RoundFolder, host: str = "127.0.0.1", port: int = 0):
        self.folder = folder
        self.round = folder.round()
        self.log = VoteLog(folder.votes, self.round)
        self.log.read()  # a damaged log is told before the first rater comes
        self.seats = {seat.token: seat for seat in self.round.seats}
        super().__init__(_Handler, host, port)

    def link(self, seat: Seat) -> str:
        return f"{self.address}/{seat.token}/"


class _Handler(LocalHandler):
    server: ReviewServer

    def status_of(self, error: ReelmillError) -> HTTPStatus:
        if isinstance(error, RoundClosedError):
            return HTTPStatus.CONFLICT
        if isinstance(error, BallotError):
            return HTTPStatus.UNPROCESSABLE_ENTITY
        return super().status_of(error)

    def reply(self) -> None:
        seat, votes, name = self._where()
        if self.command == "POST":
            self._post(seat, votes)
        else:
            self._get(seat, votes, name)

    def _where(self) -> tuple[Seat, bool, str | None]:
        found = _PATH.match(self.path.split("?")[0])
        seat = self.server.seats.get(found[1]) if found else None
        if found is None or seat is None:
            raise Refused(HTTPStatus.NOT_FOUND, "there is no such page. Use the link as given.")
        return seat, found[2] is not None, found[3]

    def _get(self, seat: Seat, votes: bool, name: str | None) -> None:
        folder = self.server.folder
        if votes:
            ballots = self.server.log.last().values()
            own = [dumped(ballot) for ballot in ballots if ballot.rater == seat.rater]
            self.send_json({"closed": folder.closed, "votes": own})
        elif name is not None:
            if not any(name in item.media for item in seat.items):
                raise Refused(HTTPStatus.NOT_FOUND, "there is no such clip.")
            self.send_file(folder.media / name, "video/mp4")
        else:
            self.send_file(folder.pages / f"{seat.rater}.html", "text/html; charset=utf-8")

    def _post(self, seat: Seat, votes: bool) -> None:
        if not votes:
            raise Refused(HTTPStatus.METHOD_NOT_ALLOWED, "votes are posted to votes.")
        ballot = read_ballot(self.read_json_body(MAX_BALLOT_BYTES), self.server.round)
        if ballot.rater != seat.rater:
            raise BallotError(f"this link is {seat.rater}'s, the vote is {ballot.rater}'s.")
        self.send_json({"kept": self.server.log.add([ballot])})
