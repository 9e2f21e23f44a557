"""What a stage threw away, as a list and as files to look at and listen to.

<folder>/rejected.jsonl         one object a unit: verdict, source, exported files
<folder>/<unit>.mp4 .jpg ...    its preview, or with copies=True the clip at full size
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import duckdb

from reelmill.curation.cut import SUFFIX, CutSettings, cut
from reelmill.curation.explain.verdict_table import Row, VerdictTable
from reelmill.curation.media_table import MEDIA, clips_from, info_from, whole_clip
from reelmill.curation.preview import make_preview
from reelmill.curation.run_record import KindRecord
from reelmill.curation.workers import Workers
from reelmill.datasets.ledger import Ledger, TrackReader
from reelmill.datasets.media.decode import MediaInfo
from reelmill.datasets.sample import Clip, Kind, Outcome
from reelmill.datasets.workspace import commit_bytes, writing
from reelmill.errors import MediaError, ReelmillError, UsageError

LIST = "rejected.jsonl"


@dataclass(frozen=True)
class Reject:
    """One unit that was thrown away. files: what was exported of it; note: why nothing was."""

    unit: str
    level: str
    kind: str
    asset: str
    path: str
    outcome: str
    stage: str
    reason: str
    value: str | None
    bound: str
    detail: str
    only: bool
    files: tuple[str, ...] = ()
    note: str = ""


def rejects(
    table: VerdictTable, *, stage: str = "", reason: str = "", failed: bool = False
) -> list[Reject]:
    """Units that a run rejected, of one stage or reason; with `failed`, those that failed too.

    Raises UsageError for a stage that the run had not.
    """
    known = {s.name for kind in table.record.kinds.values() for s in kind.stages} | {"Ingest"}
    if stage and stage not in known:
        raise UsageError(
            f"run {table.record.run} had no stage {stage!r}; it had: {', '.join(sorted(known))}."
        )
    outcomes = [str(Outcome.REJECTED), *([str(Outcome.FAILED)] if failed else [])]
    where = "list_contains(?, outcome) and (? = '' or stage = ?) and (? = '' or reason = ?)"
    return [Reject(**row) for row in table.rows(where, [outcomes, stage, stage, reason, reason])]


def export(
    table: VerdictTable,
    found: Sequence[Reject],
    folder: Path,
    *,
    copies: bool = False,
    advance: Callable[[int], None] = lambda n: None,
) -> list[Reject]:
    """Writes the list, and a preview or a copy of each unit that can still be read.

    A unit whose source is gone, has other bytes now, or cannot be decoded is listed with a note.
    Raises WorkspaceError when the folder cannot be written.
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    done = []
    with Workers(1) as workers:
        media = _Media(table, workers)
        for reject in found:
            done.append(_export_one(media, reject, folder, copies))
            advance(1)
    lines = (json.dumps(item.__dict__, ensure_ascii=False) + "\n" for item in done)
    commit_bytes(folder / LIST, "".join(lines).encode())
    return done


def _export_one(media: _Media, reject: Reject, folder: Path, copies: bool) -> Reject:
    source = Path(reject.path)
    try:
        with source.open("rb") as file:
            same = hashlib.file_digest(file, "sha256").hexdigest() == reject.asset
    except OSError as error:
        return replace(reject, note=f"the source cannot be read: {error.strerror}")
    if not same:
        return replace(reject, note="the source has other bytes now")
    clip = media.clip(reject)
    try:
        if copies and (clip is None or reject.level != "clip"):
            target = folder / f"{reject.asset[:16]}{_suffix(source)}"
            with writing(target):
                shutil.copyfile(source, target)
            return replace(reject, files=(target.name,))
        if clip is None:
            return replace(reject, note="it was never decoded: export it with --copies")
        info = media.info(reject.asset)
        if copies:
            target = folder / f"{clip.id}{SUFFIX[clip.kind]}"
            media.open(cut, source, info, clip, target, media.settings(clip.kind))
            return replace(reject, files=(target.name,))
        preview = media.open(make_preview, folder, source, info, clip)
        files = tuple(p.name for p in (preview.player, preview.poster) if p is not None)
        return replace(reject, files=files, note="" if files else "it cannot be decoded")
    except MediaError as error:
        return replace(reject, note=str(error))


def _suffix(path: Path) -> str:
    """The file name's suffix if it is a plain one: a copy must not be run by a double click."""
    suffix = path.suffix.lower()
    return suffix if suffix[1:].isalnum() and len(suffix) <= 5 else ".bin"


class _Media:
    """What the ledger knows of the media behind verdict rows."""

    def __init__(self, table: VerdictTable, workers: Workers):
        self._workers = workers
        self.record = table.record
        self._ledger = Ledger(table.workspace)
        self._clips: dict[Kind, dict[str, Clip]] = {}
        self._infos: dict[str, str] | None = None

    def open(self, function: Callable[..., Any], *item: Any) -> Any:
        """function(*item), which opens media, apart from this process."""
        return self._workers.call(function, *item, name=str(item[0]))

    def info(self, asset: str) -> MediaInfo:
        if self._infos is None:
            rows = self._rows(self.record.media, MEDIA.names)
            self._infos = {row["unit"]: row["info"] for row in rows if row["info"]}
        if asset not in self._infos:
            raise MediaError(f"the ledger does not know what asset {asset[:16]} holds.")
        return info_from(self._infos[asset])

    def clip(self, reject: Reject) -> Clip | None:
        """The clip of a row; of an asset that was rejected whole, its whole span if decoded."""
        if not reject.kind:
            return None
        kind = Kind(reject.kind)
        if kind not in self._clips:
            table = self._ledger.table(self.record.kinds[kind].segments)
            found = clips_from(table, kind) if table is not None else {}
            self._clips[kind] = {clip.id: clip for clips in found.values() for clip in clips}
        if reject.level == "clip":
            return self._clips[kind].get(reject.unit)
        return self._whole(reject.asset, kind)

    def _whole(self, asset: str, kind: Kind) -> Clip | None:
        folder = self.record.decoded.replace("ledger/decoded/", "tracks/decode/")
        reader = TrackReader(self._ledger, folder)
        return whole_clip(asset, self.info(asset), reader[asset]) if asset in reader else None

    def settings(self, kind: Kind) -> CutSettings:
        """How the run encoded clips."""
        fields = _stage(self.record.kinds[kind], "Cut")
        known = CutSettings.__dataclass_fields__
        return CutSettings(**{name: value for name, value in fields.items() if name in known})

    def _rows(self, folder: str, columns: Sequence[str]) -> Iterator[Row]:
        files = [str(path) for path in self._ledger.files(folder)]
        if not files:
            return
        with duckdb.connect() as database:
            names = ", ".join(f'"{name}"' for name in columns)
            query = f"select {names} from read_parquet(?)"
            try:
                rows = database.execute(query, [files]).fetchall()
            except duckdb.Error as error:
                raise ReelmillError(f"ledger files in {folder} cannot be read: {error}") from error
        for row in rows:
            yield dict(zip(columns, row, strict=True))


def _stage(kind: KindRecord, name: str) -> dict[str, Any]:
    return next((dict(s.fields) for s in kind.stages if s.name == name), {})
