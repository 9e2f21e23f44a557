"""A model behind an OpenAI-compatible endpoint, such as vLLM: chat completions, and no more.

What it answers is not trusted: the length is bounded, redirects are not followed, and only the text
of the first choice is read.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self, TypeVar

import httpx

from reelmill.curation.caption.shared_log import SharedCount
from reelmill.errors import MediaError

MAX_ANSWER = 1 << 20
BACKOFF_S = 0.5
T = TypeVar("T")
SILENT = 3  # questions in a row without any answer: nobody is there


class UnansweredError(MediaError):
    """A question that got no answer that could be used; the next run asks again."""

    def __init__(self, message: str):
        super().__init__(message, cause="transient")


@dataclass(frozen=True)
class EndpointOptions:
    """url: up to `/v1`. key_env: the environment's variable that holds the key, if one is wanted.

    tries: for each question. max_questions: of all that share a count, those asked again too; 0: no
    limit.
    """

    url: str
    model: str
    key_env: str = ""
    timeout_s: float = 120.0
    tries: int = 4
    max_questions: int = 0
    max_tokens: int = 1024


class Endpoint:
    """Asks, and asks again. May be used by several threads at once."""

    def __init__(
        self,
        options: EndpointOptions,
        *,
        sleep: Callable[[float], None] = time.sleep,
        count: SharedCount | None = None,
    ):
        key = os.environ.get(options.key_env, "") if options.key_env else ""
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self.options, self._sleep = options, sleep
        self._client = httpx.Client(timeout=options.timeout_s, headers=headers, trust_env=False)
        self._lock = threading.Lock()
        self._count = count or SharedCount(None)
        self._silent = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def ask(self, content: Sequence[Mapping[str, Any]], read: Callable[[str], T]) -> T:
        """What `read` makes of the answer; it raises ValueError for one that cannot be used.

        Raises UnansweredError, with the last reason, when the tries are over.
        """
        why = ""
        for attempt in range(self.options.tries):
            if attempt:
                self._sleep(BACKOFF_S * 2.0 ** (attempt - 1))
            self._may_ask(why)
            try:
                return read(self._answer(content, attempt))
            except (httpx.HTTPError, ValueError) as error:
                why = _reason(error)
                if isinstance(error, httpx.HTTPStatusError) and _is_final(error):
                    break
        raise UnansweredError(f"{self._named()}: {why}")

    @property
    def asked(self) -> int:
        """Questions of this process."""
        return self._count.own

    def _named(self) -> str:
        return f"model {self.options.model} at {self.options.url}"

    def _may_ask(self, why: str) -> None:
        with self._lock:
            if self._silent >= SILENT * self.options.tries:
                raise UnansweredError(
                    f"{self._named()} does not answer ({why or 'nor did it before'})"
                )
            if not self._count.take(self.options.max_questions):
                raise UnansweredError(
                    f"{self._named()}: the budget of {self.options.max_questions} questions is "
                    "spent; the next run goes on"
                )

    def _answer(self, content: Sequence[Mapping[str, Any]], seed: int) -> str:
        body = {
            "model": self.options.model,
            "temperature": 0 if seed == 0 else 0.2,  # the same question would get the same answer
            "seed": seed,
            "max_tokens": self.options.max_tokens,
            "messages": [{"role": "user", "content": list(content)}],
        }
        url = f"{self.options.url.rstrip('/')}/chat/completions"
        try:
            with self._client.stream("POST", url, json=body) as response:
                data = b""
                for chunk in response.iter_bytes():
                    data += chunk
                    if len(data) > MAX_ANSWER:
                        raise ValueError(f"its answer is longer than {MAX_ANSWER} bytes")
                response.raise_for_status()
        except httpx.HTTPStatusError:
            raise
        except httpx.HTTPError:
            with self._lock:
                self._silent += 1
            raise
        with self._lock:
            self._silent = 0
        return _text(data)


def _text(data: bytes) -> str:
    """The text of the first choice. Raises ValueError."""
    try:
        text = json.loads(data)["choices"][0]["message"]["content"]
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        start = data[:40].decode(errors="replace")
        raise ValueError(f"its answer is no chat completion: {start!r}") from error
    if not isinstance(text, str):
        raise ValueError("its answer holds no text")
    return text


def _is_final(error: httpx.HTTPStatusError) -> bool:
    """Whether asking again cannot help: the question, the key or the address is wrong."""
    return error.response.status_code < 500 and error.response.status_code not in (408, 409, 429)


def _reason(error: Exception) -> str:
    if isinstance(error, httpx.HTTPStatusError):
        status = error.response.status_code
        hint = " (is the key right? see key_env)" if status in (401, 403) else ""
        return f"it answers {status} {error.response.reason_phrase}{hint}"
    if isinstance(error, httpx.TimeoutException):
        return "it took too long"
    return str(error) or type(error).__name__
