"""A stage that asks a model about clips: how it is reached, and many questions at once."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reelmill.curation.caption.endpoint import Endpoint, EndpointOptions
from reelmill.curation.caption.shared_log import SharedCount
from reelmill.curation.pulse import beat
from reelmill.curation.stage import ClipMedia, ClipStage, Facts, WeightsStore

# How a model is reached, and not what it says.
REACHED_BY = ("url", "key_env", "at_once", "timeout_s", "tries", "max_questions")


@dataclass(frozen=True, kw_only=True)
class AskingStage(ClipStage):
    """url: up to `/v1`. key_env: the variable that holds a key. at_once: questions of one worker at
    a time. tries: for each question. max_questions: of a run to each model, 0 for no bound.
    """

    url: str = "http://localhost:8000/v1"
    key_env: str = ""
    at_once: int = 8
    timeout_s: float = 120.0
    tries: int = 4
    max_questions: int = 0

    def __post_init__(self) -> None:
        if min(self.at_once, self.tries) < 1 or self.timeout_s <= 0:
            raise ValueError("at_once and tries must be at least 1, timeout_s above 0")
        if any(self.models()) and not self.url.startswith(("http://", "https://")):
            raise ValueError(f"url {self.url!r} must begin with http:// or https://")

    @abstractmethod
    def models(self) -> tuple[str, ...]:
        """Names of the models that are asked; empty ones are not."""

    def measuring(self) -> dict[str, Any]:
        found = super().measuring()
        return {name: value for name, value in found.items() if name not in REACHED_BY}

    @contextmanager
    def endpoints(self, weights: WeightsStore) -> Iterator[list[Endpoint | None]]:
        """One for each of the models; questions are counted over all workers of the run."""
        folder = shared_folder(weights)
        with ExitStack() as stack:
            found: list[Endpoint | None] = []
            for model in self.models():
                named = f"{self.name}\n{self.url}\n{model}".encode()
                mark = hashlib.sha256(named).hexdigest()[:16]
                count = SharedCount(folder / f"questions-{mark}" if folder else None)
                options = EndpointOptions(
                    url=self.url,
                    model=model,
                    key_env=self.key_env,
                    timeout_s=self.timeout_s,
                    tries=self.tries,
                    max_questions=self.max_questions,
                )
                found.append(stack.enter_context(Endpoint(options, count=count)) if model else None)
            yield found


def shared_folder(weights: WeightsStore) -> Path | None:
    """What the workers of a run share, None outside of one."""
    return getattr(weights, "shared", None)


@dataclass
class Asker:
    """Asks about several clips at once. Answers are kept for when one of a batch fails.

    begin: decodes what a clip's question needs, and gives the question: called in another thread.
    """

    pool: ThreadPoolExecutor
    begin: Callable[[ClipMedia], Callable[[], Facts]]
    known: dict[str, Future[Facts]] = field(default_factory=dict)

    def __call__(self, clips: Sequence[ClipMedia]) -> list[Facts]:
        names = [media.clip.id for media in clips]
        for media in clips:  # media belong to one thread
            if media.clip.id not in self.known:
                self.known[media.clip.id] = self.pool.submit(self.begin(media))
        left = {self.known[name] for name in names}
        while left:
            _, left = wait(left, timeout=1.0)
            beat()
        if len(names) > 1:  # raises for the first that failed: they are then asked for one by one
            for name in names:
                self.known[name].result()
        return [self.known.pop(name).result() for name in names]
