"""What a run reports: `run.json` (RunReport) and `<stage>/stage.json` (StageReport).

The page is rendered from these alone, so everything that it shows is here: no rows, only counts,
fixed-edge histograms and a few examples. All amounts obey the conservation law

    in = kept + rejected + failed       in count, seconds and bytes

at every stage, from stage to stage, and from end to end; what breaks it is ConservationError.
"""

from __future__ import annotations

import re
from datetime import datetime
from itertools import pairwise
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, BeforeValidator, Field, StringConstraints, model_validator

from reelmill.errors import ConservationError
from reelmill.reports.histogram import Histogram, Op, closed_side
from reelmill.reports.tally import DEFECT, Amount, Count, Record, Tally

MAX_FAILURES = 200

Unit = Literal["asset", "clip"]
Group = Literal["kept", "rejected", "borderline", "failed"]
OutcomeName = Literal["kept", "rejected", "failed"]
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9_]{0,63}$")]
Kind = Annotated[str, StringConstraints(pattern=r"^[a-z]{0,16}$")]
_RELATIVE = re.compile(r"^[^\\\x00:]{1,400}$")


def _readable(text: Any) -> Any:
    """Undecodable bytes of a file name (lone surrogates) as `\\udc80`: JSON cannot hold them."""
    if isinstance(text, str):
        return text.encode("utf-8", "backslashreplace").decode("utf-8")
    return text


Text = Annotated[str, BeforeValidator(_readable)]
Value = bool | int | float | Text


def _relative(path: str) -> str:
    parts = PurePosixPath(path).parts
    if not _RELATIVE.match(path) or path.startswith("/") or ".." in parts or not parts:
        raise ValueError(f"{path!r} is not a relative path inside the run's folder")
    return path


class BoundReport(Record):
    """A decision. broken: units that came in, have a value, and break it at this value."""

    field: Name
    fact: str = ""
    op: Annotated[str, StringConstraints(pattern=r"^([<>]=?)?$")] = ""
    value: float | None = None
    reason: Text = ""
    broken: Count | None = None

    def __str__(self) -> str:
        if self.value is None:
            return "off"
        return f"{self.fact} {self.op} {self.value:g}".strip() if self.fact else f"{self.value:g}"


class ReasonCount(Record):
    """Units that a stage rejected for one reason.

    only: of these, how many would have survived otherwise, as far as later stages measured them.
    """

    reason: Text
    count: Count
    seconds: float = Field(default=0.0, ge=0)
    bytes: Count = 0
    only: Count = 0

    @model_validator(mode="after")
    def _part(self) -> ReasonCount:
        if self.only > self.count:
            raise ConservationError(f"{self.reason}: only {self.only} of {self.count}. {DEFECT}")
        return self

    @property
    def amount(self) -> Amount:
        return Amount(count=self.count, seconds=self.seconds, bytes=self.bytes)


class Preview(Record):
    """Files to show, relative to the run's folder. poster: jpg, webp, png; player: mp4, webm,
    m4a, mp3, flac, ogg, wav."""

    poster: str | None = None
    player: str | None = None

    @model_validator(mode="after")
    def _inside(self) -> Preview:
        for path in (self.poster, self.player):
            if path is not None:
                _relative(path)
        return self


class Example(Record):
    """One unit on a card. id: of the clip, or the asset's; path: its source, for display.

    start, end: seconds in the source. value, bound: what the verdict rests on, on a
    borderline card of a kept unit what it nearly broke. facts: of this stage first; a text such as
    `not applicable: no sound` where there is no value.
    """

    id: Text
    path: Text
    outcome: OutcomeName
    group: Group
    reason: Text = ""
    value: Value | None = None
    bound: Text = ""
    detail: Text = ""
    start: float | None = None
    end: float | None = None
    preview: Preview = Preview()
    facts: dict[str, Value | None] = Field(default_factory=dict)


class NoValues(Record):
    """Units of a stage that have no value: neither a pass nor a zero."""

    not_applicable: Count = 0
    not_measured: Count = 0


class Reviewed(Record):
    """Cards of one outcome of a stage, by what their reviewers said of the verdict."""

    agree: Count = 0
    disagree: Count = 0
    unsure: Count = 0

    @property
    def cards(self) -> int:
        return self.agree + self.disagree + self.unsure


