"""Forget: a removal request. What holds a file is listed, and what can be mended is.

Removed: the asset's facts, tracks, clips, cuts, previews, its rows in the verdicts and hashes of
all runs, its cards in their reports; its samples in every shard set, joined ones too, and in all
latent shards, which are written anew. Its digest alone stays, so that a later run does not bring
it back. What learned from it is listed: codecs that were fitted to it, which the next encode fits
anew, and checkpoints, which are trained again by whoever decides that.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import quote, unquote

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from reelmill.curation.explain.verdict_table import VerdictTable
from reelmill.curation.explain.whereabouts import Member, TrainingRun, latents_of, shard_members
from reelmill.curation.removals import note_removal, removed_assets
from reelmill.curation.run_record import RunRecord, known_runs, read_run
from reelmill.curation.verdicts import VERDICTS
from reelmill.datasets.index import MANIFEST, ShardIndex
from reelmill.datasets.ingest.cache import forget_fetched
from reelmill.datasets.joining import join_again
from reelmill.datasets.latent_removal import fitted_codecs, leave_out, resume, sources_now
from reelmill.datasets.ledger import Ledger
from reelmill.datasets.manifest import read_hashes, save_hashes
from reelmill.datasets.parquet import read_parquet
from reelmill.datasets.sample import Kind
from reelmill.datasets.shards import ShardSample, write_shards
from reelmill.datasets.workspace import Workspace, commit_bytes, table_bytes
from reelmill.errors import DatasetError, UsageError
from reelmill.reports import page

DEFAULT_SAMPLES, DEFAULT_MEGABYTES = 1000, 512
SCRATCH = "forgetting"


@dataclass(frozen=True)
class Removal:
    """What holds an asset. runs: those that saw it. shards, latents: those that hold it, before
    removal. codecs: folders of codecs that were fitted to shards with it.

    rows: taken out of the ledger; files: deleted. Both 0 as long as it is only looked at.
    """

    sha256: str
    paths: tuple[str, ...]
    runs: tuple[str, ...]
    shards: tuple[str, ...]
    samples: int
    latents: tuple[str, ...]
    codecs: tuple[str, ...]
    training: tuple[TrainingRun, ...]
    rows: int = 0
    files: int = 0

    @classmethod
    def look(cls, workspace: Workspace, text: str) -> Removal:
        """What holds the asset that a user names (VerdictTable.find, in any run; or a file).

        Raises UsageError when no run saw it.
        """
        sha256 = _asset(workspace, text)
        paths: set[str] = set()
        runs = []
        for run in known_runs(workspace):
            rows = VerdictTable(workspace, run).rows("asset = ?", [sha256])
            if rows:
                runs.append(run)
                paths.update(row["path"] for row in rows)
        members: list[Member] = list(shard_members(workspace, sha256))
        latents, training = latents_of(workspace, sha256)
        return cls(
            sha256=sha256,
            paths=tuple(sorted(paths)),
            runs=tuple(runs),
            shards=tuple(sorted({member.shard for member in members})),
            samples=len({member.clip for member in members}),
            latents=tuple(sorted({member.shard for member in latents})),
            codecs=tuple(c for f in _folders(latents) for c in fitted_codecs(f)),
            training=tuple(training),
        )

    def carry_out(self, workspace: Workspace) -> Removal:
        """Removes it. Killed half-way, the same command ends it.

        Raises WorkspaceError while a run is writing or when the disk refuses.
        """
        with workspace.lock():
            note_removal(workspace, self.sha256)
            _end_half_done(workspace)
            latents = {
                manifest.parent: sources_now(manifest.parent)
                for manifest in sorted(workspace.latents.glob("**/manifest.json"))
            }
            for manifest in sorted((workspace.root / "shards").glob(f"*/{MANIFEST}")):
                _rebuild(workspace, manifest.parent, self.sha256)
            _join_again(workspace)
            for folder, sources in latents.items():
                leave_out(folder, self.sha256, _scratch(workspace, folder), sources)
            shutil.rmtree(workspace.root / SCRATCH, ignore_errors=True)
            shutil.rmtree(workspace.asked, ignore_errors=True)
            rows = Ledger(workspace).drop(lambda folder, table: self._is_mine(table["unit"]))
            files = self._delete_files(workspace)
            for run in self.runs:
                _scrub_run(workspace, run, self.sha256)
            hashes = read_hashes(workspace)
            kept = {path: row for path, row in hashes.items() if row[1] != self.sha256}
            save_hashes(workspace, kept)
        return replace(self, rows=rows, files=files)

    def _is_mine(self, units: pa.ChunkedArray) -> np.ndarray:
        clip = pc.starts_with(units, f"{self.sha256[:16]}_")
        return pc.or_(pc.equal(units, self.sha256), clip).to_numpy(zero_copy_only=False)

    def _delete_files(self, workspace: Workspace) -> int:
        mine = f"*{self.sha256[:16]}_*"
        found = [
            *workspace.cuts.glob(mine),
            *workspace.previews.glob(mine),
            *workspace.runs.glob(f"*/previews/{mine}"),
        ]
        for path in found:
            path.unlink(missing_ok=True)
        return len(found) + forget_fetched(workspace, self.sha256)


def _folders(members: list[Member]) -> list[Path]:
    return sorted({Path(member.shard).parent for member in members})


def _scratch(workspace: Workspace, folder: Path) -> Path:
    """Where latents of a folder are written before they take its place."""
    return workspace.root / SCRATCH / quote(str(folder.relative_to(workspace.root)), safe="")


def _end_half_done(workspace: Workspace) -> None:
    """Ends the replacement of latents in which an earlier request was killed."""
    for place in (workspace.root / SCRATCH).glob("*"):
        folder = workspace.root / unquote(place.name)
        if workspace.latents in (folder, *folder.parents):
            resume(place, folder)


def _asset(workspace: Workspace, text: str) -> str:
    """The digest of what a user names: by the newest run that saw it, or removed before."""
    problem: UsageError | None = None
    for run in reversed(known_runs(workspace)):
        try:
            return str(VerdictTable(workspace, run).find(text)[0]["asset"])
        except UsageError as error:
            problem = problem or error
    path = Path(text)
    if path.is_file():
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digest in removed_assets(workspace):
            return digest
    for digest in removed_assets(workspace):
        if len(text) >= 16 and digest.startswith(text.partition("_")[0]):
            return digest
    raise problem or UsageError(f"no run has ended in {workspace.root}, so nothing is held there.")


def _rebuild(workspace: Workspace, folder: Path, sha256: str) -> None:
    """Writes a shard set anew without an asset's samples, in the sizes that its run asked for."""
    mine = f"{sha256[:16]}_"
    with ShardIndex.read(folder) as index:
        if not any(key.startswith(mine) for key in index.keys):
            return
        samples, megabytes = _shard_size(workspace, folder.name)
        write_shards(
            _others(index, mine),
            folder,
            prefix=folder.name,
            max_samples=samples,
            max_bytes=megabytes * 1_000_000,
        )


