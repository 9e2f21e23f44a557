"""Amounts of media and the conservation law over them: in = kept + rejected + failed."""

from __future__ import annotations

import math
from typing import Annotated

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, model_validator

from reelmill.errors import ConservationError

Count = Annotated[int, Field(ge=0)]
DEFECT = "This is a defect of Reelmill; no figure of this run is to be trusted."


class Record(BaseModel):
    """Base of the records: unknown fields, NaN and later changes are errors."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, serialize_by_alias=True
    )


class Amount(Record):
    """How much: a count of units, their seconds of media, their bytes."""

    count: Count = 0
    seconds: float = Field(default=0.0, ge=0)
    bytes: Count = 0

    def __add__(self, other: Amount) -> Amount:
        return Amount(
            count=self.count + other.count,
            seconds=self.seconds + other.seconds,
            bytes=self.bytes + other.bytes,
        )

    def agrees(self, other: Amount) -> bool:
        """Equal, seconds up to the rounding of long sums."""
        return (
            self.count == other.count
            and self.bytes == other.bytes
            and math.isclose(self.seconds, other.seconds, rel_tol=1e-6, abs_tol=1e-3)
        )

    def __str__(self) -> str:
        return f"{self.count} ({self.seconds:.3f} s, {self.bytes} bytes)"


class Tally(Record):
    """What came in and what became of it. `into` is `in` in JSON."""

    into: Amount = Field(
        validation_alias=AliasChoices("in", "into"), serialization_alias="in", default=Amount()
    )
    kept: Amount = Amount()
    rejected: Amount = Amount()
    failed: Amount = Amount()

    @model_validator(mode="after")
    def _conserves(self) -> Tally:
        total = self.kept + self.rejected + self.failed
        if not self.into.agrees(total):
            raise ConservationError(
                f"{self.into} came in, but {self.kept} kept + {self.rejected} rejected + "
                f"{self.failed} failed make {total}. {DEFECT}"
            )
        return self

    def __add__(self, other: Tally) -> Tally:
        return Tally(
            into=self.into + other.into,
            kept=self.kept + other.kept,
            rejected=self.rejected + other.rejected,
            failed=self.failed + other.failed,
        )