class Category(Record):
    """One text fact over the units that came into a stage: counts by value, the most common first.

    shipped: of all units with that value, those that end in the shards. other: values beyond those
    listed.
    """

    fact: str
    what: str = ""
    counts: dict[Text, Count]
    shipped: dict[Text, Count]
    other: Count = 0
    other_shipped: Count = 0


class QuotaCell(Record):
    """Clips of one concept and motion: that came in, that stayed, and that were asked for (None:
    nothing was asked of it alone)."""

    into: Count
    kept: Count
    asked: Count | None = None


class QuotaGrid(Record):
    """Quotas over concepts (rows) and ways of motion (columns). concepts: what each looks like.

    asked: of a whole concept, where its cells are not asked alone. ceiling: what is asked is the
    most that may stay, so that fewer are not short of it.
    """

    concepts: dict[Text, Text]
    motions: list[Text]
    asked: list[Count | None]
    cells: list[list[QuotaCell]]
    ceiling: bool = False

    @model_validator(mode="after")
    def _rectangular(self) -> QuotaGrid:
        if not len(self.concepts) == len(self.asked) == len(self.cells):
            raise ValueError("a grid's rows are as many as its concepts")
        if any(len(row) != len(self.motions) for row in self.cells):
            raise ValueError("a grid's columns are as many as its motions")
        return self

    def total(self, part: Literal["into", "kept"]) -> int:
        return sum(getattr(cell, part) for row in self.cells for cell in row)


class StageReport(Record):
    """One stage of one recipe over the units that came into it.

    recipe: the kind (`video`), or empty for a stage before the kinds part (Ingest). shape: of the
    stage's class, `FrameStage`. doc: first sentence of its docstring. fields: other than bounds.
    cost_seconds: time spent by this run; reused: units read from the ledger; measured: units
    measured now. quotas: of a stage that asks for so many of each kind. reviewed: what reviewers
    said of verdicts of this stage that stand in this run.
    """

    name: Name
    recipe: Kind = ""
    shape: str = ""
    unit: Unit
    doc: Text = ""
    paper: Text = ""
    fields: dict[Name, Any] = Field(default_factory=dict)
    bounds: list[BoundReport] = Field(default_factory=list)
    tally: Tally
    cost_seconds: float = Field(default=0.0, ge=0)
    reused: Count = 0
    measured: Count = 0
    no_value: NoValues = NoValues()
    reasons: list[ReasonCount] = Field(default_factory=list)
    histograms: list[Histogram] = Field(default_factory=list)
    categories: list[Category] = Field(default_factory=list)
    quotas: QuotaGrid | None = None
    reviewed: dict[OutcomeName, Reviewed] = Field(default_factory=dict)
    examples: list[Example] = Field(default_factory=list)

    @property
    def slug(self) -> str:
        """Its folder in the run's folder and its anchor in the page: `video-Blur`."""
        return f"{self.recipe}-{self.name}" if self.recipe else self.name

    @model_validator(mode="after")
    def _accounts(self) -> StageReport:
        reasons = sum((r.amount for r in self.reasons), Amount())
        if not reasons.agrees(self.tally.rejected):
            raise ConservationError(
                f"{self.slug}: {self.tally.rejected} rejected, but its reasons add up to "
                f"{reasons}. {DEFECT}"
            )
        through = self.tally.into.count - self.tally.failed.count
        for h in self.histograms:
            if h.measured + h.valueless != through:
                raise ConservationError(
                    f"{self.slug}: histogram of {h.fact} holds {h.measured} values and "
                    f"{h.valueless} without one, but {through} units came in and did not fail. "
                    f"{DEFECT}"
                )
        if self.quotas is not None:
            grid = (self.quotas.total("into"), self.quotas.total("kept"))
            if grid != (through, self.tally.kept.count):
                raise ConservationError(
                    f"{self.slug}: its quotas hold {grid[0]} units and {grid[1]} kept, but "
                    f"{through} came in and did not fail, {self.tally.kept.count} were kept. "
                    f"{DEFECT}"
                )
        return self


class RecipeText(Record):
    """A recipe as it ran: every field spelt out. hash: sha256 of what decides its result."""

    yaml: Text
    hash: str


class WeightUsed(Record):
    """Pretrained weights that a stage asked for."""

    name: str
    sha256: str = ""
    licence: str = ""
    bundled: bool = False
    absent: bool = False
    stage: Text = ""


