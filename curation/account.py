"""Accounting for a run: from verdicts to the RunReport, the ledger's verdict rows and the result.

Every figure comes from the decisions; the report's schema refuses counts that do not add up.
"""

from __future__ import annotations

import platform
import re
import secrets
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

import reelmill
from reelmill.curation.examples import Gallery
from reelmill.curation.level import Level
from reelmill.curation.policy import Decisions
from reelmill.curation.recipe import to_yaml
from reelmill.curation.request import save_request
from reelmill.curation.result import Count, CurateResult
from reelmill.curation.run_record import known_runs, save_run
from reelmill.curation.stage_account import asset_level, clip_level, stage_report
from reelmill.curation.verdicts import save_verdicts
from reelmill.datasets.ingest.remote import shown, unsecret
from reelmill.datasets.manifest import printable
from reelmill.datasets.sample import Outcome, Verdict
from reelmill.datasets.workspace import Workspace
from reelmill.errors import ReelmillError
from reelmill.reports import page
from reelmill.reports.drift import alarms
from reelmill.reports.schema import (
    MAX_FAILURES,
    Amount,
    FailureReport,
    Provenance,
    ReasonCount,
    RecipeText,
    RunReport,
    ShardReport,
    StageReport,
    Tally,
    Totals,
    WeightUsed,
)
from reelmill.reports.votes import VoteLog

if TYPE_CHECKING:
    from reelmill.curation.engine import CurateOptions, Curation

_FORM = "%Y%m%d-%H%M%S"
_STAMP = re.compile(r"\d{8}-\d{6}")
_NEVER = "00010101-000000"
LIBRARIES = ("av", "numpy", "opencv-python-headless", "scenedetect", "onnxruntime", "pyarrow")


def run_id(workspace: Workspace) -> str:
    """A new run's name: the time it began, in UTC, and four random characters.

    Names rise in the order of the runs of a workspace, whatever its clocks say: after a clock that
    was set back, and within one second, a run takes the second after the last run's.
    """
    now = datetime.fromtimestamp(time.time(), UTC)
    stamps = [name[: len(_NEVER)] for name in (*known_runs(workspace), *_folders(workspace.runs))]
    last = max((stamp for stamp in stamps if _STAMP.fullmatch(stamp)), default=_NEVER)
    with suppress(ValueError, OverflowError):
        after = datetime.strptime(last, _FORM).replace(tzinfo=UTC) + timedelta(seconds=1)
        now = max(now, after)
    return f"{now:{_FORM}}-{secrets.token_hex(2)}"


def _folders(place: Path) -> list[str]:
    return [entry.name for entry in place.iterdir()] if place.is_dir() else []


def account(curation: Curation) -> CurateResult:
    """Builds and saves the report and the verdicts; returns the run's result."""
    levels = list(curation.levels.values())
    report, counts = _report(curation, levels)
    folder = curation.workspace.runs / curation.run
    drifted = _drifted(curation, report)
    report = report.model_copy(update={"notes": [*report.notes, *drifted]})
    save_verdicts(curation, levels)
    save_run(curation, levels)
    save_request(curation.options, folder)
    page.save(report, folder)
    rendered = page.render(folder)
    made = curation.made.values()
    return CurateResult(
        run=curation.run,
        workspace=str(curation.workspace.root),
        report=str(rendered),
        shards=tuple(str(path) for m in made for path in m.shards),
        files=counts[0],
        assets=counts[1],
        clips=counts[2],
        seconds=time.monotonic() - curation.began,
        redone=sum(n for level in levels for n in level.measured.values())
        + sum(m.cut for m in made),
        over_budget=report.over_budget,
        notes=tuple(report.notes),
        joined=next(
            (
                {"folder": str(m.joined.output)}
                | {n: getattr(m.joined, n) for n in ("clips", "joined", "parts", "alone")}
                for m in made
                if m.joined is not None
            ),
            None,
        ),
    )


