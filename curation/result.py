"""What a curation run came to, in the form that the command line prints."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from reelmill.datasets.sample import Outcome
from reelmill.errors import ConservationError


@dataclass(frozen=True)
class Count:
    """The conservation law over one kind of thing: what came in and what became of it."""

    into: int
    kept: int
    rejected: int
    failed: int

    def __post_init__(self) -> None:
        if self.into != self.kept + self.rejected + self.failed:
            raise ConservationError(
                f"{self.into} came in, but {self.kept} kept + {self.rejected} rejected + "
                f"{self.failed} failed make {self.kept + self.rejected + self.failed}. This is a "
                "defect of Reelmill; no figure of this run is to be trusted."
            )

    @classmethod
    def of(cls, outcomes: list[Outcome]) -> Count:
        return cls(len(outcomes), *(outcomes.count(outcome) for outcome in Outcome))

    def __add__(self, other: Count) -> Count:
        return Count(
            self.into + other.into,
            self.kept + other.kept,
            self.rejected + other.rejected,
            self.failed + other.failed,
        )

    def to_json(self) -> dict[str, int]:
        return {
            "in": self.into, "kept": self.kept, "rejected": self.rejected, "failed": self.failed
        }  # fmt: skip

    def __str__(self) -> str:
        return f"{self.into} = {self.kept} kept + {self.rejected} rejected + {self.failed} failed"


@dataclass(frozen=True)
class CurateResult:
    """Of one run. redone: units measured by this run, of those that needed a measurement.

    over_budget: what exceeded the failure budget, in words; empty when within. joined: where short
    clips of sound are joined, and how many: clips = parts (in `joined` samples) + alone.
    """

    run: str
    workspace: str
    report: str
    shards: tuple[str, ...]
    files: Count
    assets: Count
    clips: Count
    seconds: float
    redone: int
    over_budget: str = ""
    notes: tuple[str, ...] = ()
    joined: Mapping[str, str | int] | None = None

    @property
    def exit_code(self) -> int:
        """0, or 3 when more failed than the recipe's budget allows."""
        return 3 if self.over_budget else 0

    def to_json(self) -> str:
        """One line of JSON (DESIGN section 10)."""
        data = asdict(self) | {
            "files": self.files.to_json(),
            "assets": self.assets.to_json(),
            "clips": self.clips.to_json(),
            "seconds": round(self.seconds, 3),
        }
        return json.dumps(data)