class Provenance(Record):
    """How to get the same again. version: of Reelmill; commit: of its source, where known."""

    version: str
    commit: str = ""
    python: str = ""
    platform: Text = ""
    command: Text = ""
    libraries: dict[str, str] = Field(default_factory=dict)
    weights: list[WeightUsed] = Field(default_factory=list)


class FailureReport(Record):
    """A file or clip that failed. cause: corrupt, transient or bug."""

    path: Text
    clip: Text = ""
    stage: Text
    cause: Text
    message: Text = ""


class ShardReport(Record):
    """A shard that the run's result consists of."""

    file: Text
    sha256: str
    bytes: Count
    samples: Count


class Totals(Record):
    """End to end. An asset is kept if at least one of its clips is; files may share an asset."""

    files: Tally = Tally()
    assets: Tally = Tally()
    clips: Tally = Tally()


class RunReport(Record):
    """A run. finished None: the run did not reach its end, and the page says so.

    stages: in order, recipe by recipe. failures: at most MAX_FAILURES of failures_total. notes:
    warnings, shown first. over_budget: which failure budget was exceeded, in words.
    """

    schema_version: Literal[1] = 1
    run: str
    started: AwareDatetime
    finished: AwareDatetime | None = None
    seconds: float = Field(default=0.0, ge=0)
    recipes: dict[Kind, RecipeText] = Field(default_factory=dict)
    provenance: Provenance
    sources: list[Text] = Field(default_factory=list)
    totals: Totals = Totals()
    stages: list[StageReport] = Field(default_factory=list)
    failures: list[FailureReport] = Field(default_factory=list, max_length=MAX_FAILURES)
    failures_total: Count = 0
    shards: list[ShardReport] = Field(default_factory=list)
    notes: list[Text] = Field(default_factory=list)
    over_budget: Text = ""

    @property
    def when(self) -> datetime:
        return self.finished or self.started

    @property
    def kinds(self) -> list[str]:
        """Recipes that have stages, in order."""
        return list(dict.fromkeys(stage.recipe for stage in self.stages if stage.recipe))

    def of_recipe(self, kind: str) -> list[StageReport]:
        return [stage for stage in self.stages if stage.recipe == kind]

    @model_validator(mode="after")
    def _conserves(self) -> RunReport:
        if self.failures_total < len(self.failures):
            raise ValueError(f"failures_total {self.failures_total} < {len(self.failures)} listed")
        slugs = [stage.slug for stage in self.stages]
        if len(set(slugs)) != len(slugs):
            raise ValueError("two stages of one recipe have the same name")
        for kind in self.kinds:
            for a, b in pairwise(self.of_recipe(kind)):
                if a.unit == b.unit and not b.tally.into.agrees(a.tally.kept):
                    raise ConservationError(
                        f"{a.slug} kept {a.tally.kept}, but {b.tally.into} came into {b.slug}. "
                        f"{DEFECT}"
                    )
        if self.finished is not None:
            self._end_to_end()
        return self

    def _end_to_end(self) -> None:
        """The clips' totals are what the clip stages did."""
        staged = Tally()
        for kind in self.kinds:
            tallies = [s.tally for s in self.of_recipe(kind) if s.unit == "clip"]
            if tallies:
                rejected = sum((t.rejected for t in tallies), Amount())
                failed = sum((t.failed for t in tallies), Amount())
                staged += Tally(
                    into=tallies[0].into, kept=tallies[-1].kept, rejected=rejected, failed=failed
                )
        for part in ("into", "kept", "rejected", "failed"):
            total, sum_of_stages = getattr(self.totals.clips, part), getattr(staged, part)
            if not total.agrees(sum_of_stages):
                name = {"into": "in"}.get(part, part)
                raise ConservationError(
                    f"clips {name}: the run says {total}, its stages add up to {sum_of_stages}. "
                    f"{DEFECT}"
                )


__all__ = [
    "MAX_FAILURES",
    "Amount",
    "BoundReport",
    "Category",
    "Example",
    "FailureReport",
    "Histogram",
    "NoValues",
    "Op",
    "Preview",
    "Provenance",
    "QuotaCell",
    "QuotaGrid",
    "ReasonCount",
    "RecipeText",
    "Reviewed",
    "RunReport",
    "ShardReport",
    "StageReport",
    "Tally",
    "Totals",
    "WeightUsed",
    "closed_side",
]
