"""SoundClassByModel: speech, singing, music or effects, as a model that hears says."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar

from reelmill.curation.audio.sound_class import CLASSES, SoundClass
from reelmill.curation.caption.asking import Asker, AskingStage
from reelmill.curation.caption.by_model import AUDIO_RATE, answer_for, binding, sound_part
from reelmill.curation.caption.endpoint import Endpoint
from reelmill.curation.stage import (
    AUDIBLE,
    ClipMedia,
    Facts,
    NotApplicable,
    NotMeasured,
    NoValue,
    Resources,
    WeightsStore,
)

MOST_S = 30.0
ASK = """You sort recordings for a dataset into four classes: speech (people talk), singing (someone
sings, with or without music), music (instruments without a voice), effects (any other sound). Name
the one that the recording mostly is. Answer with one JSON object and nothing else:
{{"clip": "{clip}", "class": one of "speech", "singing", "music", "effects"}}
Copy the value of "clip"."""


@dataclass(frozen=True, kw_only=True)
class SoundClassByModel(AskingStage):
    """What a clip's sound mostly is, asked of an omni model behind an OpenAI-compatible endpoint.

    The paper asks Qwen3-Omni (section 3.4). It takes the place of SoundClass in a recipe and gives
    the same facts; a model names a class and no scores, so these read `not measured`. The question
    carries a digest of the clip's contents, and an answer about another clip is refused. At most
    the first 30 s are sent. Digital silence is not asked about.
    """

    kinds: ClassVar = AUDIBLE
    needs: ClassVar = ("mean_volume",)
    adds: ClassVar = SoundClass.adds
    paper: ClassVar = "section 3.4, four classes"
    resources: ClassVar = Resources(memory_gb=1.0)
    batch_size: ClassVar = 32
    model: str = "Qwen3-Omni"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.model:
            raise ValueError("model must name one; SoundClass asks none")

    def models(self) -> tuple[str, ...]:
        return (self.model,)

    @contextmanager
    def session(
        self, weights: WeightsStore
    ) -> Iterator[Callable[[Sequence[ClipMedia]], list[Facts]]]:
        with (
            self.endpoints(weights) as (endpoint,),
            ThreadPoolExecutor(self.at_once) as pool,
        ):
            assert endpoint is not None, "__post_init__ wants a model"
            yield Asker(pool, lambda media: self._question(media, endpoint))

    def _question(self, media: ClipMedia, endpoint: Endpoint) -> Callable[[], Facts]:
        names = [fact.name for fact in self.adds]
        volume, clip = media.facts["mean_volume"], media.clip.id
        none = volume if isinstance(volume, NoValue) else None
        if none is None:
            sound = media.audio(AUDIO_RATE)[: round(MOST_S * AUDIO_RATE)]
            if not sound.any():
                none = NotApplicable("silent")
        if none is not None:
            facts: Facts = dict.fromkeys(names, none)
            return lambda: facts
        name = binding(clip, self.model)
        content = [{"type": "text", "text": ASK.format(clip=name)}, sound_part(sound)]

        def ask() -> Facts:
            found = endpoint.ask(content, lambda answer: class_of(name, answer))
            scores = NotMeasured("a model names a class and gives no scores")
            return dict.fromkeys(names, scores) | {"sound_class": found}

        return ask


def class_of(name: str, answer: str) -> str:
    """The class in an answer. Raises ValueError for another clip's, and for none of the four."""
    found = answer_for(name, answer).get("class")
    if not isinstance(found, str) or found.strip().lower() not in CLASSES:
        raise ValueError(f"it names the class {str(found)[:40]!r}, none of {', '.join(CLASSES)}")
    return found.strip().lower()
