"""What was printed into a still afterwards: dates, marks of owners, logos."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar

from reelmill.curation.image.logo import logos
from reelmill.curation.stage import (
    Bound,
    ClipMedia,
    ClipStage,
    Fact,
    Facts,
    NotApplicable,
    NotMeasured,
    NoValue,
    WeightsStore,
    at_most,
)
from reelmill.datasets.sample import Kind

EDGE = 0.25  # of width and height: where cameras print their stamps
DATE = re.compile(r"\d{1,4}[-./:']\s?\d{1,2}[-./:']\s?\d{1,4}|'\d\d\s\d{1,2}\s\d{1,2}|\d{1,2}:\d\d")
DIGITS = 0.6  # of a stamp's letters and digits
OWNER = re.compile(
    r"©|\(c\)|copyright|all\s?rights|www\.|https?:|\.(com|net|org|cn|de|ru|jp)\b|@\w{3}|"
    r"shutterstock|adobe\s?stock|\bi?stock\b|getty\s?images|alamy|dreamstime|depositphotos|123rf|"
    r"watermark|company\s?name|photo(graphy)?\s?by",
    re.IGNORECASE,
)
MARGIN = 0.15  # of a line's box, above and below its letters
Box = tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Stamps(ClipStage):
    """Dates that a camera printed, marks of agencies and owners, logos; each with its boxes.

    Stamps are lines of mostly digits with a date or time, near a side of the picture; marks are
    lines that name an agency, an address or a right. Both go by the lines that Text read. Logos are
    opaque drawings in a corner (reelmill.curation.image.logo). Every one rejects, for its reason.
    """

    kinds: ClassVar = frozenset({Kind.IMAGE})
    needs: ClassVar = ("text", "text_boxes")
    adds: ClassVar = (
        Fact("stamps", "", "Dates and times printed at a side.", 0, 5, int),
        Fact("stamp_boxes", "", "Left, top, right, bottom, 0 to 1, of each.", dtype=str),
        Fact("watermarks", "", "Lines that name an owner.", 0, 10, int),
        Fact("watermark_boxes", "", "Their boxes.", dtype=str),
        Fact("logos", "", "Opaque drawings in corners.", 0, 4, int),
        Fact("logo_boxes", "", "Their boxes.", dtype=str),
    )
    paper: ClassVar = "section 3.4, images: watermarks, stamps, logos"
    height: int = 512
    max_stamps: Bound = at_most(0, "stamps", "stamp")
    max_watermarks: Bound = at_most(0, "watermarks", "watermark")
    max_logos: Bound = at_most(0, "logos", "logo")

    @contextmanager
    def session(
        self, weights: WeightsStore
    ) -> Iterator[Callable[[Sequence[ClipMedia]], list[Facts]]]:
        yield lambda clips: [self._facts(clip) for clip in clips]

    def _facts(self, media: ClipMedia) -> Facts:
        found: dict[str, Sequence[Box] | NoValue] = {}
        words, places = (media.facts[name] for name in self.needs)
        if isinstance(words, NotMeasured):
            found = {"stamp": words, "watermark": words}
        else:
            lines = read_lines(words, places)
            found["stamp"] = [_letters(box) for text, box in lines if is_stamp(text, box)]
            found["watermark"] = [_letters(box) for text, box in lines if OWNER.search(text)]
        found["logo"] = logos(media.frames(1.0, self.height)[0])
        facts: dict[str, int | str | NoValue] = {}
        for name, boxes in found.items():
            if isinstance(boxes, NoValue):
                facts |= {f"{name}s": boxes, f"{name}_boxes": boxes}
                continue
            text = ";".join(" ".join(f"{side:.4f}" for side in box) for box in boxes)
            facts |= {f"{name}s": len(boxes), f"{name}_boxes": text or NotApplicable("none")}
        return facts


def read_lines(words: object, places: object) -> list[tuple[str, Box]]:
    """Lines with their boxes, of Text's facts; none where it found none."""
    if not (isinstance(words, str) and isinstance(places, str)):
        return []
    boxes = [tuple(float(side) for side in box.split()) for box in places.split(";")]
    return list(zip(words.split("\n"), boxes, strict=False))


def _letters(box: Box) -> Box:
    """The box of the letters themselves: PP-OCR leaves a margin above and below them."""
    left, top, right, bottom = box
    margin = MARGIN * (bottom - top)
    return left, top + margin, right, bottom - margin


def is_stamp(text: str, box: Box) -> bool:
    """Whether a line is a date or time that stands near a side."""
    letters = [c for c in text if c.isalnum()]
    left, top, right, bottom = box
    at_side = bottom <= EDGE or top >= 1 - EDGE or right <= EDGE or left >= 1 - EDGE
    digits = sum(map(str.isdigit, letters))
    return at_side and bool(DATE.search(text)) and digits >= DIGITS * len(letters)
