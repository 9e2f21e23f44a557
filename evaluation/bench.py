"""The bench: prompts that say what must be seen and heard, and when.

The paper's 2000 prompts are not public. These are our own: one for every cell of content x sound
x camera x shots, half of them English, half Chinese. What a clip must hold stands in the prompt's
own tags (paper section 3.4): `<dialogue>`, `<singing>`, `<sfx>`, `<bgm>`, `<text>`. More prompts
are a YAML file of the same shape.
"""

from __future__ import annotations

import hashlib
import itertools
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import Annotated, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from reelmill.errors import PromptError

TAGS = ("dialogue", "singing", "sfx", "bgm", "text")
MAX_BYTES = 8 << 20
MAX_PROMPTS = 20_000
SHORTEST_SHOT_S = 0.5
_TAG = re.compile(r"<(/?)([A-Za-z_]+)>")
_TAGGED = re.compile(rf"<({'|'.join(TAGS)})>(.*?)</\1>", re.DOTALL)


class Content(StrEnum):
    ADVERTISING = "advertising"
    SOCIAL = "social"
    NARRATIVE = "narrative"
    EDUCATIONAL = "educational"
    ENTERTAINMENT = "entertainment"


class Sound(StrEnum):
    """What is mainly heard."""

    SPEECH = "speech"
    SINGING = "singing"
    EFFECTS = "effects"
    MUSIC = "music"


class Camera(StrEnum):
    """static: on a tripod; turning: pan, tilt, zoom; travelling: dolly, tracking, crane, drone."""

    STATIC = "static"
    TURNING = "turning"
    TRAVELLING = "travelling"


class Shots(StrEnum):
    SINGLE = "single"
    MULTI = "multi"


class Subject(StrEnum):
    HUMAN = "human"
    ANIMAL = "animal"
    OBJECT = "object"
    ABSTRACT = "abstract"


class Scene(StrEnum):
    INDOOR = "indoor"
    OUTDOOR = "outdoor"
    NATURAL = "natural"
    URBAN = "urban"


class Tempo(StrEnum):
    STATIC = "static"
    SLOW = "slow"
    FAST = "fast"


class Language(StrEnum):
    EN = "en"
    ZH = "zh"


Cell = tuple[Content, Sound, Camera, Shots]


class Prompt(BaseModel):
    """One prompt and what a clip made from it must hold.

    text: what the model is given, with tags. seconds: length asked for. cuts: times in seconds at
    which the prompt asks for a cut, rising; none for a single shot. video: a file below the list of
    prompts that is given and gets sound, "": none. onsets: seconds at which something must be heard
    to begin, where that is known. scene_known: the text is a caption of the demo's corpus, so what
    must be seen is known.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    id: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,63}$")]
    language: Language
    content: Content
    sound: Sound
    camera: Camera
    subject: Subject
    scene: Scene
    tempo: Tempo
    text: Annotated[str, Field(min_length=10, max_length=4000)]
    seconds: Annotated[float, Field(gt=0, le=60)] = 5.0
    cuts: tuple[float, ...] = ()
    video: Annotated[str, Field(max_length=4096)] = ""
    onsets: tuple[float, ...] | None = None
    scene_known: bool = False

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        edges = (0.0, *self.cuts, self.seconds)
        if any(b - a < SHORTEST_SHOT_S for a, b in itertools.pairwise(edges)):
            raise ValueError(
                f"cuts {list(self.cuts)} must rise and leave every shot of {self.seconds:g} s at "
                f"least {SHORTEST_SHOT_S} s"
            )
        if opened := _unbalanced(self.text):
            raise ValueError(f"tags are not balanced at {opened!r}; known tags: {', '.join(TAGS)}")
        if self.sound is Sound.SPEECH and not self.dialogue:
            raise ValueError("sound is speech, but the text has no <dialogue>")
        if self.sound is Sound.SINGING and not self.singing:
            raise ValueError("sound is singing, but the text has no <singing>")
        events = self.effects or self.onsets is not None or self.scene_known
        if self.sound is Sound.EFFECTS and not events:
            raise ValueError("sound is effects, but the text has no <sfx>")
        if self.sound is Sound.MUSIC and not self.music:
            raise ValueError("sound is music, but the text has no <bgm>")
        return self

    @property
    def shots(self) -> Shots:
        return Shots.MULTI if self.cuts else Shots.SINGLE

    @property
    def cell(self) -> Cell:
        return self.content, self.sound, self.camera, self.shots

    @property
    def dialogue(self) -> tuple[str, ...]:
        """Words that must be spoken, in order."""
        return self._tagged["dialogue"]

    @property
    def singing(self) -> tuple[str, ...]:
        """Words that must be sung, in order."""
        return self._tagged["singing"]

    @property
    def effects(self) -> tuple[str, ...]:
        """Sound events that must be heard."""
        return self._tagged["sfx"]

    @property
    def music(self) -> tuple[str, ...]:
        return self._tagged["bgm"]

    @property
    def screen_text(self) -> tuple[str, ...]:
        """Writing that must be readable in the picture."""
        return self._tagged["text"]

    @cached_property
    def _tagged(self) -> Mapping[str, tuple[str, ...]]:
        found: dict[str, list[str]] = {tag: [] for tag in TAGS}
        for tag, words in _TAGGED.findall(self.text):
            found[tag].append(" ".join(words.split()))
        return {tag: tuple(words) for tag, words in found.items()}

    @property
    def digest(self) -> str:
        """Short digest of all fields: scores of another wording are not reused."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:16]


