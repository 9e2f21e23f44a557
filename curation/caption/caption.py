"""Caption: what is to be seen and heard, said three ways."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from reelmill.curation.caption.asking import Asker, AskingStage, shared_folder
from reelmill.curation.caption.by_model import AUDIO_RATE, Repeats, heard, merged, seen, spread
from reelmill.curation.caption.compose import NOUN, Captions, composed
from reelmill.curation.caption.endpoint import Endpoint
from reelmill.curation.caption.evidence import READS, Evidence
from reelmill.curation.stage import (
    ClipMedia,
    Fact,
    Facts,
    NotApplicable,
    NotMeasured,
    Resources,
    WeightsStore,
)
from reelmill.datasets.sample import Kind

FROM_FACTS = "composed from measured facts"


@dataclass(frozen=True, kw_only=True)
class Caption(AskingStage):
    """Short, long and structured captions (paper section 3.3), of what was seen and heard.

    Without a model, of measured facts alone; `caption_source` says so. `model` sees `frames` frames
    of `height` lines, `sound_model` hears the sound (they may be one omni model); both answer
    at `url`, an OpenAI-compatible endpoint such as vLLM's. What measurements deny is removed and
    counted: a `<dialogue>` is there only where speech was measured, and its words are the
    transcript's; `<bgm>` only where music was; `<text>` only what was read in the picture. An
    answer that is about another clip, or repeats one of another clip, in an earlier run too, is
    asked for again and then failed.

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

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.frames, self.height) < 1:
            raise ValueError("frames and height must be at least 1")

    @contextmanager
    def session(
        self, weights: WeightsStore
    ) -> Iterator[Callable[[Sequence[ClipMedia]], list[Facts]]]:
        if not (self.model or self.sound_model):
            yield lambda clips: [self._composed(clip) for clip in clips]
            return
        folder = shared_folder(weights)
        repeats = Repeats(self._log(folder.parent) if folder else None)
        with (
            self.endpoints(weights) as (eyes, ears),
            ThreadPoolExecutor(self.at_once) as pool,
        ):
            yield Asker(pool, lambda media: self._question(media, eyes, ears, repeats))

    def models(self) -> tuple[str, ...]:
        return self.model, self.sound_model

    def _log(self, folder: Path) -> Path:
        """The captions that this model gave in any run of the workspace."""
        return folder / f"captions-{hashlib.sha256(self.model.encode()).hexdigest()[:16]}"

    def evidence(self, facts: Facts) -> Evidence:
        return Evidence.of(facts, self.min_music)

    def _composed(self, media: ClipMedia) -> Facts:
        made = composed(media.clip.kind, self.evidence(media.facts))
        return facts_of(made, FROM_FACTS, NotMeasured("no caption model was asked"))

    def _question(
        self, media: ClipMedia, eyes: Endpoint | None, ears: Endpoint | None, repeats: Repeats
    ) -> Callable[[], Facts]:
        clip, known = media.clip, self.evidence(media.facts)
        frames = samples = None
        if eyes is not None and clip.kind is not Kind.AUDIO:
            rate = self.frames / max(clip.seconds, 0.1)
            frames = spread(media.frames(rate, self.height), self.frames)
        silent = isinstance(media.facts.get("sound_class"), NotApplicable)
        if ears is not None and media.info.audio is not None and not silent:
            samples = media.audio(AUDIO_RATE)
        if frames is None and samples is None:
            made = self._composed(media)
            return lambda: made

        def ask() -> Facts:
            sight = sound = None
            if eyes is not None and frames is not None:
                sight = seen(eyes, clip.id, f"a {NOUN[clip.kind]}", frames, known, repeats)
            if ears is not None and samples is not None:
                sound = heard(ears, clip.id, samples, known)
            made = merged(sight, sound, known)
            return facts_of(made, self.source, NotApplicable("the model does not say"))

        return ask

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
