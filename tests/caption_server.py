"""A model's endpoint on loopback that answers well, or in every way that it should not."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

CLIP = re.compile(r'"clip": "([0-9a-f]{16})"')


@dataclass
class Question:
    """One request: the digest that its answer must carry, its text, pictures and sounds."""

    clip: str
    text: str
    pictures: int
    sounds: int
    key: str | None


@dataclass
class Model:
    """answer: makes the reply's text, or a (status, body) that is sent as it is."""

    answer: Callable[[Question], str | tuple[int, bytes]] | None = None
    asked: list[Question] = field(default_factory=list)
    url: str = ""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def well(self, question: Question) -> str:
        """A good answer, with words of its own for every clip."""
        if question.sounds:
            told: dict[str, Any] = {"sound": f"Sounds of {question.clip}.", "sfx": ["steps"]}
            return json.dumps({"clip": question.clip, **told, "bgm": "a slow piano"})
        told = {"short": f"A scene {question.clip}.", "long": f"Much to see in {question.clip}."}
        told |= {"shot_type": "medium", "angle": "eye level"}
        return "```json\n" + json.dumps({"clip": question.clip, **told}) + "\n```"


@contextmanager
def model_on_loopback() -> Iterator[Model]:
    model = Model()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            content = body["messages"][0]["content"]
            text = content[0]["text"]
            kinds = [part["type"] for part in content[1:]]
            found = CLIP.search(text)
            question = Question(
                found[1] if found else "",
                text,
                kinds.count("image_url"),
                kinds.count("input_audio"),
                self.headers["Authorization"],
            )
            with model.lock:
                model.asked.append(question)
            answered = (model.answer or model.well)(question)
            if isinstance(answered, tuple):
                status, data = answered
            else:
                reply = {"choices": [{"message": {"content": answered}}]}
                status, data = 200, json.dumps(reply).encode()
            with suppress(BrokenPipeError, ConnectionResetError):
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    model.url = f"http://127.0.0.1:{server.server_port}/v1"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield model
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def slowly(seconds: float) -> None:
    time.sleep(seconds)
