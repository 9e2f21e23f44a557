"""Caption: what is to be seen and heard, said three ways."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar

from reelmill.curation.caption.by_model import AUDIO_RATE, Repeats, heard, merged, seen, spread
from reelmill.curation.caption.compose import NOUN, Captions, composed
from reelmill.curation.caption.endpoint import Endpoint, EndpointOptions
from reelmill.curation.caption.evidence import READS, Evidence
from reelmill.curation.pulse import beat
from reelmill.curation.stage import (
    ClipMedia,
    ClipStage,
    Fact,
    Facts,
    NotApplicable,
    NotMeasured,
    Resources,
    WeightsStore,
)
from reelmill.datasets.sample import Kind

# How the models are reached, and not what they say.
REACHED_BY = ("url", "key_env", "at_once", "timeout_s", "tries", "max_questions")
FROM_FACTS = "composed from measured facts"


@dataclass(frozen=True, kw_only=True)
class Caption(ClipStage):
    """Short, long and structured captions (paper section 3.3), of what was seen and heard.

    Without a model, of measured facts alone; `caption_source` says so. `model` sees `frames` frames
    of `height` lines, `sound_model` hears the sound (they may be one omni model); both answer
    at `url`, an OpenAI-compatible endpoint such as vLLM's. What measurements deny is removed and
    counted: a `<dialogue>` is there only where speech was measured, and its words are the
    transcript's; `<bgm>` only where music was; `<text>` only what was read in the picture. An
    answer that is about another clip, or repeats another's, is asked for again and then failed.

    The ledger keeps answers by a clip's contents and the models' names, not by their address.
    min_music: score of music from which on there is some. max_questions: of each worker; 0: no
    limit; beyond it clips fail as `transient`, and the next run goes on.
    """

    reads: ClassVar = READS
    adds: ClassVar = (
        Fact("caption_short", "", "One sentence.", dtype=str),
        Fact("caption_long", "", "All that is seen and heard, in words.", dtype=str),
        Fact("caption_structured", "", "The same with the paper's tags.", dtype=str),
        Fact("caption_source", "", "What wrote the captions.", dtype=str),
        Fact("caption_removed", "claims", "What models claimed and measurements deny.", 0, 10, int),
        Fact("caption_denied", "", "Those claims, with the reasons: a list in JSON.", dtype=str),
        Fact("shot_type", "", "Close-up, medium, wide ..., as a model sees it.", dtype=str),
        Fact("angle", "", "Eye level, low, high ..., as a model sees it.", dtype=str),
    )
    paper: ClassVar = "section 3.3, captions; 3.4, audio and video captions merged into one"
    resources: ClassVar = Resources(memory_gb=1.0)
    batch_size: ClassVar = 32
    model: str = ""
    sound_model: str = ""
    frames: int = 8
    height: int = 360
    min_music: float = 0.2
    url: str = "http://localhost:8000/v1"
    key_env: str = ""
    at_once: int = 8
    timeout_s: float = 120.0
    tries: int = 4
    max_questions: int = 0

    def __post_init__(self) -> None:
        if min(self.frames, self.height, self.at_once, self.tries) < 1 or self.timeout_s <= 0:
            raise ValueError("frames, height, at_once, tries and timeout_s must be at least 1")
        if (self.model or self.sound_model) and not self.url.startswith(("http://", "https://")):
            raise ValueError(f"url {self.url!r} must begin with http:// or https://")

    def measuring(self) -> dict[str, Any]:
        found = super().measuring()
        return {name: value for name, value in found.items() if name not in REACHED_BY}

    @contextmanager
    def session(
        self, weights: WeightsStore
    ) -> Iterator[Callable[[Sequence[ClipMedia]], list[Facts]]]:
        if not (self.model or self.sound_model):
            yield lambda clips: [self._composed(clip) for clip in clips]
            return
        with ExitStack() as stack:
            asked = [
                stack.enter_context(Endpoint(self._options(name))) if name else None
                for name in (self.model, self.sound_model)
            ]
            pool = stack.enter_context(ThreadPoolExecutor(self.at_once))
            yield _Captioner(self, asked[0], asked[1], pool)

    def _options(self, model: str) -> EndpointOptions:
        return EndpointOptions(
            url=self.url,
            model=model,
            key_env=self.key_env,
            timeout_s=self.timeout_s,
            tries=self.tries,
            max_questions=self.max_questions,
        )

    def evidence(self, facts: Facts) -> Evidence:
        return Evidence.of(facts, self.min_music)

    def _composed(self, media: ClipMedia) -> Facts:
        made = composed(media.clip.kind, self.evidence(media.facts))
        return facts_of(made, FROM_FACTS, NotMeasured("no caption model was asked"))

    @property
    def source(self) -> str:
        names = [f"sight: {self.model}"] * bool(self.model)
        names += [f"sound: {self.sound_model}"] * bool(self.sound_model)
        return "; ".join(names)


def facts_of(made: Captions, source: str, unknown: NotMeasured | NotApplicable) -> Facts:
    return {
        "caption_short": made.short,
        "caption_long": made.long,
        "caption_structured": made.structured,
        "caption_source": source,
        "caption_removed": len(made.removed),
        "caption_denied": json.dumps(made.removed, ensure_ascii=False),
        "shot_type": made.shot_type or unknown,
        "angle": made.angle or unknown,
    }


@dataclass
class _Captioner:
    """Asks about several clips at once. Answers are kept for when one of a batch fails."""

    stage: Caption
    eyes: Endpoint | None
    ears: Endpoint | None
    pool: ThreadPoolExecutor
    repeats: Repeats = field(default_factory=Repeats)
    known: dict[str, Future[Facts]] = field(default_factory=dict)

    def __call__(self, clips: Sequence[ClipMedia]) -> list[Facts]:
        names = [media.clip.id for media in clips]
        for media in clips:
            if media.clip.id not in self.known:
                self.known[media.clip.id] = self._begin(media)
        left = {self.known[name] for name in names}
        while left:
            _, left = wait(left, timeout=1.0)
            beat()
        if len(names) > 1:  # raises for the first that failed: they are then asked for one by one
            for name in names:
                self.known[name].result()
        return [self.known.pop(name).result() for name in names]

    def _begin(self, media: ClipMedia) -> Future[Facts]:
        """Decodes here, since media belong to one thread, and asks from another."""
        stage, clip = self.stage, media.clip
        known = stage.evidence(media.facts)
        frames = samples = None
        if self.eyes is not None and clip.kind is not Kind.AUDIO:
            rate = stage.frames / max(clip.seconds, 0.1)
            frames = spread(media.frames(rate, stage.height), stage.frames)
        silent = isinstance(media.facts.get("sound_class"), NotApplicable)
        if self.ears is not None and media.info.audio is not None and not silent:
            samples = media.audio(AUDIO_RATE)
        if frames is None and samples is None:
            made = facts_of(
                composed(clip.kind, known), FROM_FACTS, NotMeasured("no caption model was asked")
            )
            done: Future[Facts] = Future()
            done.set_result(made)
            return done

        def ask() -> Facts:
            sight = sound = None
            if self.eyes is not None and frames is not None:
                what = f"a {NOUN[clip.kind]}"
                sight = seen(self.eyes, clip.id, what, frames, known, self.repeats)
            if self.ears is not None and samples is not None:
                sound = heard(self.ears, clip.id, samples, known)
            made = merged(sight, sound, known)
            return facts_of(made, stage.source, NotApplicable("the model does not say"))

        return self.pool.submit(ask)
