"""A web server on loopback that misbehaves on request: for tests of what is fetched."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit


class Site:
    """Serves the files of a folder. A path `/MODE/name` serves `name` in that manner.

    asked: how often each path was asked for. fail_every: every n-th request of all is answered
    with 503, however it is asked.
    """

    def __init__(self, folder: Path):
        self.folder, self.fail_every = folder, 0
        self.asked: Counter[str] = Counter()
        self.headers: list[dict[str, str]] = []
        self.redirect = "/"
        self.stop = threading.Event()
        self._count = 0
        self._lock = threading.Lock()

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    def failing(self) -> bool:
        with self._lock:
            self._count += 1
            return bool(self.fail_every) and self._count % self.fail_every == 0


@contextmanager
def serving(folder: Path) -> Iterator[Site]:
    site = Site(folder)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            path = urlsplit(self.path).path
            site.asked[path] += 1
            site.headers.append(dict(self.headers))
            if site.failing():
                self.answer(503, b"busy", {"Retry-After": "0"})
                return
            mode, _, name = path.strip("/").rpartition("/")
            file = site.folder / unquote(name)
            with suppress(BrokenPipeError, ConnectionResetError):
                getattr(self, f"do_{mode or 'plain'}")(file)

        def answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
            self.send_response(status)
            for name, value in ({"Content-Length": str(len(body))} | (headers or {})).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def do_plain(self, file: Path) -> None:
            if not file.is_file():
                self.answer(404, b"")
                return
            data = file.read_bytes()
            tag = f'"{len(data)}-{hash(data)}"'
            if self.headers.get("If-None-Match") == tag:
                self.answer(304, b"")
                return
            self.answer(200, data, {"ETag": tag})

        def do_untagged(self, file: Path) -> None:
            self.answer(200, file.read_bytes())

        def do_forbidden(self, file: Path) -> None:
            self.answer(403, b"no")

        def do_short(self, file: Path) -> None:
            """Says more than it sends."""
            data = file.read_bytes()
            self.answer(200, data, {"Content-Length": str(len(data) + 1000)})
            self.close_connection = True

        def do_broken(self, file: Path) -> None:
            """Breaks off in the middle of a chunk."""
            self.chunked()
            self.wfile.write(b"1000\r\n" + b"x" * 100)
            self.close_connection = True

        def do_once(self, file: Path) -> None:
            """Breaks off the first time only."""
            (self.do_broken if site.asked[self.path] == 1 else self.do_plain)(file)

        def do_endless(self, file: Path) -> None:
            self.chunked()
            while not site.stop.is_set():
                self.wfile.write(b"10000\r\n" + bytes(1 << 16) + b"\r\n")

        def do_slow(self, file: Path) -> None:
            """A byte now and then, for ever."""
            self.chunked()
            while not site.stop.is_set():
                self.wfile.write(b"1\r\nx\r\n")
                self.wfile.flush()
                time.sleep(0.02)

        def do_silent(self, file: Path) -> None:
            self.chunked()
            site.stop.wait(20)

        def do_zipped(self, file: Path) -> None:
            self.answer(200, file.read_bytes(), {"Content-Encoding": "gzip"})

        def do_huge(self, file: Path) -> None:
            self.answer(200, b"", {"Content-Length": str(1 << 60)})

        def do_redirect(self, file: Path) -> None:
            self.answer(302, b"", {"Location": site.redirect})

        def chunked(self) -> None:
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    site.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield site
    finally:
        site.stop.set()
        server.shutdown()
        server.server_close()
        thread.join()
