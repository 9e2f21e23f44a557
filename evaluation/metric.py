"""A metric: one number about one clip, with its unit, its direction and when it applies.

None of the metrics here is in the paper, which reports people's votes alone (section 5.2).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, ClassVar

from reelmill.datasets.sample import NotApplicable, NotMeasured, NoValue
from reelmill.evaluation.clip import ClipMedia
from reelmill.evaluation.damage import Damage
from reelmill.evaluation.taxonomy import Stream


class Better(StrEnum):
    """Which way a metric points. `neither`: it describes, so it ranks nothing."""

    HIGHER = "higher"
    LOWER = "lower"
    ZERO = "nearest to zero"
    NEITHER = "neither"


Value = float | NotApplicable | NotMeasured


@dataclass(frozen=True, slots=True)
class Condition:
    """What a clip must have for a metric to apply."""

    what: str
    holds: Callable[[ClipMedia], bool]


PICTURE = Condition("a picture", lambda clip: len(clip.times) > 0)
MOTION = Condition("at least 5 frames", lambda clip: len(clip.times) >= 5)
SOUND = Condition("sound", lambda clip: clip.samples.shape[1] >= clip.rate // 10 > 0)
AUDIBLE = Condition("sound above -70 dBFS", lambda clip: clip.mean_square > 1e-7)
STEREO = Condition("two channels", lambda clip: len(clip.samples) == 2)
PROMPT = Condition("a prompt of the bench", lambda clip: clip.prompt is not None)


@dataclass(frozen=True, kw_only=True)
class Metric(ABC):
    """Base of the metrics. Subclasses are frozen dataclasses; their fields are their config.

    version:    raise it when the same clip and fields would give another number.
    unit, low, high: of the value; it never lies outside [low, high].
    part:       the sub-dimension of the taxonomy that it says something about.
    stream:     what it reads.
    applies_to: what a clip must have; else the value is NotApplicable.
    claims:     damages that it must answer to (tests/evaluation hold it to that).
    truth:      it holds a clip against what was asked for, so more of it is better beyond doubt;
                else it is a proxy.
    """

    version: ClassVar[int] = 1
    unit: ClassVar[str] = ""
    better: ClassVar[Better]
    low: ClassVar[float] = 0.0
    high: ClassVar[float] = 1.0
    part: ClassVar[str]
    stream: ClassVar[Stream]
    applies_to: ClassVar[tuple[Condition, ...]] = ()
    claims: ClassVar[frozenset[Damage]] = frozenset()
    truth: ClassVar[bool] = False

    @property
    def name(self) -> str:
        return type(self).__name__

    @property
    def identity(self) -> dict[str, Any]:
        """What a stored value depends on besides the clip and its prompt."""
        return {"metric": self.name, "version": self.version, **asdict(self)}

    def measure(self, clip: ClipMedia) -> Value:
        """The value in `unit`, or why there is none."""
        for condition in self.applies_to:
            if not condition.holds(clip):
                return NotApplicable(f"needs {condition.what}")
        value = self._value(clip)
        if isinstance(value, NoValue):
            return value
        if not math.isfinite(value):
            raise ArithmeticError(f"{self.name} of {clip.path.name} is {value}")
        return min(max(float(value), self.low), self.high)

    @abstractmethod
    def _value(self, clip: ClipMedia) -> Value: ...


def goodness(better: Better, value: float) -> float | None:
    """The value turned so that more is better; None where a metric ranks nothing."""
    match better:
        case Better.HIGHER:
            return value
        case Better.LOWER:
            return -value
        case Better.ZERO:
            return -abs(value)
    return None
