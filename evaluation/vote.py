"""Votes of people: two clips side by side, or one clip on five scales."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

OVERALL = "overall"
Likert = Annotated[int, Field(ge=1, le=5)]
Name = Annotated[str, Field(min_length=1, max_length=200)]


class Choice(StrEnum):
    LEFT = "left"
    SAME = "same"
    RIGHT = "right"


class _Vote(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    rater: Name
    prompt: Name
    seed: int = 0
    at: float = 0.0  # seconds since the epoch
    seconds: float = 0.0  # that the rater took


class PairVote(_Vote):
    """One rater's word on two clips of one prompt.

    left, right: systems. choices: by dimension of the taxonomy, and `overall`. gold: the side of
    the undamaged clip where a clip stands against its damaged self (then left == right).
    """

    left: Name
    right: Name
    choices: Mapping[str, Choice]
    gold: Choice | None = None


class ScaleVote(_Vote):
    """One rater's Likert scores of one clip, 1 to 5, by dimension of the taxonomy."""

    system: Name
    scores: Mapping[str, Likert]