def _report(
    curation: Curation, levels: Sequence[Level]
) -> tuple[RunReport, tuple[Count, Count, Count]]:
    folder = curation.workspace.runs / curation.run
    gallery = Gallery(curation.workspace, folder, curation.workers)
    ingest = _ingest_stage(curation)
    stages = [ingest]
    votes = VoteLog(curation.workspace.root).last()
    clips = Tally()
    for level in levels:
        for ledgered in (asset_level(level), clip_level(level)):
            for index in range(len(ledgered.stages)):
                stages.append(stage_report(level, ledgered, index, gallery, votes))
        last = clip_level(level)
        rows = range(len(last.decisions.units))
        clips += Tally(
            into=last.amount(rows),
            kept=last.amount(np.flatnonzero(last.decisions.alive)),
            rejected=last.amount(_with(last.decisions, Outcome.REJECTED)),
            failed=last.amount(_with(last.decisions, Outcome.FAILED)),
        )
    stages = gallery.illustrate(stages)
    assets = _asset_outcomes(curation, levels)
    failures = _failures(curation, levels)
    notes, over = _notes(curation), _over_budget(curation, levels, assets, clips)
    by_outcome = {
        outcome: sum((a for o, a in assets if o == outcome), Amount()) for outcome in Outcome
    }
    report = RunReport(
        run=curation.run,
        started=datetime.fromtimestamp(curation.started, UTC),
        finished=datetime.fromtimestamp(time.time(), UTC),
        seconds=time.monotonic() - curation.began,
        recipes={
            str(level.recipe.kind): RecipeText(yaml=to_yaml(level.recipe), hash=level.recipe.digest)
            for level in levels
        },
        provenance=_provenance(curation),
        sources=[printable(shown(source)) for source in curation.options.sources],
        totals=Totals(
            files=ingest.tally,
            assets=Tally(
                into=sum((a for _, a in assets), Amount()),
                kept=by_outcome[Outcome.KEPT],
                rejected=by_outcome[Outcome.REJECTED],
                failed=by_outcome[Outcome.FAILED],
            ),
            clips=clips,
        ),
        stages=stages,
        failures=failures[:MAX_FAILURES],
        failures_total=len(failures),
        shards=[
            ShardReport(file=s.file, sha256=s.sha256, bytes=s.bytes, samples=s.samples)
            for made in curation.made.values()
            for s in made.manifest
        ],
        notes=notes,
        over_budget=over,
    )
    counts = (_count(ingest.tally), Count.of([o for o, _ in assets]), _count(clips))
    return report, counts


def _count(tally: Tally) -> Count:
    return Count(tally.into.count, tally.kept.count, tally.rejected.count, tally.failed.count)


def _with(decisions: Decisions, outcome: Outcome) -> list[int]:
    return [row for row, (_, v) in decisions.ended.items() if v.outcome == outcome]


def _ingest_stage(curation: Curation) -> StageReport:
    """Of source files: what no recipe saw, and second paths of the same bytes."""
    manifest, ended = curation.ingest.manifest, curation.ingest.ended
    duplicates = [a for a in manifest.assets if a.sha256 not in ended for _ in a.paths[1:]]
    by_reason: dict[str, list[int]] = {}
    failed = [u.bytes for u in manifest.unreadable]
    for asset, verdict in ended.values():
        sizes = [asset.bytes] * len(asset.paths)
        if verdict.outcome == Outcome.FAILED:
            failed += sizes
        else:
            by_reason.setdefault(verdict.reason, []).extend(sizes)
    if duplicates:
        by_reason["exact_duplicate"] = [a.bytes for a in duplicates]
    kept = [a.bytes for a in manifest.assets if a.sha256 not in ended]

    def amount(sizes: Sequence[int]) -> Amount:
        return Amount(count=len(sizes), bytes=sum(sizes))

    rejected = [size for sizes in by_reason.values() for size in sizes]
    return StageReport(
        name="Ingest",
        unit="asset",
        shape="files",
        doc="Hashes every source file, finds what it holds and sends it to the recipe of its kind.",
        tally=Tally(
            into=amount([*kept, *rejected, *failed]),
            kept=amount(kept),
            rejected=amount(rejected),
            failed=amount(failed),
        ),
        cost_seconds=curation.seconds_ingest,
        reasons=[
            ReasonCount(reason=r, count=len(s), bytes=sum(s), only=len(s))
            for r, s in sorted(by_reason.items())
        ],
    )


def _asset_outcomes(curation: Curation, levels: Sequence[Level]) -> list[tuple[Outcome, Amount]]:
    """Outcome of every asset: kept if a clip of it is, else failed if anything of it failed."""
    found = [
        (Outcome.FAILED, Amount(count=1, bytes=u.bytes))
        for u in curation.ingest.manifest.unreadable
    ]
    found += [
        (verdict.outcome, Amount(count=1, bytes=asset.bytes))
        for asset, verdict in curation.ingest.ended.values()
    ]
    for level in levels:
        of_asset: dict[str, set[Outcome]] = {}
        for row, _, verdict in level.clips.verdicts():
            of_asset.setdefault(level.clips.units.clips[row].asset, set()).add(verdict.outcome)
        held = asset_level(level)
        for row, _, verdict in held.decisions.verdicts():
            outcome = verdict.outcome
            if outcome == Outcome.KEPT:
                seen = of_asset[held.decisions.units.ids[row]]
                ranked = (Outcome.KEPT, Outcome.FAILED, Outcome.REJECTED)
                outcome = next(o for o in ranked if o in seen)
            found.append((outcome, held.amount([row])))
    return found


