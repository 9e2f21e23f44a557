"""Captions as the paper writes them: words, and what is written or heard between tags.

`<text>` is written in the picture; `<dialogue>`, `<singing>`, `<sfx>` and `<bgm>` are heard.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

TAGS = ("text", "dialogue", "singing", "sfx", "bgm")
_PART = re.compile(rf"<({'|'.join(TAGS)})>(.*?)</\1>", re.DOTALL)
_MARK = re.compile(rf"</?(?:{'|'.join(TAGS)})>")
_REFERENCE = re.compile(r"@(?=[A-Za-z])")  # `@image_1` would name a file


@dataclass(frozen=True)
class Part:
    """What stands between `<tag>` and `</tag>`."""

    tag: str
    words: str

    def __str__(self) -> str:
        return f"<{self.tag}>{self.words}</{self.tag}>"


def take_apart(text: str) -> tuple[str, list[Part]]:
    """The words of a text without its tagged parts, and these. Stray tags go."""
    parts = [Part(tag, plain(words)) for tag, words in _PART.findall(text)]
    return plain(_PART.sub(" ", text)), [part for part in parts if part.words]


def compose(description: str, parts: Sequence[Part]) -> str:
    """One caption: the description, then its parts in the order of TAGS."""
    ordered = sorted(parts, key=lambda part: TAGS.index(part.tag))
    return " ".join([*([description] if description else []), *map(str, ordered)])


def plain(text: str) -> str:
    """Words in one line, without tags, control characters and the marks of references."""
    bare = _REFERENCE.sub("", _MARK.sub(" ", text))
    return " ".join("".join(c if c.isprintable() else " " for c in bare).split())


def same_words(a: str, b: str) -> bool:
    """Whether two texts say the same words, whatever their case and punctuation."""
    return _words(a) == _words(b)


def says(text: str, words: str) -> bool:
    """Whether words stand in a text, in order and side by side."""
    return f" {' '.join(_words(words))} " in f" {' '.join(_words(text))} "


def _words(text: str) -> list[str]:
    return re.findall(r"[^\W_]+(?:['\u2019][^\W_]+)*", text.casefold().replace("\u2019", "'"))
