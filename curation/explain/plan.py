"""Plan: what a run would measure, and why, before it runs. Nothing is written, no media opened.

The same levels, keys and decisions as a run's are used, over a ledger that keeps in memory what
it is given. What a stage would find is not known before it has run: units that wait for a
measurement pass, so the figures of later stages are upper bounds, and clips of assets that are
not decoded yet cannot be counted.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from reelmill.curation.engine import CurateOptions, Curation
from reelmill.curation.explain.verdict_table import VerdictTable
from reelmill.curation.key_record import changes, past_components
from reelmill.curation.keys import decode_components, key_of, stage_components
from reelmill.curation.level import Level
from reelmill.curation.materialise import Packer
from reelmill.curation.measure import DECODE
from reelmill.curation.media_table import info_from
from reelmill.curation.passes import Passes
from reelmill.curation.removals import removed_assets
from reelmill.curation.run_record import known_runs
from reelmill.curation.stage import AssetStage, AudioStage, ClipStage, FrameStage
from reelmill.curation.uncollected import uncollected
from reelmill.datasets.arrow import texts
from reelmill.datasets.ingest.find import UNFETCHED
from reelmill.datasets.ledger import Batch, Ledger
from reelmill.datasets.manifest import Manifest, printable, read_hashes
from reelmill.datasets.media.decode import MediaInfo
from reelmill.datasets.parquet import read_parquet
from reelmill.datasets.sample import Asset, Kind, Outcome
from reelmill.datasets.workspace import Workspace

PROBE = "Ingest"
NEW, CHANGED, NEW_STAGE = "new input", "changed bytes", "new stage"
AGAIN, REACHED = "failed before", "not reached before"
FILE_GONE = "its file is gone"


@dataclass(frozen=True)
class PlanLine:
    """One stage. todo: units to measure; reasons: how many for each, in words; have: reused."""

    kind: str
    stage: str
    unit: str
    todo: int
    have: int
    reasons: Mapping[str, int]


@dataclass(frozen=True)
class Plan:
    """What `curate` with the same options would do.

    gone: assets of the last run that the sources lack now; they leave. waiting: assets whose clips
    are unknown before they are decoded. shards: by kind, `unchanged` or `written` (with the same
    bytes if what is measured decides as before).
    """

    workspace: str
    files: int
    assets: int
    gone: int
    waiting: int
    lines: tuple[PlanLine, ...]
    shards: Mapping[str, str]

    @property
    def todo(self) -> int:
        return sum(line.todo for line in self.lines)


def make_plan(options: CurateOptions) -> Plan:
    """Raises what Curation raises: SourceError, RecipeError, OverrideError, WeightsError, ..."""
    with _somewhere(options.workspace) as root, uncollected():
        curation = Curation(replace(options, workspace=root))
        return _Planner(curation, options.workspace).plan()


@contextmanager
def _somewhere(root: Path) -> Iterator[Path]:
    """The workspace, or an empty one for the moment where there is none yet."""
    if root.exists() and not (root.is_dir() and not any(root.iterdir())):
        yield root
        return
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder) / "workspace"


class _DryLedger(Ledger):
    """A ledger that keeps in memory what it is given."""

    def __init__(self, workspace: Workspace):
        super().__init__(workspace)
        self._given: dict[str, list[pa.Table]] = {}

    def commit(self, batch: Batch) -> None:
        self._found = None
        for folder, tables in batch.tables.items():
            self._given.setdefault(folder, []).extend(tables)

    def table(self, folder: str) -> pa.Table | None:
        kept = super().table(folder)
        tables = [*([kept] if kept is not None else []), *self._given.get(folder, ())]
        return pa.concat_tables(tables) if tables else None

    def unit_names(self, folder: str) -> pa.ChunkedArray:
        kept = super().unit_names(folder)
        given = [table["unit"] for table in self._given.get(folder, ())]
        return pa.chunked_array([c for column in (kept, *given) for c in column.chunks], kept.type)


@dataclass
class _Reasons:
    """Why a unit has no measurement under the key that a stage has now."""

    workspace: Workspace
    ledger: Ledger
    known: set[str]
    failed: set[str]
    changed: set[str]
    _units: dict[str, set[str]] = field(default_factory=dict)
    _past: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)

    def of(
        self, stage: str, folder: str, parts: Mapping[str, Any], units: Iterable[tuple[str, str]]
    ) -> dict[str, int]:
        """Reasons with their number. folder: of the stage's keys; units: (unit, its asset)."""
        return dict(Counter(self._why(stage, folder, parts, *unit) for unit in units))

    def _why(self, stage: str, folder: str, parts: Mapping[str, Any], unit: str, asset: str) -> str:
        if stage not in self._past:
            now = key_of(parts)
            past = past_components(self.workspace, stage)
            self._past[stage] = {key: old for key, old in past.items() if key != now}
        for key, old in self._past[stage].items():
            if unit in self._units_of(f"{folder}/{key}"):
                found = changes(old, parts)
                return "; ".join(f"{name}: {text}" for name, text in found.items())
        if asset not in self.known:
            return CHANGED if asset in self.changed else NEW
        keys = [*self._past[stage], key_of(parts)]
        if not any(self._units_of(f"{folder}/{key}") for key in keys):
            return NEW_STAGE
        return AGAIN if unit in self.failed or asset in self.failed else REACHED

    def _units_of(self, folder: str) -> set[str]:
        if folder not in self._units:
            self._units[folder] = self.ledger.units(folder)
        return self._units[folder]


