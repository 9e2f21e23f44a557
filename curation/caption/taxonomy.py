"""A taxonomy of concepts that a user gives, and which of them a caption names.

    - name: animal/dog
      words: [dog, puppy, german shepherd]
    - name: scene/street
      words: [street, road, crossing]
      without: [street food]

The order is that of importance: of categories that a caption names equally often the first counts.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from reelmill.errors import RecipeError

MAX_BYTES = 1 << 20
MAX_CATEGORIES, MAX_WORDS, MAX_LENGTH = 2000, 500, 100
KEYS = {"name", "words", "without"}
_NAME = re.compile(r"[^\s=;,]+")  # quotas are written as name=count
_NOT = r"(?<!\bno )(?<!\bnot a )(?<!\bwithout )(?<!\bwithout a )(?<!\bwithout any )"


@dataclass(frozen=True)
class Category:
    """words: what captions call it. pattern, never: those words, and what is not one of them."""

    name: str
    pattern: re.Pattern[str]
    never: re.Pattern[str] | None

    def words(self, caption: str) -> list[str]:
        """Its words in a caption, folded, each once, in order."""
        text = " ".join(caption.casefold().split())
        if self.never is not None:
            text = self.never.sub(" ", text)
        return list(dict.fromkeys(self.pattern.findall(text)))


@dataclass(frozen=True)
class Taxonomy:
    """digest: of the file it was read from."""

    categories: tuple[Category, ...]
    digest: str = field(compare=False, default="")

    @classmethod
    def read(cls, path: Path) -> Taxonomy:
        """Raises RecipeError, which names the place, for what is no taxonomy."""
        try:
            data = path.read_bytes()
            if len(data) > MAX_BYTES:
                raise RecipeError(f"taxonomy {path} is larger than {MAX_BYTES} bytes.")
            rows = yaml.safe_load(data.decode())
        except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
            raise RecipeError(f"taxonomy {path} cannot be read: {error}") from error
        if not isinstance(rows, list) or not 0 < len(rows) <= MAX_CATEGORIES:
            raise RecipeError(
                f"taxonomy {path} must be a list of 1 to {MAX_CATEGORIES} categories, each with "
                "name and words."
            )
        found = [_category(row, f"taxonomy {path}, category {i}") for i, row in enumerate(rows, 1)]
        names = [one.name for one in found]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise RecipeError(f"taxonomy {path} has two categories {twice!r}.")
        return cls(tuple(found), hashlib.sha256(data).hexdigest())

    def match(self, caption: str) -> dict[str, list[str]]:
        """Categories that a caption names, with its words; most words first."""
        found = {one.name: words for one in self.categories if (words := one.words(caption))}
        return dict(sorted(found.items(), key=lambda item: -len(item[1])))


def _category(row: Any, where: str) -> Category:
    if not isinstance(row, dict) or not {"name", "words"} <= row.keys() <= KEYS:
        raise RecipeError(f"{where} must have name and words, and may have without.")
    name = row["name"]
    if not (isinstance(name, str) and _NAME.fullmatch(name) and len(name) <= MAX_LENGTH):
        raise RecipeError(
            f"{where}: name {name!r:.60} must be a short text without blanks and = ; ,"
        )
    words = _pattern(row["words"], f"{where} ({name}), words", negated=True)
    if words is None:
        raise RecipeError(f"{where} ({name}) has no words.")
    return Category(name, words, _pattern(row.get("without"), f"{where} ({name}), without"))


def _pattern(words: Any, where: str, *, negated: bool = False) -> re.Pattern[str] | None:
    """Finds whole words, and their plurals; those after `no` or `without` not, if asked."""
    if words is None or words == []:
        return None
    short = isinstance(words, list) and len(words) <= MAX_WORDS
    if not short or not all(isinstance(w, str) and 0 < len(w.strip()) <= MAX_LENGTH for w in words):
        raise RecipeError(f"{where} must be a list of at most {MAX_WORDS} short texts.")
    folded = sorted(
        {" ".join(word.casefold().split()) for word in words}, key=lambda w: (-len(w), w)
    )
    choice = "|".join(map(re.escape, folded))
    return re.compile(rf"{_NOT if negated else ''}\b({choice})(?:s|es)?\b")
