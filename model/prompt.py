"""Prompts that name references and mark what is heard and written (paper sections 3.3, 3.4.3).

`@image_1`, `@video_1`, `@Actor-0`, `@Audio-0` name files that are given beside the prompt;
`<text> <sfx> <dialogue> <singing> <bgm>`, each closed by `</...>`, mark parts of a structured
caption. Anything else is words. `str(Prompt.parse(text)) == text`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from reelmill.errors import PromptError

TAGS = ("text", "sfx", "dialogue", "singing", "bgm")
SOUNDS = ("sfx", "dialogue", "singing", "bgm")
KINDS = {"image": "image", "actor": "image", "video": "video", "audio": "audio"}
MAX_CHARACTERS = 100_000

_MARK = re.compile(
    r"(?<![\w@])@([A-Za-z]{1,20})[_-](\d{1,4})(?!\w)|<(/?)(text|sfx|dialogue|singing|bgm)>"
)


@dataclass(frozen=True)
class Reference:
    """A reference as it is written, without `@`: `image_1`."""

    name: str

    def __str__(self) -> str:
        return f"@{self.name}"

    @property
    def key(self) -> str:
        """The same for all spellings of one name: `Actor-0` and `actor_0`."""
        return self.name.lower().replace("-", "_")

    @property
    def kind(self) -> str:
        """What file it needs: `image`, `video` or `audio`. Raises PromptError for another name."""
        word, _, number = self.key.rpartition("_")
        if word not in KINDS or not (number.isascii() and number.isdigit()):
            raise PromptError(
                f"reference @{self.name}: names are @image_1, @video_1, @Actor-0 and @Audio-0, "
                "with any number."
            )
        return KINDS[word]


@dataclass(frozen=True)
class Tagged:
    """What stands between `<tag>` and `</tag>`."""

    tag: str
    parts: tuple[str | Reference, ...]

    def __str__(self) -> str:
        return f"<{self.tag}>{''.join(map(str, self.parts))}</{self.tag}>"


@dataclass(frozen=True)
class Prompt:
    parts: tuple[str | Reference | Tagged, ...]

    def __str__(self) -> str:
        return "".join(map(str, self.parts))

    @classmethod
    def parse(cls, text: str) -> Prompt:
        """Raises PromptError for tags that are not closed or nested, for a name of no known kind,
        and for more than 100000 characters."""
        if len(text) > MAX_CHARACTERS:
            raise PromptError(
                f"a prompt of {len(text)} characters; at most {MAX_CHARACTERS} are read."
            )
        parts: list[str | Reference | Tagged] = []
        inside: list[str | Reference] = []
        tag, end = "", 0
        for mark in _MARK.finditer(text):
            into: list = inside if tag else parts
            if mark.start() > end:
                into.append(text[end : mark.start()])
            end = mark.end()
            word, _, closing, name = mark.groups()
            if word is not None:
                reference = Reference(mark.group()[1:])
                _ = reference.kind
                into.append(reference)
            elif closing and name == tag:
                parts.append(Tagged(tag, tuple(inside)))
                inside, tag = [], ""
            elif closing:
                raise _at(text, mark, f"</{name}> closes no <{name}>")
            elif tag:
                raise _at(text, mark, f"<{name}> begins before </{tag}>; tags do not nest")
            else:
                tag = name
        if tag:
            raise PromptError(f"prompt: <{tag}> is not closed; write </{tag}> behind its content.")
        if end < len(text):
            parts.append(text[end:])
        return cls(tuple(parts))

    @property
    def references(self) -> tuple[Reference, ...]:
        """Every reference once, in the order of their first mention."""
        return tuple({r.key: r for r in reversed(list(self._mentions()))}.values())[::-1]

    @property
    def sounds(self) -> bool:
        """Whether it says what is to be heard."""
        return any(isinstance(p, Tagged) and p.tag in SOUNDS for p in self.parts)

    def tagged(self, tag: str) -> tuple[str, ...]:
        """What stands in each `<tag>`."""
        tags = (p for p in self.parts if isinstance(p, Tagged) and p.tag == tag)
        return tuple("".join(map(str, t.parts)) for t in tags)

    def check(self, files: Iterable[str]) -> None:
        """files: names that are given. Raises PromptError for a name without a file, or given
        twice."""
        keys = [Reference(name).key for name in files]
        twice = [key for key in keys if keys.count(key) > 1]
        if twice:
            raise PromptError(f"reference @{twice[0]} is given more than once.")
        for reference in self.references:
            if reference.key not in keys:
                given = ", ".join(f"@{key}" for key in keys) or "none"
                raise PromptError(
                    f"the prompt names {reference}, but no file is given for it (given: {given})."
                )

    def _mentions(self) -> Iterator[Reference]:
        for part in self.parts:
            inner = part.parts if isinstance(part, Tagged) else (part,)
            yield from (p for p in inner if isinstance(p, Reference))


def _at(text: str, mark: re.Match[str], what: str) -> PromptError:
    around = text[max(0, mark.start() - 20) : mark.end() + 20]
    return PromptError(f"prompt, character {mark.start()}: {what} (at {around!r}).")
