"""Words: is what was asked for heard and read?

The transcript comes with the clip, from any tool; so may the text that is seen in the picture.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from reelmill.evaluation.bench import Language
from reelmill.evaluation.clip import ClipMedia
from reelmill.evaluation.metric import PROMPT, Better, Metric, NotApplicable, NotMeasured, Value
from reelmill.evaluation.reading import read_writing
from reelmill.evaluation.taxonomy import Stream


def spoken_form(text: str) -> str:
    """Text without case, width and punctuation; single spaces. Apostrophes within words stay.

    Numbers and traditional characters are left as they are.
    """
    folded = unicodedata.normalize("NFKC", text).casefold().replace("\u2019", "'")
    kept = [
        c if c.isalnum() or unicodedata.category(c).startswith("M") or c == "'" else " "
        for c in folded
    ]
    return " ".join(word for w in "".join(kept).split() if (word := w.strip("'")))


def edit_distance(first: Sequence[str], second: Sequence[str]) -> int:
    """Least number of insertions, deletions and substitutions between two sequences."""
    codes = {token: i for i, token in enumerate({*first, *second})}
    a = np.array([codes[t] for t in first], int)
    row = np.arange(len(a) + 1)
    for n, token in enumerate(second, 1):
        best = np.minimum(row[1:] + 1, row[:-1] + (a != codes[token]))
        steps = np.concatenate([[n], best]) - np.arange(len(a) + 1)
        row = np.minimum.accumulate(steps) + np.arange(len(a) + 1)
    return int(row[-1])


def error_rate(asked: Sequence[str], heard: Sequence[str]) -> float:
    """Edits over the length of what was asked for; above 1 where much is added."""
    return edit_distance(asked, heard) / len(asked)


def _spoken(clip: ClipMedia, language: Language) -> tuple[str, str] | NotApplicable | NotMeasured:
    """(asked, heard) in spoken form."""
    assert clip.prompt is not None
    if clip.prompt.language is not language:
        return NotApplicable(f"the prompt's language is {clip.prompt.language}")
    asked = spoken_form(" ".join(clip.prompt.dialogue))
    if not asked:
        return NotApplicable("the prompt asks for no dialogue")
    if clip.transcript is None:
        return NotMeasured("no transcript was given")
    return asked, spoken_form(clip.transcript)


@dataclass(frozen=True, kw_only=True)
class WordErrorRate(Metric):
    """Word errors of the dialogue, for prompts in English, given a transcript."""

    better: ClassVar = Better.LOWER
    high: ClassVar = 10.0
    part: ClassVar = "semantic_adherence"
    stream: ClassVar = Stream.AUDIO
    applies_to: ClassVar = (PROMPT,)
    truth: ClassVar = True

    def _value(self, clip: ClipMedia) -> Value:
        words = _spoken(clip, Language.EN)
        if not isinstance(words, tuple):
            return words
        return error_rate(words[0].split(), words[1].split())


@dataclass(frozen=True, kw_only=True)
class CharacterErrorRate(Metric):
    """Character errors of the dialogue, for prompts in Chinese, given a transcript."""

    better: ClassVar = Better.LOWER
    high: ClassVar = 10.0
    part: ClassVar = "semantic_adherence"
    stream: ClassVar = Stream.AUDIO
    applies_to: ClassVar = (PROMPT,)
    truth: ClassVar = True

    def _value(self, clip: ClipMedia) -> Value:
        words = _spoken(clip, Language.ZH)
        if not isinstance(words, tuple):
            return words
        return error_rate(words[0].replace(" ", ""), words[1].replace(" ", ""))


@dataclass(frozen=True, kw_only=True)
class TextHit(Metric):
    """Share of the writing asked for that was read in the picture, by PP-OCR if by no one else.

    A string counts as read when some stretch of what was seen, of its length, is the same but for
    `max_error` of its characters; spaces do not count.
    """

    version: ClassVar = 2
    better: ClassVar = Better.HIGHER
    part: ClassVar = "subject_description"
    stream: ClassVar = Stream.VIDEO
    applies_to: ClassVar = (PROMPT,)
    truth: ClassVar = True
    max_error: float = 0.2

    def _value(self, clip: ClipMedia) -> Value:
        assert clip.prompt is not None
        asked = [_read_form(text) for text in clip.prompt.screen_text]
        asked = [text for text in asked if text]
        if not asked:
            return NotApplicable("the prompt asks for no writing")
        lines = clip.seen_text
        if lines is None:
            lines = read_writing(clip.stills) if len(clip.stills) else None
        if lines is None:
            return NotMeasured("no picture or no rapidocr to read it, and no text was given")
        seen = [_read_form(text) for text in lines]
        hits = [any(self._holds(s, text) for s in seen) for text in asked]
        return sum(hits) / len(hits)

    def _holds(self, seen: str, text: str) -> bool:
        if not seen:
            return False
        starts = range(max(1, len(seen) - len(text) + 1))
        allowed = int(self.max_error * len(text))
        return any(edit_distance(text, seen[i : i + len(text)]) <= allowed for i in starts)


def _read_form(text: str) -> str:
    folded = unicodedata.normalize("NFKC", text).casefold()
    return "".join(c for c in folded if not c.isspace())