def _join_again(workspace: Workspace) -> None:
    """Joined shards as they are without what their shards no longer hold."""
    for folder in sorted((workspace.root / "joined").glob("*")):
        shards = workspace.shards(folder.name)
        if not (shards / MANIFEST).is_file() or join_again(folder, shards) is None:
            shutil.rmtree(folder)  # nobody knows how it was made: the next run makes it


def _others(index: ShardIndex, mine: str) -> Iterator[ShardSample]:
    for key in sorted(index.keys):
        if key.startswith(mine):
            continue
        members = index.sample(key)
        try:
            record = json.loads(members.pop("json"))
        except (KeyError, ValueError) as error:
            raise DatasetError(f"sample {key} in {index.folder} has no record: {error}") from error
        caption = members.pop("txt", None)
        ((suffix, media),) = members.items()
        text = caption.decode() if caption is not None else None
        yield ShardSample(key, f".{suffix}", media, record, text)


def _shard_size(workspace: Workspace, kind: str) -> tuple[int, int]:
    """Samples and megabytes of a shard, as the newest run with this kind had them."""
    for run in reversed(known_runs(workspace)):
        record: RunRecord = read_run(workspace, run)
        stages = record.kinds[Kind(kind)].stages if kind in record.kinds else ()
        bounds = next((stage.bounds for stage in stages if stage.name == "Cut"), {})
        if bounds:
            return (
                int(bounds["shard_samples"].value or DEFAULT_SAMPLES),
                int(bounds["shard_megabytes"].value or DEFAULT_MEGABYTES),
            )
    return DEFAULT_SAMPLES, DEFAULT_MEGABYTES


def _scrub_run(workspace: Workspace, run: str, sha256: str) -> None:
    """Takes an asset out of a run's verdicts and out of its report; the counts stay."""
    path = workspace.ledger / "verdicts" / f"{run}.parquet"
    table = read_parquet(path, f"verdicts {path}", schema=VERDICTS)
    names = set(table.filter(pc.equal(table["asset"], sha256))["path"].to_pylist())
    commit_bytes(path, table_bytes(table.filter(pc.not_equal(table["asset"], sha256))))
    folder = workspace.runs / run
    if not (folder / "run.json").is_file():
        return
    report = page.load(folder)
    stages = [
        stage.model_copy(
            update={"examples": [e for e in stage.examples if not e.id.startswith(sha256[:16])]}
        )
        for stage in report.stages
    ]
    failures = [
        f for f in report.failures if f.path not in names and not f.clip.startswith(sha256[:16])
    ]
    page.save(report.model_copy(update={"stages": stages, "failures": failures}), folder)
    page.render(folder)