def _unbalanced(text: str) -> str:
    """The tag at which balance is lost, or "". Tags do not nest."""
    opened = ""
    for match in _TAG.finditer(text):
        closing, name = match.groups()
        if name not in TAGS or (closing and name != opened) or (not closing and opened):
            return match.group()
        opened = "" if closing else name
    return f"<{opened}>" if opened else ""


class Bench(BaseModel):
    """A set of prompts with unique ids."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    prompts: Annotated[tuple[Prompt, ...], Field(min_length=1, max_length=MAX_PROMPTS)]

    @model_validator(mode="after")
    def _unique(self) -> Self:
        twice = [name for name, n in Counter(p.id for p in self.prompts).items() if n > 1]
        if twice:
            raise ValueError(f"prompt ids are given twice: {', '.join(twice[:5])}")
        return self

    def get(self, name: str) -> Prompt | None:
        return self._by_id.get(name)

    @cached_property
    def _by_id(self) -> Mapping[str, Prompt]:
        return {prompt.id: prompt for prompt in self.prompts}

    def missing_cells(self) -> tuple[Cell, ...]:
        """Cells of content x sound x camera x shots without a prompt."""
        held = {prompt.cell for prompt in self.prompts}
        every = itertools.product(Content, Sound, Camera, Shots)
        return tuple(cell for cell in every if cell not in held)


def own_bench() -> Bench:
    """The prompts that come with the package."""
    return read_bench(sorted((Path(__file__).parent / "prompts").glob("*.yaml")))


def read_bench(paths: Iterable[Path]) -> Bench:
    """Prompts of one or more YAML files, each a list of prompts.

    Raises PromptError naming the file, the prompt and the field that is wrong.
    """
    prompts: list[Prompt] = []
    for path in paths:
        for index, row in enumerate(_rows(path)):
            name = row.get("id", f"number {index + 1}") if isinstance(row, dict) else index + 1
            try:
                prompts.append(_found(Prompt.model_validate(row), path))
            except ValidationError as error:
                raise PromptError(f"{path}: prompt {name}: {_first(error)}.") from error
    try:
        return Bench(prompts=tuple(prompts))
    except ValidationError as error:
        raise PromptError(f"the bench cannot be used: {_first(error)}.") from error


def _found(prompt: Prompt, path: Path) -> Prompt:
    """With its video as an absolute path. Raises PromptError for one outside the list's folder."""
    if not prompt.video:
        return prompt
    home = path.resolve().parent
    video = (home / prompt.video).resolve()
    if not video.is_relative_to(home) or not video.is_file():
        raise PromptError(
            f"{path}: prompt {prompt.id}: video {prompt.video!r} is no file below {home}."
        )
    return prompt.model_copy(update={"video": str(video)})


def _rows(path: Path) -> list:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise PromptError(f"{path} is larger than {MAX_BYTES >> 20} MiB: no list of prompts.")
        rows = yaml.safe_load(path.read_text("utf-8"))
    except OSError as error:
        raise PromptError(f"{path} cannot be read: {error.strerror}.") from error
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise PromptError(f"{path} is no YAML: {str(error)[:200]}.") from error
    if not isinstance(rows, list):
        raise PromptError(f"{path} must hold a list of prompts, not {type(rows).__name__}.")
    return rows


def _first(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(map(str, first["loc"]))
    return f"{where}: {first['msg']}" if where else first["msg"]