class _Planner:
    """Walks the stages as the engine does, and notes what is missing instead of measuring it."""

    def __init__(self, curation: Curation, shown: Path):
        self.curation, self.shown = curation, shown
        self.workspace = curation.workspace
        self.ledger = _DryLedger(self.workspace)
        self.decode_parts = decode_components()
        self._look_up()
        self.manifest: Manifest = curation.found.manifest(self.workspace, save=False)
        self.lines: list[PlanLine] = []
        self.waiting = sum(u.error == UNFETCHED for u in self.manifest.unreadable)
        self.shards: dict[str, str] = {}
        before, failed = self._last_run()
        hashes = read_hashes(self.workspace)
        changed = {
            asset.sha256
            for asset in self.manifest.assets
            for path in asset.paths
            if hashes.get(printable(path), ("", asset.sha256))[1] != asset.sha256
        }
        self.gone = len(before - {asset.sha256 for asset in self.manifest.assets})
        self.reasons = _Reasons(self.workspace, self.ledger, before, failed, changed)

    def _look_up(self) -> None:
        """Begins to read what the ledger has under the keys of now, while files are looked at."""
        digests, decode = self.curation.weight_digests(), key_of(self.decode_parts)
        self.parts_of = {
            kind: stage_components(recipe.stages, digests)
            for kind, recipe in self.curation.recipes.items()
        }
        self.levels = {
            kind: Level(
                self.curation.recipes[kind],
                Passes(self.ledger, {n: key_of(part) for n, part in parts.items()}, decode),
                [],
                {},
                lean=True,
            )
            for kind, parts in self.parts_of.items()
        }
        self.levels[next(iter(self.levels))].read_ahead()

    def _last_run(self) -> tuple[set[str], set[str]]:
        """Assets of the last run, and the assets and clips that failed in it."""
        if not known_runs(self.workspace):
            return set(), set()
        path = VerdictTable(self.workspace).path
        names = ["level", "asset", "unit", "outcome"]
        table = read_parquet(path, f"verdicts {path}", columns=names)
        table = table.filter(pc.is_in(table["level"], value_set=texts(["asset", "clip"])))
        failed = table.filter(pc.equal(table["outcome"], str(Outcome.FAILED)))["unit"]
        return set(pc.unique(table["asset"]).to_pylist()), set(failed.to_pylist())

    def plan(self) -> Plan:
        for kind, assets, infos in self._sort():
            self._level(kind, assets, infos)
        return Plan(
            workspace=str(self.shown),
            files=self.manifest.files,
            assets=len(self.manifest.assets),
            gone=self.gone,
            waiting=self.waiting,
            lines=tuple(self.lines),
            shards=self.shards,
        )

    def _sort(self) -> list[tuple[Kind, list[Asset], dict[str, MediaInfo]]]:
        """Assets by kind, as far as a probe is recorded, under whatever key."""
        now = key_of(self.decode_parts)
        past = [k for k in past_components(self.workspace, DECODE) if k != now]
        infos: dict[str, MediaInfo | None] = {}
        for key in [*reversed(past), now]:
            table = self.ledger.table(f"ledger/media/{key}")
            if table is not None:
                units, texts = table["unit"].to_pylist(), table["info"].to_pylist()
                infos |= zip(units, (info_from(t) if t else None for t in texts), strict=True)
        probed = self.ledger.units(f"ledger/media/{now}")
        removed = removed_assets(self.workspace)
        assets = [a for a in self.manifest.assets if a.sha256 not in removed]
        missing = [(a.sha256, a.sha256) for a in assets if a.sha256 not in probed]
        why = self.reasons.of(DECODE, "ledger/media", self.decode_parts, missing)
        self._note("", PROBE, "asset", len(missing), len(assets) - len(missing), why)
        self.waiting += sum(a.sha256 not in infos for a in assets)
        found = []
        for kind in self.curation.recipes:
            known = {
                a.sha256: info
                for a in assets
                if (info := infos.get(a.sha256)) is not None and info.kind == kind
            }
            if known:
                found.append((kind, [a for a in assets if a.sha256 in known], known))
        return found

    def _note(
        self, kind: str, stage: str, unit: str, todo: int, have: int, reasons: Mapping[str, int]
    ) -> None:
        ranked = dict(sorted(reasons.items(), key=lambda item: (-item[1], item[0])))
        self.lines.append(PlanLine(kind, stage, unit, todo, have, ranked))

    def _level(self, kind: Kind, assets: list[Asset], infos: dict[str, MediaInfo]) -> None:
        recipe = self.curation.recipes[kind]
        self.lacking: dict[str, set[str]] = {}
        self.parts = self.parts_of[kind]
        passes = self.levels[kind].passes
        level = Level(recipe, passes, assets, infos, lean=True)
        if kind != next(iter(self.levels)):
            level.read_ahead()
        decoded = False
        for stage in level.asset_stages:
            if isinstance(stage, AssetStage):
                missing = [a.sha256 for a, _ in level.missing_files(stage)]
                have = len(level.alive_assets()) - len(missing)
                self._stage(kind, stage.name, "asset", [(u, u) for u in missing], have)
            elif isinstance(stage, FrameStage | AudioStage):
                if not decoded:
                    self._decode(level)
                    decoded = True
                level.derive(stage, without=self.lacking.get(stage.name, ()))
            level.decide(stage)
        if not decoded:
            self._decode(level)
        self._boundaries(level)
        level.segment()
        for stage in level.clip_stages:
            if isinstance(stage, FrameStage | AudioStage):
                level.derive(stage, without=self.lacking.get(stage.name, ()))
            elif isinstance(stage, ClipStage):
                alive = int(level.clips.alive.sum())
                rows = level.missing_clips(stage, measure_all=self.curation.options.measure_all)
                units = [(level.clips.units.ids[r], level.clips.units.clips[r].asset) for r in rows]
                self._stage(kind, stage.name, "clip", units, max(0, alive - len(rows)))
            level.decide(stage)
        self._cut(level)

    def _stage(
        self,
        kind: Kind,
        stage: str,
        unit: str,
        missing: Sequence[tuple[str, str]],
        have: int,
        root: str = "ledger/facts",
    ) -> None:
        why = self.reasons.of(stage, f"{root}/{stage}", self.parts[stage], missing)
        self._note(str(kind), stage, unit, len(missing), have, why)

    def _decode(self, level: Level) -> None:
        """The shared decode, stage by stage. An asset waits when its clips depend on it."""
        alive = len(level.alive_assets())
        work = level.missing_decodes()
        for stage in level.media_stages:
            missing = [(a.sha256, a.sha256) for a, _, lacking in work if stage in lacking]
            self.lacking[stage.name] = {asset for asset, _ in missing}
            have = alive - len(missing)
            self._stage(level.recipe.kind, stage.name, "asset", missing, have, "tracks")
        before_clips = (
            *level.asset_stages,
            level.recipe.stages[level.recipe.segmenter],
            *level.listened,
        )
        decoded = self.ledger.units(level.passes.decoded_folder)
        waiting = {
            asset.sha256
            for asset, _, lacking in work
            if asset.sha256 not in decoded or any(stage in before_clips for stage in lacking)
        }
        self.waiting += len(waiting)
        for row, asset in enumerate(level.assets):
            if asset.sha256 in waiting:
                level.asset_decisions.alive[row] = False
        level.after_decode()

    def _boundaries(self, level: Level) -> None:
        """Assets whose shots a model has to be asked about; they wait until then."""
        unasked = {asset.sha256 for asset, _ in level.unjudged()}
        self.waiting += len(unasked)
        for row, asset in enumerate(level.assets):
            if asset.sha256 in unasked:
                level.asset_decisions.alive[row] = False

    def _cut(self, level: Level) -> None:
        kind = level.recipe.kind
        packer = Packer(self.workspace, level)
        missing = packer.missing()
        cut = self.ledger.units(level.passes.facts_folder(packer.stage.name))
        lost = sum(clip.id in cut for clip in missing)
        units = [(clip.id, clip.asset) for clip in missing if clip.id not in cut]
        stage = packer.stage.name
        why = self.reasons.of(stage, f"ledger/facts/{stage}", self.parts[stage], units)
        if lost:
            why[FILE_GONE] = lost
        self._note(str(kind), stage, "clip", len(missing), len(packer.clips) - len(missing), why)
        failed = (
            {clip.id for clip in packer.clips} - {c.id for c in missing} - self._cut_well(level)
        )
        wanted = {(c.id, packer.keys[c.id]) for c in packer.clips if c.id not in failed}
        same = not missing and wanted == set(packer.existing)
        open_ = self.waiting or any(line.todo for line in self.lines if line.kind == kind)
        self.shards[str(kind)] = "unchanged" if same and not open_ else "written"

    def _cut_well(self, level: Level) -> set[str]:
        table = self.ledger.table(level.passes.facts_folder(level.recipe.stages[-1].name))
        return set(table.filter(table["cause"].is_null())["unit"].to_pylist()) if table else set()