def _failures(curation: Curation, levels: Sequence[Level]) -> list[FailureReport]:
    found = [
        FailureReport(path=printable(u.path), stage="Ingest", cause="transient", message=u.error)
        for u in curation.ingest.manifest.unreadable
    ]
    for asset, verdict in curation.ingest.ended.values():
        if verdict.outcome == Outcome.FAILED:
            found += [_failure(path, "", "Ingest", verdict) for path in asset.paths]
    for level in levels:
        for decisions, is_clip in ((level.asset_decisions, False), (level.clips, True)):
            for row, (stage, verdict) in sorted(decisions.ended.items()):
                if verdict.outcome == Outcome.FAILED:
                    clip = decisions.units.clips[row]
                    path = level.by_id[clip.asset].name
                    found.append(_failure(path, clip.id if is_clip else "", stage, verdict))
    return sorted(found, key=lambda f: (f.path, f.clip))


def _failure(path: str, clip: str, stage: str, verdict: Verdict) -> FailureReport:
    return FailureReport(
        path=printable(path), clip=clip, stage=stage, cause=verdict.reason, message=verdict.detail
    )


def _notes(curation: Curation) -> list[str]:
    notes = [
        f"{stages} {'were' if ',' in stages else 'was'} not measured: "
        f"{'their' if ',' in stages else 'its'} weights {name!r} are absent."
        for name, stages in sorted(curation.absent.items())
    ]
    notes += curation.open_gates
    chosen, selection = curation.chosen, curation.options.select
    if selection:
        undated = f", {chosen.undated} of them without a date" if chosen.undated else ""
        taken = len(chosen.found.files) + len(chosen.found.remotes)
        notes.append(
            f"Only {selection}, beside what earlier runs took up: {taken} files; {chosen.waiting} "
            f"wait for another run{undated}."
        )
    again = sum(len(level.passes.transient) for level in list(curation.levels.values())[:1])
    if again:
        notes.append(f"{again} measurements failed for a passing reason; the next run tries again.")
    for joined in (made.joined for made in curation.made.values()):
        if joined is not None and joined.clips:
            notes.append(
                f"Short clips of one class of sound are also joined, in joined/{joined.output.name}"
                f": {joined.clips} clips = {joined.parts} in {joined.joined} joined samples + "
                f"{joined.alone} as they are; {joined.seconds:.1f} s, the longest "
                f"{joined.longest:.2f} s."
            )
    if not any(made.shards for made in curation.made.values()):
        notes.append("No clip was kept, so no shard was written.")
    return notes


def _drifted(curation: Curation, report: RunReport) -> list[str]:
    """Figures that are not those of the run before, in words."""
    for run in reversed(known_runs(curation.workspace)):
        try:
            before = page.load(curation.workspace.runs / run)
        except ReelmillError:
            continue  # its report was deleted, or is of another version
        return [f"Drift since run {run}: {alarm}." for alarm in alarms(before, report)]
    return []


def _over_budget(
    curation: Curation,
    levels: Sequence[Level],
    assets: Sequence[tuple[Outcome, Amount]],
    clips: Tally,
) -> str:
    given = curation.options.max_failed
    budget = given if given is not None else min(r.max_failed for r in curation.recipes.values())
    failed = sum(outcome == Outcome.FAILED for outcome, _ in assets)
    parts = []
    for name, bad, all_ in (
        ("assets", failed, len(assets)),
        ("clips", clips.failed.count, clips.into.count),
    ):
        if bad > budget * all_:
            parts.append(f"{bad} of {all_} {name} failed ({bad / all_:.1%})")
    return f"{' and '.join(parts)}; the budget is {budget:.1%}" if parts else ""


def _command(options: CurateOptions) -> str:
    """The command line, without the secrets that locations in it may hold."""
    command = options.command
    for source in options.sources:
        command = command.replace(source, shown(source))
    return unsecret(command) if "://" in command else command


def _provenance(curation: Curation) -> Provenance:
    wanted = {
        name: stage.name
        for recipe in curation.recipes.values()
        for stage in recipe.stages
        for name in stage.resources.weights
    }
    return Provenance(
        version=reelmill.__version__,
        python=sys.version.split()[0],
        platform=f"{platform.system()} {platform.machine()}",
        command=printable(_command(curation.options)),
        libraries={name: metadata.version(name) for name in LIBRARIES},
        weights=[
            WeightUsed(
                name=name,
                sha256=curation.digests.get(name, ""),
                absent=name in curation.absent,
                stage=stage,
                licence=curation.weights.entry(name).licence,
                bundled=curation.weights.entry(name).bundled,
            )
            for name, stage in sorted(wanted.items())
        ],
    )
