"""HTTP on this machine with the standard library alone: bounded, and closed to other sites.

LocalServer listens; a LocalHandler says in `reply` what an address holds. No reply says when a
file was made or what made it. Bodies and ranges are bounded, threads end with the program, and a
server on a loopback address answers to such names only, so that another site's page cannot reach
it by a name of its own.
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

IDLE_S = 30.0
PIECE = 256 << 10
_RANGE = re.compile(r"^bytes=(\d{0,15})-(\d{0,15})$")


class LocalServer(ThreadingHTTPServer):
    """Listens at one address. Raises UsageError when the address cannot be had."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, handler: type[LocalHandler], host: str = "127.0.0.1", port: int = 0):
        if ":" in host:
            self.address_family = socket.AF_INET6
        try:
            super().__init__((host, port), handler)
        except (OSError, OverflowError) as error:
            raise UsageError(
                f"cannot serve on {host} port {port}: {error}. Choose another --port."
            ) from error
        self.host = f"[{host}]" if ":" in host else host
        self.loopback = is_loopback(host)

    def server_bind(self) -> None:
        """Without HTTPServer's look-up of this machine's name, which may take seconds."""
        socketserver.TCPServer.server_bind(self)
        self.server_name = ""
        self.server_port = int(self.server_address[1])

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that goes away in the middle of a clip is no error."""

    @property
    def address(self) -> str:
        return f"http://{self.host}:{self.server_port}"


def is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


class Refused(Exception):  # noqa: N818 - a reply, not a fault
    """A reply that is no page: its status and why."""

    def __init__(self, status: HTTPStatus, why: str):
        super().__init__(why)
        self.status = status


class LocalHandler(BaseHTTPRequestHandler):
    """One request. A subclass answers it in `reply`, by send_json, send_text or send_file."""

    server: LocalServer
    protocol_version = "HTTP/1.1"
    server_version = "review"
    sys_version = ""
    timeout = IDLE_S

    def reply(self) -> None:
        """Answers self.command (GET, HEAD or POST) at self.path. Raises Refused."""
        raise NotImplementedError

    def status_of(self, error: ReelmillError) -> HTTPStatus:
        """The status of an error that `reply` raised."""
        return HTTPStatus.INTERNAL_SERVER_ERROR

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def _answer(self) -> None:
        try:
            self._check_host()
            self.reply()
        except Refused as refused:
            self.close_connection = True
            self.send_json({"error": str(refused)}, refused.status)
        except ReelmillError as error:
            status = self.status_of(error)
            self.close_connection = status == HTTPStatus.INTERNAL_SERVER_ERROR
            self.send_json({"error": str(error)}, status)

    def _check_host(self) -> None:
        if not self.server.loopback:
            return
        try:
            named = urlsplit(f"//{self.headers.get('Host', '')}").hostname or ""
        except ValueError:
            named = ""
        if not is_loopback(named):
            raise Refused(HTTPStatus.FORBIDDEN, "this server answers to its own address only.")

    def read_json_body(self, limit: int) -> bytes:
        """The body of a POST from our own page. Raises Refused."""
        origin = self.headers.get("Origin")
        if origin is not None and urlsplit(origin).netloc != self.headers.get("Host"):
            raise Refused(HTTPStatus.FORBIDDEN, "another site's page cannot vote.")
        if self.headers.get("Content-Type", "").split(";")[0].strip() != "application/json":
            raise Refused(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "a vote is application/json.")
        told = self.headers.get("Content-Length", "")
        if not re.fullmatch(r"[0-9]{1,12}", told):
            raise Refused(HTTPStatus.LENGTH_REQUIRED, "a vote comes with its Content-Length.")
        if int(told) > limit:
            raise Refused(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                f"a vote has at most {limit} bytes, this has {told}.",
            )
        return self.rfile.read(int(told))

    def send_json(self, value: Any, status: HTTPStatus = HTTPStatus.OK) -> None:
        self._send("application/json", json.dumps(value).encode(), status)

    def send_text(self, text: str, kind: str = "text/html; charset=utf-8") -> None:
        self._send(kind, text.encode(), HTTPStatus.OK)

    def _send(self, kind: str, data: bytes, status: HTTPStatus) -> None:
        self._head(status, kind, len(data))
        if self.command != "HEAD":
            self.wfile.write(data)

    def send_file(self, path: Path, kind: str) -> None:
        """A file, or the one range of it that is asked for."""
        try:
            file = path.open("rb")
        except OSError:
            raise Refused(HTTPStatus.NOT_FOUND, "the file is gone.") from None
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
            raise Refused(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, f"the file has {size} bytes.")
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
