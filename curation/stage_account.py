"""Accounting for one stage: what came in, what became of it and why, from the decisions alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from reelmill.curation.balance import Balance
from reelmill.curation.examples import Gallery
from reelmill.curation.level import Level
from reelmill.curation.measure import DECODE
from reelmill.curation.policy import Decisions
from reelmill.curation.quota_grid import quota_grid
from reelmill.curation.stage import Bound, Segmenter, Stage
from reelmill.curation.units import MEASURED, NOT_APPLICABLE, NOT_MEASURED, Column
from reelmill.reports.histogram import Histogram
from reelmill.reports.schema import (
    Amount,
    BoundReport,
    Category,
    NoValues,
    OutcomeName,
    ReasonCount,
    Reviewed,
    StageReport,
    Tally,
)
from reelmill.reports.votes import Vote, reviewed

# Text facts that sort clips into few kinds; others, such as a transcript, are no categories.
CATEGORIES = frozenset(
    {"codec", "pixel_format", "container", "audio_codec", "language", "sound_class", "camera"}
)
LISTED = 24


@dataclass
class Ledgered:
    """One level's decisions with what each unit weighs: seconds and bytes of media."""

    stages: Sequence[Stage]
    decisions: Decisions
    seconds: np.ndarray
    bytes: np.ndarray

    def amount(self, rows: Sequence[int] | np.ndarray) -> Amount:
        chosen = np.asarray(rows, dtype=np.int64)
        return Amount(
            count=len(chosen),
            seconds=float(self.seconds[chosen].sum()),
            bytes=int(self.bytes[chosen].sum()),
        )

    def into(self, index: int) -> np.ndarray:
        """Rows that came into the stage at `index`, ascending."""
        earlier = {stage.name for stage in self.stages[:index]}
        mask = np.ones(len(self.decisions.units), dtype=bool)
        mask[[row for row, (name, _) in self.decisions.ended.items() if name in earlier]] = False
        return np.flatnonzero(mask)


def asset_level(level: Level) -> Ledgered:
    units = level.asset_decisions.units
    seconds = [
        clip.seconds or float(level.infos[clip.asset].seconds or 0.0) for clip in units.clips
    ]
    sizes = [level.by_id[clip.asset].bytes for clip in units.clips]
    return Ledgered(
        level.asset_stages, level.asset_decisions, np.array(seconds), np.array(sizes, np.int64)
    )


def clip_level(level: Level) -> Ledgered:
    """A clip's bytes are its share, by length, of its asset's."""
    units = level.clips.units
    whole = {c.asset: c.seconds for c in level.asset_decisions.units.clips}
    sizes = [
        round(level.by_id[c.asset].bytes * (c.seconds / whole[c.asset] if whole[c.asset] else 1))
        for c in units.clips
    ]
    seconds = np.array([clip.seconds for clip in units.clips])
    return Ledgered(level.clip_stages, level.clips, seconds, np.array(sizes, np.int64))


def stage_report(
    level: Level, held: Ledgered, index: int, gallery: Gallery, votes: Sequence[Vote] = ()
) -> StageReport:
    """votes: of reviewers, on whatever stages and runs."""
    stage, decisions = held.stages[index], held.decisions
    rows = held.into(index)
    here = decisions.ended_in(stage.name)
    rejected, failed = (np.flatnonzero(here == c) for c in (decisions.REJECTED, decisions.FAILED))
    through = rows[here[rows] != decisions.FAILED]
    by_reason: dict[str, list[int]] = {}
    for row in rejected.tolist():
        by_reason.setdefault(decisions.ended[row][1].reason, []).append(row)
    # A stage whose units all failed elsewhere, or a TableStage, has no columns.
    columns = [
        decisions.units.columns[f.name] for f in stage.adds if f.name in decisions.units.columns
    ]
    status = [column.status[through] for column in columns]
    measured = min(level.measured.get(stage.name, 0), len(rows))
    return StageReport(
        name=stage.name,
        recipe=str(level.recipe.kind),
        shape=next(c.__name__ for c in type(stage).__mro__[1:] if c.__name__.endswith("Stage")),
        unit="asset"
        if held.stages is level.asset_stages or stage in level.asset_stages
        else "clip",
        doc=(type(stage).__doc__ or "").strip().split("\n\n")[0].replace("\n", " "),
        paper=stage.paper,
        fields={
            f.name: _plain(getattr(stage, f.name))
            for f in fields(stage)
            if not isinstance(getattr(stage, f.name), Bound)
        },
        bounds=[_bound(name, bound, decisions, through) for name, bound in stage.bounds().items()],
        tally=Tally(
            into=held.amount(rows),
            kept=held.amount(rows[here[rows] == 0]),
            rejected=held.amount(rejected),
            failed=held.amount(failed),
        ),
        cost_seconds=level.clock.seconds.get(stage.name, 0.0)
        + (level.clock.seconds.get(DECODE, 0.0) if isinstance(stage, Segmenter) else 0.0),
        measured=measured,
        reused=len(rows) - measured,
        no_value=_no_values(status),
        reasons=[
            ReasonCount(
                reason=reason,
                **held.amount(some).model_dump(),
                only=sum(decisions.only(row) for row in some),
            )
            for reason, some in sorted(by_reason.items())
        ],
        histograms=[
            _histogram(stage, column, decisions, through)
            for column in columns
            if column.fact.dtype is not str
        ],
        categories=[
            _category(column, decisions, through)
            for column in columns
            if column.fact.name in CATEGORIES
        ],
        quotas=quota_grid(stage, decisions.units.table(through), here[through] == 0)
        if isinstance(stage, Balance)
        else None,
        reviewed=_reviewed(level, held, stage, rows, votes),
        examples=gallery.examples(level, stage, decisions, rows),
    )


