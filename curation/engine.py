"""The engine: a curation run as a sequence of steps, on this machine or on a Ray cluster.

    curation = Curation(CurateOptions(sources=("media",), workspace=Path("w")))
    for step in curation.steps():
        step.run()
    result = curation.result()

A step is one pass over one group of assets or clips: the CLI runs steps one after the other, a
Prefect flow runs each as a task. What a step commits stays; the same command goes on from there.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from reelmill.curation.account import account, run_id
from reelmill.curation.crew import Crew
from reelmill.curation.key_record import save_components
from reelmill.curation.keys import decode_components, key_of, stage_components
from reelmill.curation.level import Level, group
from reelmill.curation.materialise import Materialised, Packer
from reelmill.curation.measure import DECODE, LazyMedia, close_session
from reelmill.curation.media_table import info_from
from reelmill.curation.models.weights import Weights
from reelmill.curation.open_gates import deciding, open_gates
from reelmill.curation.passes import Advance, Passes
from reelmill.curation.recipe import Recipe, check, load_yaml, override
from reelmill.curation.recipes import KNOWN, audio, image, video
from reelmill.curation.removals import removed_assets
from reelmill.curation.result import CurateResult
from reelmill.curation.stage import AssetStage, AudioStage, ClipStage, FrameStage, Segmenter
from reelmill.curation.workers import Limits, Workers
from reelmill.datasets.ingest.find import find_sources
from reelmill.datasets.ingest.remote import Rules
from reelmill.datasets.ingest.select import Selection, choose
from reelmill.datasets.ledger import Ledger
from reelmill.datasets.manifest import (
    Manifest,
    printable,
    read_hashes,
)
from reelmill.datasets.sample import Asset, Kind, Outcome, Verdict
from reelmill.datasets.workspace import Workspace, open_workspace
from reelmill.errors import MediaError, RecipeError, UsageError, WeightsError

MAX_GROUPS = 24
ASSETS_A_GROUP = 16
CLIPS_A_GROUP = 64
ENGINES = ("local", "ray")
SAMPLE = 32


@dataclass(frozen=True)
class CurateOptions:
    """What to curate, how and into which workspace.

    recipe: video, image, audio, or a YAML file; None sends each file to the recipe of its kind.
    max_failed: failure budget, a share from 0 to 1; None takes the recipe's. workers: processes
    that open media, None for one a core; 0 opens them in this process (reelmill.curation.workers).
    engine: local, or ray for a cluster (reelmill.curation.engine_ray). address: of that cluster;
    None starts one on this machine, which ends with the run. ingest: what may be fetched, and how.
    select: which of the sources' files are taken up beside those that earlier runs took up.
    """

    sources: tuple[str, ...]
    workspace: Path
    recipe: str | None = None
    overrides: tuple[str, ...] = ()
    weights: Path | None = None
    allow_missing: bool = False
    measure_all: bool = False
    max_failed: float | None = None
    workers: int | None = None
    limits: Limits = field(default_factory=Limits)
    command: str = ""
    engine: Literal["local", "ray"] = "local"
    address: str | None = None
    ingest: Rules = field(default_factory=Rules)
    select: Selection = field(default_factory=Selection)


@dataclass
class StepOutcome:
    """measured: units that this step did. Nought means that all was there already. what: the word
    for what it did to them."""

    measured: int
    seconds: float
    what: str = "measured"

    def __str__(self) -> str:
        return f"{self.measured} {self.what}, {self.seconds:.1f} s"


@dataclass
class Step:
    """One pass over one group. total: units that progress counts. what: what it does to them."""

    name: str
    label: str
    total: int
    work: Callable[[Advance], int]
    what: str = "measured"
    outcome: StepOutcome | None = None

    def run(self, advance: Advance = lambda n: None) -> StepOutcome:
        start = time.perf_counter()
        measured = self.work(advance)
        self.outcome = StepOutcome(measured, time.perf_counter() - start, self.what)
        return self.outcome


@dataclass
class Ingest:
    """What became of the source files before any recipe saw them."""

    manifest: Manifest
    ended: dict[str, tuple[Asset, Verdict]] = field(default_factory=dict)


class Curation:
    """One run. The constructor checks all that can be known before work starts.

    Raises SourceError, RecipeError, OverrideError, WeightsError, WorkspaceError.
    """

    def __init__(self, options: CurateOptions):
        self.options = options
        if not options.sources:
            raise UsageError("no source given. Name folders, files or patterns of media.")
        if options.max_failed is not None and not 0 <= options.max_failed <= 1:
            raise UsageError(f"--max-failed is {options.max_failed}; it must be from 0 to 1.")
        self.recipes = resolve(options)
        self.workers: Crew = self._crew()
        self.weights = Weights(options.weights)
        self.absent = self._check_weights()
        self.open_gates = [
            told for recipe in self.recipes.values() for told in open_gates(recipe, self.absent)
        ]
        for recipe in self.recipes.values():
            for stage in recipe.stages:
                stage.ready(options.workspace)
        found = find_sources(options.sources, skip=options.workspace, rules=options.ingest)
        self.chosen = choose(found, options.select, options.workspace, options.ingest)
        self.found = self.chosen.found
        self.files = self.found.files
        self.workspace: Workspace = open_workspace(options.workspace)
        self.run = run_id(self.workspace)
        self.started, self.began = time.time(), time.monotonic()
        self.seconds_ingest = 0.0
        self.levels: dict[Kind, Level] = {}
        self.made: dict[Kind, Materialised] = {}
        self._result: CurateResult | None = None

    def _crew(self) -> Crew:
        """Who opens media. Ray is imported only where it is asked for."""
        options = self.options
        if options.engine not in ENGINES:
            raise UsageError(f"--engine is {options.engine!r}; it must be local or ray.")
        if options.engine == "local":
            if options.address is not None:
                raise UsageError("--address is for --engine ray; this run is local.")
            return Workers(options.workers, options.limits)
        from reelmill.curation.engine_ray import RayWorkers

        return RayWorkers(
            options.workers,
            options.limits,
            options.address,
            shared=self._shared,
            written=(options.workspace,),
        )

    def _shared(self) -> list[Path]:
        """Files that every node of a cluster must see: the lock of this run, sources, weights."""
        step = max(1, len(self.files) // SAMPLE)
        held = (self.weights.path(name) for name in self.digests)
        fetched = {p for p in held if p and any(r in p.parents for r in self.weights.roots)}
        weights = [f for p in sorted(fetched) for f in ([p] if p.is_file() else p.iterdir())]
        lock = self.workspace.root / ".lock"
        return [lock, *self.files[::step], *(file for file in weights if file.is_file())]

    def _check_weights(self) -> dict[str, str]:
        """Absent weights by name, with the stages that want them.

        Absent weights of a gate (a stage with a bound on what they measure) stop the run before
        it starts, unless allow_missing or the stage says that its weights are optional: a gate
        that is not measured would let everything pass. What stays open then is in `open_gates`.
        """
        absent: dict[str, list[str]] = {}
        for recipe in self.recipes.values():
            for stage in recipe.stages:
                for name in stage.resources.weights:
                    if self.weights.path(name) is not None:
                        continue
                    stages = absent.setdefault(name, [])
                    if stage.name not in stages:
                        stages.append(stage.name)
                    gate = deciding(stage)
                    cutter = recipe.stages[recipe.segmenter]
                    if isinstance(cutter, Segmenter) and cutter.listens().get(stage.name):
                        gate.append(f"what {cutter.name} joins shots by")
                    free = self.options.allow_missing or stage.resources.optional
                    if gate and not free:
                        raise WeightsError(
                            f"{stage.name} decides by {', '.join(gate)}, but its weights {name!r} "
                            "are absent. Put them under --weights DIR or REELMILL_WEIGHTS (see "
                            "`reelmill weights list`), or say --allow-missing: its scores then "
                            "read 'not measured'."
                        )
        return {name: ", ".join(stages) for name, stages in absent.items()}

    def steps(self) -> Generator[Step, None, None]:
        """Steps in order. Each must have run before the next is asked for."""
        with self.workspace.lock(), self.workers, _models():
            self.weights.shared = self.workspace.asked / self.run
            yield from self._steps()
            self.workspace.forget_questions()

    def warm_up(self) -> None:
        """Begins what workers import, where files came that no run has seen. Returns at once."""
        known = read_hashes(self.workspace)
        if any(printable(file) not in known for file in self.files):
            self.workers.warm_up()

    def _steps(self) -> Iterator[Step]:
        holder: list[Manifest] = []

        def hash_files(advance: Advance) -> int:
            self.warm_up()
            holder.append(self.found.manifest(self.workspace, advance))
            return holder[0].files

        if remotes := len(self.found.remotes):
            fetch = lambda advance: self.found.fetch(self.workspace, advance)  # noqa: E731
            yield Step("fetch", "fetch remote sources", remotes, fetch, "fetched")
        total = len(self.files) + remotes
        yield Step("ingest", "hash source files", total, hash_files, "files looked at")
        self.ingest = Ingest(holder[0])
        self.ledger = Ledger(self.workspace)
        self.digests = self.weight_digests()
        parts = {
            kind: stage_components(recipe.stages, self.digests)
            for kind, recipe in self.recipes.items()
        }
        for of_stage in ({DECODE: decode_components()}, *parts.values()):
            for name, part in of_stage.items():
                save_components(self.workspace, name, key_of(part), part)
        probing = self.probing = Passes(self.ledger, {}, key_of(decode_components()), self.workers)
        have = self.ledger.units(probing.media_folder) | removed_assets(self.workspace)
        new = [a for a in self.ingest.manifest.assets if a.sha256 not in have]
        yield from self._groups("probe", new, ASSETS_A_GROUP, probing.probe)
        for kind, assets, infos in self._sort(probing):
            keys = {name: key_of(part) for name, part in parts[kind].items()}
            passes = Passes(self.ledger, keys, probing.decode_key, self.workers)
            passes.transient, passes.weights = probing.transient, self.weights
            self.levels[kind] = Level(self.recipes[kind], passes, assets, infos)
        for level in self.levels.values():
            yield from self._measure(level)
        for level in self.levels.values():
            yield from self._materialise(level)

        def report(advance: Advance) -> int:
            self.seconds_ingest = probing.clock.seconds.get("Ingest", 0.0)
            self._result = account(self)
            advance(1)
            return 1

        label = "account for everything and render the report"
        yield Step("report", label, 1, report, "report rendered")

    def weight_digests(self) -> dict[str, str]:
        """Digest of every weights entry that the recipes want and that is there."""
        return {
            name: self.weights.digest(name)
            for recipe in self.recipes.values()
            for stage in recipe.stages
            for name in stage.resources.weights
            if name not in self.absent
        }

    def _groups(
        self,
        name: str,
        items: Sequence,
        size: int,
        work: Callable[[Sequence, Advance], None],
        what: str = "measured",
    ) -> Iterator[Step]:
        groups = group(items, size, MAX_GROUPS)
        for i, some in enumerate(groups, 1):
            label = f"{name} {i}/{len(groups)}" if len(groups) > 1 else name

            def run(advance: Advance, some: Sequence = some) -> int:
                work(some, advance)
                return len(some)

            yield Step(name, label, len(some), run, what)

    def _sort(self, probing: Passes) -> Iterator[tuple[Kind, list[Asset], dict]]:
        """Sends each asset to the recipe of its kind; ends those that have none."""
        table = self.ledger.table(probing.media_folder)
        rows = {row["unit"]: row for row in table.to_pylist()} if table is not None else {}
        by_kind: dict[Kind, list[Asset]] = {kind: [] for kind in self.recipes}
        infos = {}
        removed = removed_assets(self.workspace)
        for asset in self.ingest.manifest.assets:
            row = rows.get(asset.sha256)
            if asset.sha256 in removed:
                verdict = Verdict(Outcome.REJECTED, "removal_request")
            elif row is None:
                why = probing.transient.get(("Ingest", asset.sha256), "not probed")
                verdict = Verdict(Outcome.FAILED, "transient", detail=why)
            elif row["not_media"]:
                verdict = Verdict(Outcome.REJECTED, "not_media", detail=row["message"])
            elif row["cause"] is not None:
                verdict = Verdict(Outcome.FAILED, row["cause"], detail=row["message"])
            else:
                info = info_from(row["info"])
                if info.kind in by_kind:
                    by_kind[info.kind].append(asset)
                    infos[asset.sha256] = info
                    continue
                wanted = ", ".join(by_kind)
                verdict = Verdict(
                    Outcome.REJECTED, "other_kind", str(info.kind), f"kind in {wanted}"
                )
            self.ingest.ended[asset.sha256] = (asset, verdict)
        for kind, assets in by_kind.items():
            if assets:
                yield kind, assets, infos

    def _measure(self, level: Level) -> Iterator[Step]:
        kind, passes = level.recipe.kind, level.passes
        level.read_ahead()
        decoded = False
        for stage in level.asset_stages:
            if isinstance(stage, AssetStage):
                missing = level.missing_files(stage)
                work = lambda some, advance, s=stage: passes.whole_files(s, some, advance)  # noqa: E731
                yield from self._groups(f"{kind}: {stage.name}", missing, ASSETS_A_GROUP, work)
            elif isinstance(stage, FrameStage | AudioStage):
                if not decoded:
                    yield from self._decode(level)
                    decoded = True
                level.derive(stage)
            level.decide(stage)
        if not decoded:
            yield from self._decode(level)
        label = f"{kind}: boundaries"
        yield from self._groups(label, level.unjudged(), ASSETS_A_GROUP, level.ask)
        level.segment()
        for stage in level.clip_stages:
            if isinstance(stage, FrameStage | AudioStage):
                level.derive(stage)
            elif isinstance(stage, ClipStage):
                rows = level.missing_clips(stage, measure_all=self.options.measure_all)
                work = lambda some, advance, s=stage: passes.clips(  # noqa: E731
                    s, self._media(level, some), self.weights, advance
                )
                yield from self._groups(f"{kind}: {stage.name}", rows, CLIPS_A_GROUP, work)
            level.decide(stage)

    def _decode(self, level: Level) -> Iterator[Step]:
        missing = level.missing_decodes()
        name = f"{level.recipe.kind}: shared decode"
        yield from self._groups(name, missing, ASSETS_A_GROUP, level.passes.shared_decode)
        level.after_decode()

    def _media(self, level: Level, rows: Sequence[int]) -> list[LazyMedia]:
        units = level.clips.units
        return [
            LazyMedia(
                units.clips[row],
                level.infos[units.clips[row].asset],
                units.facts_of(row),
                Path(level.by_id[units.clips[row].asset].path),
            )
            for row in rows
        ]

    def _materialise(self, level: Level) -> Iterator[Step]:
        kind = level.recipe.kind
        packer = Packer(self.workspace, level)
        yield from self._groups(f"{kind}: cut", packer.missing(), ASSETS_A_GROUP, packer.cut, "cut")

        def pack(advance: Advance) -> int:
            self.made[kind] = packer.pack(advance)
            return self.made[kind].written

        label, total = f"{kind}: write shards", len(packer.clips)
        yield Step(f"{kind}: shards", label, total, pack, "clips packed")

        def join(advance: Advance) -> int:
            self.made[kind] = packer.join(self.made[kind], advance)
            joined = self.made[kind].joined
            return joined.made if joined else 0

        if packer.joins:
            yield Step(f"{kind}: join", f"{kind}: join short clips", total, join, "clips joined")

    def result(self) -> CurateResult:
        """What the run came to. All steps must have run."""
        if self._result is None:
            raise RuntimeError("the run's steps have not all been run")
        return self._result


@contextmanager
def _models() -> Iterator[None]:
    """Without workers, stages load their models in this process; a run leaves none behind."""
    try:
        yield
    finally:
        close_session()


def resolve(options: CurateOptions) -> dict[Kind, Recipe]:
    """The recipes that the options ask for, overridden and checked."""
    built_in = {Kind.VIDEO: video, Kind.IMAGE: image, Kind.AUDIO: audio}
    if options.recipe is None:
        recipes = {kind: make() for kind, make in built_in.items()}
    elif options.recipe in set(Kind):
        kind = Kind(options.recipe)
        recipes = {kind: built_in[kind]()}
    else:
        path = Path(options.recipe)
        if not path.is_file():
            raise RecipeError(
                f"recipe {options.recipe!r} is neither video, image, audio nor a file."
            )
        recipe = load_yaml(path, KNOWN)
        recipes = {recipe.kind: recipe}
    recipes = override(recipes, options.overrides)
    for recipe in recipes.values():
        check(recipe)
    return recipes


__all__ = ["CurateOptions", "Curation", "MediaError", "Step", "StepOutcome", "resolve"]
