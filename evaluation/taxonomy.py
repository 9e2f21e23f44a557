"""The taxonomy of SkyReels-VABench (paper section 5.2, table 2), as data in taxonomy.yaml."""

from __future__ import annotations

from enum import StrEnum
from functools import cache
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict

LIKERT = (
    "extremely dissatisfied",
    "dissatisfied",
    "neutral",
    "satisfied",
    "extremely satisfied",
)


class Stream(StrEnum):
    VIDEO = "video"
    AUDIO = "audio"
    BOTH = "both"


class SubDimension(BaseModel):
    """One of the 26. asks: what a rater judges, in one sentence."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: str
    stream: Stream
    asks: str


class Dimension(BaseModel):
    """One of the five."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: str
    asks: str
    parts: tuple[SubDimension, ...]


@cache
def dimensions() -> tuple[Dimension, ...]:
    """The five dimensions in the paper's order."""
    rows = yaml.safe_load(Path(__file__).with_name("taxonomy.yaml").read_text("utf-8"))
    return tuple(Dimension.model_validate(row) for row in rows)


@cache
def dimension_of(part: str) -> str:
    """Name of the dimension that a sub-dimension belongs to. Raises KeyError for no such part."""
    for dimension in dimensions():
        if any(sub.name == part for sub in dimension.parts):
            return dimension.name
    raise KeyError(part)
