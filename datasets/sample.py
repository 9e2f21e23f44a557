"""The nouns of the data: asset, clip, outcome, verdict.

An asset is a source file, known by the sha256 of its bytes. A clip is a span of an asset. Stages
measure facts about them; a verdict says what became of them. See DESIGN section 3.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction
from functools import cached_property
from itertools import pairwise

MICRO = 1_000_000


class Kind(StrEnum):
    VIDEO = "video"
    IMAGE = "image"
    AUDIO = "audio"


class Outcome(StrEnum):
    """What became of an asset or clip at a stage. There is no fourth outcome."""

    KEPT = "kept"
    REJECTED = "rejected"
    FAILED = "failed"


class Status(StrEnum):
    """Why a fact has a value, or has none. None of the last three is a pass or a zero."""

    MEASURED = "measured"
    NOT_APPLICABLE = "not applicable"  # no speech, so no transcript
    NOT_MEASURED = "not measured"  # weights absent, or rejected before this stage
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class NoValue:
    """No number, and why. Never a pass, never a zero, never part of a mean."""

    why: str


class NotApplicable(NoValue):
    """There is nothing to measure: no sound, no speech, one frame, no cut asked for."""


class NotMeasured(NoValue):
    """It could be measured, but something is absent: weights, a transcript, a tool."""


@dataclass(frozen=True, slots=True)
class Asset:
    """One source file. Equal bytes at two paths are one asset with two paths.

    sha256: hex digest of the bytes. paths: every path or location it was seen at, sorted. bytes:
    file size. local: where it is read from, if not at the first of its paths. caption: the text
    that belongs to it, if not beside it. columns: what manifests say of it, a JSON list of rows;
    empty for nothing.
    """

    sha256: str
    paths: tuple[str, ...]
    bytes: int
    local: str = ""
    caption: str = ""
    columns: str = ""

    @property
    def path(self) -> str:
        """The path that it is read from."""
        return self.local or self.paths[0]

    @property
    def name(self) -> str:
        """What it is called for people: the first of its paths."""
        return self.paths[0]

    @property
    def id(self) -> str:
        return self.sha256[:16]


@dataclass(frozen=True, order=True)
class Clip:
    """The span [start_pts, end_pts) of an asset, in ticks of `time_base` seconds.

    `origin_pts` is the pts of the asset's first frame: ids count microseconds from there, so that
    a container's start offset does not leak into them. [start_frame, end_frame) are indices in
    decoding order (video; 0 and 1 for an image; sample numbers for audio, where time_base is
    1/rate). An image has no length: start_pts = end_pts = 0. cuts: where it holds several shots,
    the first frame of each but the first, and its pts.
    """

    asset: str
    kind: Kind
    start_pts: int
    end_pts: int
    time_base: Fraction
    origin_pts: int
    start_frame: int
    end_frame: int
    cuts: tuple[tuple[int, int], ...] = ()

    @classmethod
    def known(cls, fields: dict[str, object]) -> Clip:
        """A clip of these fields, `id` among them; quicker, since every run makes every clip."""
        clip = cls.__new__(cls)
        object.__setattr__(clip, "__dict__", fields)
        return clip

    def _us(self, pts: int) -> int:
        base = self.time_base  # in integers: ids are made for every clip of every run
        whole, rest = divmod((pts - self.origin_pts) * base.numerator * MICRO, base.denominator)
        twice = 2 * rest  # halves go to the even number, as round() has it
        up = twice > base.denominator or (twice == base.denominator and whole % 2)
        return whole + bool(up)

    @property
    def start_us(self) -> int:
        return self._us(self.start_pts)

    @property
    def end_us(self) -> int:
        return self._us(self.end_pts)

    @property
    def seconds(self) -> float:
        base = self.time_base
        return (self.end_pts - self.start_pts) * base.numerator / base.denominator

    @property
    def shots(self) -> list[dict[str, float]]:
        """Its shots in order: start and end in seconds and in frames of the clip itself."""
        marks = [(self.start_frame, self.start_pts), *self.cuts, (self.end_frame, self.end_pts)]
        places = [
            (f - self.start_frame, round(float((p - self.start_pts) * self.time_base), 6))
            for f, p in marks
        ]
        return [
            {"start_s": a[1], "end_s": b[1], "start_frame": a[0], "end_frame": b[0]}
            for a, b in pairwise(places)
        ]

    @cached_property
    def id(self) -> str:
        """`<sha256[:16]>_<start_us>_<end_us>`: also the clip's key in a shard."""
        return f"{self.asset[:16]}_{self.start_us}_{self.end_us}"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a stage decided, with what it decided on.

    For `rejected`: reason, value and bound (and `detail`, e.g. the clip that a duplicate lost to).
    For `failed`: reason is the error class (`corrupt`, `transient`, `bug`), detail its message.
    """

    outcome: Outcome
    reason: str = ""
    value: float | str | None = None
    bound: str = ""
    detail: str = ""


KEPT = Verdict(Outcome.KEPT)
