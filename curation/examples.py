"""Which units a report shows: kept, rejected, on the edge of a bound, failed; with previews.

The choice is a function of the unit ids, so that equal runs show equal galleries.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from reelmill.curation.crew import Crew
from reelmill.curation.level import Level
from reelmill.curation.marks import Mark, marks_of
from reelmill.curation.policy import Decisions
from reelmill.curation.preview import Preview, find_preview, make_preview
from reelmill.curation.stage import Bound, Stage
from reelmill.curation.units import STATUS
from reelmill.curation.workers import Lost
from reelmill.datasets.ingest.remote import file_name
from reelmill.datasets.manifest import printable
from reelmill.datasets.media.decode import MediaInfo
from reelmill.datasets.sample import KEPT, Clip, Status
from reelmill.datasets.workspace import Workspace, writing
from reelmill.reports import schema

A_GROUP = 6
PREVIEWS = 48


@dataclass
class Gallery:
    """Examples of all stages of a run, sharing one budget of previews.

    wanted: what a preview is made of, by clip. clip_of: the clip that an example shows, by id.
    """

    workspace: Workspace
    run: Path
    workers: Crew
    wanted: dict[str, tuple[Path, MediaInfo, Clip, tuple[Mark, ...]]] = field(default_factory=dict)
    clip_of: dict[str, str] = field(default_factory=dict)

    def examples(
        self, level: Level, stage: Stage, decisions: Decisions, rows: np.ndarray
    ) -> list[schema.Example]:
        """Examples of the units `rows` that came into a stage, without previews as yet."""
        found = []
        for group, chosen in _groups(stage, decisions, rows):
            found += [self._example(level, stage, decisions, row, group, b) for row, b in chosen]
        return found

    def _example(
        self,
        level: Level,
        stage: Stage,
        decisions: Decisions,
        row: int,
        group: schema.Group,
        near: Bound | None,
    ) -> schema.Example:
        units = decisions.units
        clip = units.clips[row]
        asset = level.by_id[clip.asset]
        ended, verdict = decisions.ended.get(row, ("", None))
        here = verdict if ended == stage.name and verdict is not None else KEPT
        value, bound = here.value, here.bound
        if here is KEPT and near is not None:
            value, bound = float(units.columns[near.fact].values[row]), str(near)
        shown = units.ids[row] if decisions is level.clip_decisions else asset.id
        info = level.infos[clip.asset]
        marks = marks_of(units.columns, row, info)
        self._want(shown, Path(asset.path), info, clip, marks)
        return schema.Example(
            id=shown,
            path=printable(file_name(asset.name)),
            outcome=here.outcome.value,
            group=group,
            reason=here.reason,
            value=value,
            bound=bound,
            detail=here.detail,
            start=clip.start_us / 1e6,
            end=clip.end_us / 1e6,
            facts=_facts(stage, decisions, row),
        )

    def _want(
        self, shown: str, path: Path, info: MediaInfo, clip: Clip, marks: tuple[Mark, ...]
    ) -> None:
        known = clip.id in self.wanted
        if clip.end_frame > clip.start_frame and (known or len(self.wanted) < PREVIEWS):
            self.wanted[clip.id] = (path, info, clip, marks)
            self.clip_of[shown] = clip.id

    def illustrate(self, stages: Sequence[schema.StageReport]) -> list[schema.StageReport]:
        """The stages with previews of their examples, made by the workers where there are none."""
        folder = self.workspace.previews
        made = {clip: find_preview(folder, *item[2:]) for clip, item in self.wanted.items()}
        lacking = [clip for clip, preview in made.items() if preview is None]
        found = self.workers.map(
            make_preview,
            [(folder, *self.wanted[clip]) for clip in lacking],
            name=lambda i: f"preview of clip {lacking[i]}",
        )
        for clip, preview in zip(lacking, found, strict=True):
            made[clip] = None if isinstance(preview, Lost) else preview
        brought = {clip: self._brought(preview) for clip, preview in made.items()}

        def shown(example: schema.Example) -> schema.Example:
            preview = brought.get(self.clip_of.get(example.id, ""), schema.Preview())
            return example.model_copy(update={"preview": preview})

        return [
            stage.model_copy(update={"examples": [shown(e) for e in stage.examples]})
            for stage in stages
        ]

    def _brought(self, preview: Preview | None) -> schema.Preview:
        if preview is None:
            return schema.Preview()
        return schema.Preview(
            poster=self._bring(preview.poster), player=self._bring(preview.player)
        )

    def _bring(self, file: Path | None) -> str | None:
        """Puts a preview into the run's folder, which must be complete in itself."""
        if file is None:
            return None
        target = self.run / "previews" / file.name
        with writing(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            if not target.exists():
                try:
                    os.link(file, target)
                except OSError:
                    shutil.copyfile(file, target)
        return str(target.relative_to(self.run))


def _facts(stage: Stage, decisions: Decisions, row: int) -> dict[str, schema.Value | None]:
    found: dict[str, schema.Value | None] = {}
    for fact in stage.adds:
        column = decisions.units.columns.get(fact.name)
        if column is None:
            continue
        value, status = column.values[row], STATUS[column.status[row]]
        if status == Status.MEASURED:
            found[fact.name] = str(value)[:400] if fact.dtype is str else round(float(value), 6)
        else:
            why = column.why.get(row, "")
            found[fact.name] = f"{status}: {why}" if why else str(status)
    return found


def _groups(
    stage: Stage, decisions: Decisions, rows: np.ndarray
) -> list[tuple[schema.Group, list[tuple[int, Bound | None]]]]:
    drawn = decisions.units.drawn[rows]
    ordered = rows[np.argsort(drawn, kind="stable")]
    here = decisions.ended_in(stage.name)[ordered]
    kept, rejected, failed = (
        ordered[here == code] for code in (0, decisions.REJECTED, decisions.FAILED)
    )
    return [
        ("borderline", _borderline(stage, decisions, np.concatenate([kept, rejected]))),
        ("rejected", [(int(row), None) for row in rejected[:A_GROUP]]),
        ("kept", [(int(row), None) for row in kept[:A_GROUP]]),
        ("failed", [(int(row), None) for row in failed[:A_GROUP]]),
    ]


def _borderline(
    stage: Stage, decisions: Decisions, rows: np.ndarray
) -> list[tuple[int, Bound | None]]:
    """The nearest units on both sides of each bound that has units on both, with that bound."""
    chosen: dict[int, Bound | None] = {}
    for bound in stage.bounds().values():
        column = decisions.units.columns.get(bound.fact)
        if column is None or bound.value is None or not len(rows):
            continue
        values = column.values[rows].astype(float)
        measured = ~np.isnan(values)
        distance = np.abs(values - bound.value)
        sides = (bound.holds(values) & measured, ~bound.holds(values) & measured)
        if all(side.any() for side in sides):
            for side in sides:
                ranked = np.argsort(np.where(side, distance, np.inf), kind="stable")
                for place in ranked[: min(A_GROUP // 2, int(side.sum()))]:
                    chosen.setdefault(int(rows[place]), bound)
    return list(chosen.items())[: 2 * A_GROUP]