def _category(column: Column, decisions: Decisions, rows: np.ndarray) -> Category:
    valued = rows[column.status[rows] == MEASURED]
    names, place = np.unique(column.values[valued].astype(str), return_inverse=True)
    counts = np.bincount(place, minlength=len(names))
    shipped = np.bincount(place[decisions.alive[valued]], minlength=len(names))
    order = np.argsort(-counts, kind="stable")
    listed, rest = order[:LISTED], order[LISTED:]
    return Category(
        fact=column.fact.name,
        what=column.fact.what,
        counts={str(names[i]): int(counts[i]) for i in listed},
        shipped={str(names[i]): int(shipped[i]) for i in listed},
        other=int(counts[rest].sum()),
        other_shipped=int(shipped[rest].sum()),
    )


def _reviewed(
    level: Level, held: Ledgered, stage: Stage, rows: np.ndarray, votes: Sequence[Vote]
) -> dict[OutcomeName, Reviewed]:
    """Votes on verdicts that this run gives again."""
    slug = f"{level.recipe.kind}-{stage.name}"
    own = [vote for vote in votes if vote.stage == slug]
    if not own:
        return {}
    named, decisions = {vote.unit for vote in own}, held.decisions
    here, units = decisions.ended_in(stage.name), decisions.units
    names = {0: "kept", decisions.REJECTED: "rejected"}
    shown = units.ids if decisions is level.clip_decisions else [i[:16] for i in units.ids]
    outcomes = {
        shown[row]: names[int(here[row])]
        for row in rows.tolist()
        if shown[row] in named and int(here[row]) in names
    }
    return reviewed(own, outcomes)


def _no_values(status: Sequence[np.ndarray]) -> NoValues:
    if not status:
        return NoValues()
    table = np.stack(status)
    absent = (table == NOT_MEASURED).all(axis=0)
    void = ~absent & (table != MEASURED).all(axis=0)
    return NoValues(not_applicable=int(void.sum()), not_measured=int(absent.sum()))


def _plain(value: Any) -> Any:
    return value if isinstance(value, bool | int | float | str | None) else str(value)


def _bound(name: str, bound: Bound, decisions: Decisions, rows: np.ndarray) -> BoundReport:
    broken = None
    column = decisions.units.columns.get(bound.fact)
    if column is not None:
        broken = int((~bound.holds(column.values[rows])).sum())
    return BoundReport(
        field=name,
        fact=bound.fact,
        op=bound.op,
        value=bound.value,
        reason=bound.reason,
        broken=broken,
    )


def _histogram(stage: Stage, column: Column, decisions: Decisions, rows: np.ndarray) -> Histogram:
    fact = column.fact
    status = column.status[rows]
    valued = rows[status == MEASURED]
    rejected = decisions.ended_in(stage.name)[valued] == decisions.REJECTED
    only = rejected & decisions.only_by(stage.name, fact.name, valued)
    op = next((b.op for b in stage.bounds().values() if b.fact == fact.name), "")
    return Histogram.of(
        fact.name,
        column.values[valued],
        rejected,
        low=-0.5 if fact.dtype is bool else fact.low,
        high=1.5 if fact.dtype is bool else fact.high,
        bins=2 if fact.dtype is bool else 40,
        log=fact.log,
        op=op,
        shipped=decisions.alive[valued],
        only=only,
        unit=fact.unit,
        what=fact.what,
        not_applicable=int((status == NOT_APPLICABLE).sum()),
        not_measured=int(((status != MEASURED) & (status != NOT_APPLICABLE)).sum()),
    )
