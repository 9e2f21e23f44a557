"""Serves a round on this machine: pages, clips with ranges, votes. Standard library alone.

/<token>/                 the rater's page
/<token>/media/<name>     a clip; one byte range at a time, as browsers ask
/<token>/votes            GET: the rater's votes so far; POST: one vote

The token is the rater: without it there is nothing, and nobody votes in another's name. No reply
says when a file was made or what made it.
"""

from __future__ import annotations

import json
import re
import socket
import socketserver
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from reelmill.errors import ReelmillError, UsageError
from reelmill.evaluation.review.ballot import (
    MAX_BALLOT_BYTES,
    BallotError,
    RoundClosedError,
    VoteLog,
    dumped,
    read_ballot,
)
from reelmill.evaluation.review.round import RoundFolder, Seat

IDLE_S = 30.0
PIECE = 256 << 10
_PATH = re.compile(r"^/([0-9a-f]{16,64})/(?:(votes)|media/([0-9a-f]{16,64}\.mp4))?$")
_RANGE = re.compile(r"^bytes=(\d{0,15})-(\d{0,15})$")


class ReviewServer(ThreadingHTTPServer):
    """One open round behind one address. Raises UsageError when the address cannot be had."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, folder: RoundFolder, host: str = "127.0.0.1", port: int = 0):
        self.folder = folder
        self.round = folder.round()
        self.log = VoteLog(folder.votes, self.round)
        self.log.read()  # a damaged log is told before the first rater comes
        self.seats = {seat.token: seat for seat in self.round.seats}
        if ":" in host:
            self.address_family = socket.AF_INET6
        try:
            super().__init__((host, port), _Handler)
        except (OSError, OverflowError) as error:
            raise UsageError(
                f"cannot serve on {host} port {port}: {error}. Choose another --port."
            ) from error
        self.host = f"[{host}]" if ":" in host else host
        self.loopback = _is_loopback(host)

    def server_bind(self) -> None:
        """Without HTTPServer's look-up of this machine's name, which may take seconds."""
        socketserver.TCPServer.server_bind(self)
        self.server_name = ""
        self.server_port = int(self.server_address[1])

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that goes away in the middle of a clip is no error."""

    def link(self, seat: Seat) -> str:
        return f"http://{self.host}:{self.server_port}/{seat.token}/"


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


class _Refused(Exception):  # noqa: N818 - a reply, not a fault
    def __init__(self, status: HTTPStatus, why: str):
        super().__init__(why)
        self.status = status


