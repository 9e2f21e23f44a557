"""One kind of asset on its way through its recipe: assets first, then clips.

Holds the units and decisions of both levels and asks the passes for what is missing. The engine
drives it step by step; nothing here touches media.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np
import pyarrow.compute as pc

from reelmill.curation.heard import ANSWERS, Heard, answers_folder
from reelmill.curation.keys import KEY_CHARS, digest
from reelmill.curation.measure import DECODE, MediaStage, naming
from reelmill.curation.media_table import CLIPS, clip_row, clips_from, whole_clip
from reelmill.curation.passes import Advance, Clock, Passes
from reelmill.curation.policy import Decisions
from reelmill.curation.recipe import Recipe
from reelmill.curation.stage import (
    AudioStage,
    BoundaryJudge,
    ClipStage,
    FrameStage,
    Segmenter,
    Stage,
    TableStage,
)
from reelmill.curation.uncollected import uncollected
from reelmill.curation.units import Units, facts_row, facts_schema, failed_row
from reelmill.datasets.ledger import Batch, TrackReader, rows_table, tracks_table
from reelmill.datasets.media.decode import MediaInfo
from reelmill.datasets.sample import Asset, Clip, Outcome, Verdict
from reelmill.errors import MediaError

ALL_CLIPS = "*"  # stands for a unit where something is known of all clips together


@dataclass
class Level:
    """A recipe over the assets of its kind. lean: only facts that decide are looked at."""

    recipe: Recipe
    passes: Passes
    assets: list[Asset]
    infos: dict[str, MediaInfo]
    lean: bool = False
    measured: dict[str, int] = field(default_factory=dict)
    asset_decisions: Decisions = field(init=False)
    clip_decisions: Decisions | None = None
    whole: dict[str, Clip] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.assets.sort(key=lambda a: a.sha256)
        nothing = [
            Clip(a.sha256, self.recipe.kind, 0, 0, Fraction(1), 0, 0, 0) for a in self.assets
        ]
        units = Units([a.sha256 for a in self.assets], nothing, self.lean)
        self.asset_decisions = Decisions.start(units)
        self.by_id = {a.sha256: a for a in self.assets}
        name = self.recipe.stages[self.recipe.segmenter].name
        parts = {"stage": self.passes.keys[name], "knobs": self.segmenter.knobs()}
        self.passes.fact_keys[name] = digest(parts)[:KEY_CHARS]

    def read_ahead(self) -> None:
        """What deciding will ask the ledger for is read in the background from now on."""
        self.passes.ledger.read_ahead(self._folders())

    def _folders(self) -> Iterator[str]:
        passes, media = self.passes, self.media_stages
        tracks = [passes.tracks_folder(stage.name) for stage in media]
        decode = [passes.decoded_folder, *tracks, self._spans_folder]
        for stage in self.asset_stages:
            if stage in media:  # the first of them waits for the decode
                yield from decode
                decode = []
            if not isinstance(stage, TableStage):
                yield passes.facts_folder(stage.name)
        yield from decode
        yield self.segments_folder
        for stage in self.clip_stages:
            if not isinstance(stage, TableStage):
                yield passes.facts_folder(stage.name)

    @property
    def clock(self) -> Clock:
        return self.passes.clock

    @property
    def asset_stages(self) -> tuple[Stage, ...]:
        """Stages that see assets: those before the segmenter."""
        return self.recipe.stages[: self.recipe.segmenter]

    @property
    def clip_stages(self) -> tuple[Stage, ...]:
        """Stages that see clips: the segmenter and those after it."""
        return self.recipe.stages[self.recipe.segmenter :]

    @property
    def segmenter(self) -> Segmenter:
        stage = self.recipe.stages[self.recipe.segmenter]
        assert isinstance(stage, Segmenter)
        return stage

    @property
    def listened(self) -> list[Stage]:
        """Other stages whose tracks the segmenter reads."""
        return [stage for stage in self.recipe.stages if stage.name in self.segmenter.listens()]

    @property
    def media_stages(self) -> list[MediaStage]:
        return [s for s in self.recipe.stages if isinstance(s, FrameStage | AudioStage)]

    def alive_assets(self) -> list[Asset]:
        alive = np.flatnonzero(self.asset_decisions.alive)
        return [self.assets[i] for i in alive]

    def _tally(self, stage: str, count: int) -> None:
        self.measured[stage] = self.measured.get(stage, 0) + count

    # What is missing -------------------------------------------------------------------------

    def missing_files(self, stage: Stage) -> list[tuple[Asset, MediaInfo]]:
        """Alive assets that an AssetStage has not measured."""
        alive = self.alive_assets()
        have = self.passes.ledger.has(
            self.passes.facts_folder(stage.name), [a.sha256 for a in alive]
        )
        missing = [a for a, known in zip(alive, have, strict=True) if not known]
        self._tally(stage.name, len(missing))
        return [(a, self.infos[a.sha256]) for a in missing]

    def missing_decodes(self) -> list[tuple[Asset, MediaInfo, list[MediaStage]]]:
        """Alive assets of which some stage has no tracks, with those stages."""
        passes, ledger = self.passes, self.passes.ledger
        bad = self._undecodable()
        alive = [asset for asset in self.alive_assets() if asset.sha256 not in bad]
        names = [asset.sha256 for asset in alive]
        stages = self.media_stages
        have = [ledger.has(passes.tracks_folder(s.name), names) for s in stages]
        whole = np.logical_and.reduce([ledger.has(passes.decoded_folder, names), *have])
        work = []
        for row in np.flatnonzero(~whole):
            lacking = [s for s, known in zip(stages, have, strict=True) if not known[row]]
            work.append((alive[row], self.infos[names[row]], lacking))
            for stage in lacking:
                self._tally(stage.name, 1)
        self._tally(DECODE, len(work))
        return work

    def missing_clips(self, stage: ClipStage, *, measure_all: bool) -> list[int]:
        """Rows of clips that a ClipStage must measure: those alive, or all that did not fail."""
        decisions = self.clips
        have = self.passes.ledger.has(self.passes.facts_folder(stage.name), decisions.units.names)
        wanted = decisions.alive.copy()
        if measure_all:
            wanted[:] = True
            for row, (_, verdict) in decisions.ended.items():
                wanted[row] = verdict.outcome != Outcome.FAILED
        rows = [int(r) for r in np.flatnonzero(wanted & ~have)]
        self._tally(stage.name, len(rows))
        return rows

    # Deciding --------------------------------------------------------------------------------

    @property
    def clips(self) -> Decisions:
        assert self.clip_decisions is not None, "segment() comes first"
        return self.clip_decisions

    @uncollected()
    def decide(self, stage: Stage) -> None:
        """Loads a stage's facts and applies its bounds, at the level that the stage sees."""
        decisions = self.asset_decisions if stage in self.asset_stages else self.clips
        if not isinstance(stage, TableStage):
            ledger, folder = self.passes.ledger, self.passes.facts_folder(stage.name)
            rows = ledger.rows(folder, decisions.units.names)
            decisions.units.load(stage, ledger.table(folder), rows)
        passing = {u: m for (name, u), m in self.passes.transient.items() if name == stage.name}
        if passing:
            errors = decisions.units.errors[stage.name]
            for row, unit in enumerate(decisions.units.ids):
                if unit in passing:
                    errors[row] = ("transient", passing[unit])
        with self.clock.of(stage.name):
            findings = self._findings(stage) if isinstance(stage, TableStage) else None
            decisions.apply(stage, findings)

    def _findings(self, stage: TableStage) -> Mapping[str, np.ndarray] | None:
        """What a TableStage finds over all clips, from the ledger or else into it."""
        units, ledger = self.clips.units, self.passes.ledger
        if type(stage).compare is TableStage.compare or not len(units):
            return None
        columns = {n: units.columns[n].digest() for n in stage.needs if n in units.columns}
        knobs = {name: bound.value for name, bound in stage.bounds().items()}
        key = digest(
            {
                "stage": self.passes.keys[stage.name],
                "knobs": knobs,
                "clips": digest(units.ids),
                "facts": columns,
                "beside": stage.beside(),
            }
        )
        folder = f"tracks/{stage.name}/{key[:KEY_CHARS]}"
        reader = TrackReader(ledger, folder)
        if ALL_CLIPS in reader:
            return reader[ALL_CLIPS]
        found = stage.compare(units.table(np.arange(len(units))))
        if not self.passes.transient:  # else clips may be missing that the next run has again
            batch = Batch()
            batch.add(folder, tracks_table(ALL_CLIPS, found))
            ledger.commit(batch)
        return found

    def _undecodable(self) -> dict[str, tuple[str, str]]:
        table = self.passes.ledger.table(self.passes.decoded_folder)
        found = {
            unit: ("transient", message)
            for (name, unit), message in self.passes.transient.items()
            if name == DECODE
        }
        if table is not None:
            failed = table.filter(pc.is_valid(table["cause"]))
            units, causes, messages = (
                failed[name].to_pylist() for name in ("unit", "cause", "message")
            )
            found |= dict(zip(units, zip(causes, messages, strict=True), strict=True))
        return found

    @uncollected()
    def after_decode(self) -> None:
        """Fails what would not decode, and learns each asset's whole span."""
        first = next((s for s in self.media_stages), self.recipe.stages[0])
        bad = self._undecodable()
        units = self.asset_decisions.units
        name = first.name if first in self.asset_stages else self.recipe.stages[0].name
        for row in np.flatnonzero(self.asset_decisions.alive):
            if (asset := units.ids[row]) in bad:
                cause, message = bad[asset]
                verdict = Verdict(Outcome.FAILED, cause, detail=message)
                self.asset_decisions.end(int(row), name, verdict)
        alive = np.flatnonzero(self.asset_decisions.alive)
        spans = self._spans([units.ids[row] for row in alive])
        for row in alive:
            units.clips[row] = spans[units.ids[row]]

    @property
    def _spans_folder(self) -> str:
        return f"ledger/spans/{self.passes.decode_key}"

    def _spans(self, assets: Sequence[str]) -> dict[str, Clip]:
        """The whole span of each asset; those that the ledger lacks are read from its decode."""
        ledger, folder = self.passes.ledger, self._spans_folder
        missing = [assets[i] for i in np.flatnonzero(~ledger.has(folder, assets))]
        if missing:
            reader = TrackReader(ledger, self.passes.decode_tracks)
            found = [
                whole_clip(missing[i], self.infos[missing[i]], reader[missing[i]])
                for i in reader.sorted_by_file(missing)
            ]
            batch = Batch()
            batch.add(folder, rows_table((clip_row(c.asset, c) for c in found), CLIPS))
            ledger.commit(batch)
        table = ledger.table(folder)
        of_asset = clips_from(table, self.recipe.kind) if table is not None else {}
        return {asset: clips[0] for asset, clips in of_asset.items()}

    def derive(self, stage: MediaStage, *, without: Collection[str] = ()) -> None:
        """Facts of a media stage, from its tracks, for units that the ledger lacks.

        without: assets that are left out; every other must have tracks.
        """
        on_assets = stage in self.asset_stages
        decisions = self.asset_decisions if on_assets else self.clips
        units = decisions.units
        wanted = ~self.passes.ledger.has(self.passes.facts_folder(stage.name), units.names)
        if on_assets:
            wanted &= decisions.alive
        missing = [r for r in np.flatnonzero(wanted) if units.clips[r].asset not in without]
        if not missing:
            return
        reader = TrackReader(self.passes.ledger, self.passes.tracks_folder(stage.name))
        rows = []
        with self.clock.of(stage.name):
            for place in reader.sorted_by_file([units.clips[r].asset for r in missing]):
                unit, clip = units.ids[missing[place]], units.clips[missing[place]]
                path = self.by_id[clip.asset].path
                try:
                    with naming(stage.name, path):
                        facts = stage.facts(reader[clip.asset], clip, self.infos[clip.asset])
                        rows.append(facts_row(unit, stage, facts))
                except MediaError as error:
                    rows.append(failed_row(unit, error.cause, str(error)))
        batch = Batch()
        batch.add(self.passes.facts_folder(stage.name), rows_table(rows, facts_schema(stage)))
        self.passes.ledger.commit(batch)

    @property
    def segments_folder(self) -> str:
        """Clips depend on the segmenter's tracks and decisions, and on what else it listens to."""
        name = self.recipe.stages[self.recipe.segmenter].name
        parts = {
            "stage": self.passes.keys[name],
            "knobs": self.segmenter.knobs(),
            "listens": {stage.name: self.passes.keys[stage.name] for stage in self.listened},
        }
        return f"ledger/segments/{digest(parts)[:KEY_CHARS]}"

    def _unsegmented(self) -> list[int]:
        """Rows of assets that are alive and have no clips yet."""
        alive = np.flatnonzero(self.asset_decisions.alive)
        have = self.passes.ledger.has(
            self.segments_folder, [self.assets[row].sha256 for row in alive]
        )
        return [int(row) for row in alive[~have]]

    @uncollected()
    def segment(self) -> None:
        """Turns assets that are still alive into clips."""
        stage = self.recipe.stages[self.recipe.segmenter]
        ledger, folder = self.passes.ledger, self.segments_folder
        self._end_unjudged()
        missing = self._unsegmented()
        if missing:
            heard = Heard(self)
            rows = []
            for place in heard.sorted([self.assets[row].sha256 for row in missing]):
                asset = self.assets[missing[place]]
                whole = self.asset_decisions.units.clips[missing[place]]
                with self.clock.of(stage.name), naming(stage.name, asset.path):
                    tracks = heard.tracks(asset.sha256)
                    found = self.segmenter.segment(tracks, whole, self.infos[asset.sha256])
                    if not found:
                        raise ValueError("segment() made no clip of a live asset")
                rows += [clip_row(asset.sha256, clip) for clip in found]
            batch = Batch()
            batch.add(folder, rows_table(rows, CLIPS))
            ledger.commit(batch)
        table = ledger.table(folder)
        of_asset = clips_from(table, self.recipe.kind) if table is not None else {}
        named = sorted(
            (clip.id, clip)
            for row in np.flatnonzero(self.asset_decisions.alive)
            for clip in of_asset.get(self.assets[row].sha256, ())
        )
        units = Units([name for name, _ in named], [clip for _, clip in named], self.lean)
        self.clip_decisions = Decisions.start(units)

    # What a model is asked -------------------------------------------------------------------

    @property
    def judge(self) -> BoundaryJudge | None:
        """The stage that is asked about boundaries between shots, if the segmenter wants it."""
        return next((s for s in self.listened if isinstance(s, BoundaryJudge)), None)

    def unjudged(self) -> list[tuple[Asset, list[int]]]:
        """Assets without clips yet, with their boundaries that nobody was asked about."""
        if self.judge is None:
            return []
        heard = Heard(self)
        missing = self._unsegmented()
        names = [self.assets[row].sha256 for row in missing]
        work = []
        for place in heard.sorted(names):
            tracks = heard.tracks(names[place])
            known = {frame for frame, _ in heard.answers.get(names[place], ())}
            found = self.segmenter.boundaries(tracks, self.infos[names[place]])
            if rest := [frame for frame in found if frame not in known]:
                work.append((self.by_id[names[place]], rest))
        return sorted(work, key=lambda item: item[0].sha256)

    def ask(self, work: Sequence[tuple[Asset, list[int]]], advance: Advance) -> None:
        """Asks the judge about boundaries of some assets, and commits what it says."""
        judge, rows = self.judge, []
        assert isinstance(judge, BoundaryJudge)
        assert isinstance(judge, Stage)
        reader = TrackReader(self.passes.ledger, self.passes.tracks_folder(judge.name))
        spans = dict(zip(self.by_id, self.asset_decisions.units.clips, strict=True))
        try:
            with judge.judging() as said:
                for asset, frames in work:
                    try:
                        with self.clock.of(judge.name), naming(judge.name, asset.path):
                            found = said(reader[asset.sha256], spans[asset.sha256], frames)
                    except MediaError as error:
                        self.passes.transient[judge.name, asset.sha256] = str(error)
                    else:
                        rows += [
                            {"unit": asset.sha256, "frame": frame, "same": same}
                            for frame, same in sorted(found.items())
                        ]
                    advance(1)
        finally:
            batch = Batch()
            batch.add(answers_folder(self), rows_table(rows, ANSWERS))
            self.passes.ledger.commit(batch)

    def _end_unjudged(self) -> None:
        """Ends assets about which there was no answer; the next run asks again."""
        judge = self.judge
        if not isinstance(judge, Stage):
            return
        for row, unit in enumerate(self.asset_decisions.units.ids):
            if (message := self.passes.transient.get((judge.name, unit))) is not None:
                verdict = Verdict(Outcome.FAILED, "transient", detail=message)
                self.asset_decisions.end(row, self.recipe.stages[0].name, verdict)

    def kept(self) -> list[Clip]:
        decisions = self.clips
        return [decisions.units.clips[row] for row in np.flatnonzero(decisions.alive)]


def group(items: Sequence, size: int, most: int) -> list[Sequence]:
    """Consecutive groups of at least `size` items, `most` groups at the most."""
    size = max(size, -(-len(items) // most)) if items else size
    return [items[i : i + size] for i in range(0, len(items), size)]