class _Handler(BaseHTTPRequestHandler):
    server: ReviewServer
    protocol_version = "HTTP/1.1"
    server_version = "review"
    sys_version = ""
    timeout = IDLE_S

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._answer(self._get)

    def do_HEAD(self) -> None:
        self._answer(self._get)

    def do_POST(self) -> None:
        self._answer(self._post)

    def _answer(self, how: Any) -> None:
        try:
            self._check_host()
            seat, votes, name = self._where()
            how(seat, votes, name)
        except _Refused as refused:
            self.close_connection = True
            self._json(refused.status, {"error": str(refused)})
        except RoundClosedError as error:
            self._json(HTTPStatus.CONFLICT, {"error": str(error)})
        except BallotError as error:
            self._json(HTTPStatus.UNPROCESSABLE_ENTITY, {"error": str(error)})
        except ReelmillError as error:
            self.close_connection = True
            self._json(HTTPStatus.INTERNAL_SERVER_ERROR, {"error": str(error)})

    def _check_host(self) -> None:
        """Another site's page may not reach a loopback server by a name of its own."""
        if not self.server.loopback:
            return
        named = urlsplit(f"//{self.headers.get('Host', '')}").hostname or ""
        if not _is_loopback(named):
            raise _Refused(HTTPStatus.FORBIDDEN, "this server answers to its own address only.")

    def _where(self) -> tuple[Seat, bool, str | None]:
        found = _PATH.match(self.path.split("?")[0])
        seat = self.server.seats.get(found[1]) if found else None
        if found is None or seat is None:
            raise _Refused(HTTPStatus.NOT_FOUND, "there is no such page. Use the link as given.")
        return seat, found[2] is not None, found[3]

    def _get(self, seat: Seat, votes: bool, name: str | None) -> None:
        folder = self.server.folder
        if votes:
            ballots = self.server.log.last().values()
            own = [dumped(ballot) for ballot in ballots if ballot.rater == seat.rater]
            self._json(HTTPStatus.OK, {"closed": folder.closed, "votes": own})
        elif name is not None:
            if not any(name in item.media for item in seat.items):
                raise _Refused(HTTPStatus.NOT_FOUND, "there is no such clip.")
            self._file(folder.media / name, "video/mp4")
        else:
            self._file(folder.pages / f"{seat.rater}.html", "text/html; charset=utf-8")

    def _post(self, seat: Seat, votes: bool, name: str | None) -> None:
        if not votes:
            raise _Refused(HTTPStatus.METHOD_NOT_ALLOWED, "votes are posted to votes.")
        origin = self.headers.get("Origin")
        if origin is not None and urlsplit(origin).netloc != self.headers.get("Host"):
            raise _Refused(HTTPStatus.FORBIDDEN, "another site's page cannot vote.")
        if self.headers.get("Content-Type", "").split(";")[0].strip() != "application/json":
            raise _Refused(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "a vote is application/json.")
        ballot = read_ballot(self._body(), self.server.round)
        if ballot.rater != seat.rater:
            raise BallotError(f"this link is {seat.rater}'s, the vote is {ballot.rater}'s.")
        self._json(HTTPStatus.OK, {"kept": self.server.log.add([ballot])})

    def _body(self) -> bytes:
        told = self.headers.get("Content-Length", "")
        if not re.fullmatch(r"[0-9]{1,12}", told):
            raise _Refused(HTTPStatus.LENGTH_REQUIRED, "a vote comes with its Content-Length.")
        if int(told) > MAX_BALLOT_BYTES:
            raise _Refused(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                f"a vote has at most {MAX_BALLOT_BYTES} bytes, this has {told}.",
            )
        return self.rfile.read(int(told))

    def _json(self, status: HTTPStatus, value: Any) -> None:
        self._head(status, "application/json", len(data := json.dumps(value).encode()))
        if self.command != "HEAD":
            self.wfile.write(data)

    def _file(self, path: Path, kind: str) -> None:
        try:
            file = path.open("rb")
        except OSError:
            raise _Refused(HTTPStatus.NOT_FOUND, "the file is gone.") from None
        with file:
            size = file.seek(0, 2)
            first, last = self._span(size)
            part = (first, last) != (0, size - 1)
            status = HTTPStatus.PARTIAL_CONTENT if part else HTTPStatus.OK
            span = {"Content-Range": f"bytes {first}-{last}/{size}"} if part else {}
            self._head(status, kind, last - first + 1, {"Accept-Ranges": "bytes", **span})
            if self.command == "HEAD":
                return
            file.seek(first)
            left = last - first + 1
            while left > 0 and (piece := file.read(min(PIECE, left))):
                self.wfile.write(piece)
                left -= len(piece)

    def _span(self, size: int) -> tuple[int, int]:
        """First and last byte that are asked for; all of them for ranges that are not known."""
        found = _RANGE.match(self.headers.get("Range", ""))
        if found is None or not (found[1] or found[2]):
            return 0, size - 1
        if not found[1]:
            first, last = max(0, size - int(found[2])), size - 1
        else:
            first, last = int(found[1]), min(int(found[2] or size), size - 1)
        if first > last:
            raise _Refused(
                HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, f"the file has {size} bytes."
            )
        return first, last

    def _head(
        self, status: HTTPStatus, kind: str, length: int, more: dict[str, str] | None = None
    ) -> None:
        self.send_response_only(status)
        for name, value in {
            "Content-Type": kind,
            "Content-Length": str(length),
            "Cache-Control": "no-store",
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            "X-Frame-Options": "DENY",
            "Cross-Origin-Resource-Policy": "same-origin",
            **({"Connection": "close"} if self.close_connection else {}),
            **(more or {}),
        }.items():
            self.send_header(name, value)
        self.end_headers()
