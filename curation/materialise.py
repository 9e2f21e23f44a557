"""Materialising: survivors are cut, encoded and packed into shards. Encoding happens here, last.

A cut lies in `cuts/` until a shard set that holds it is committed; the next run takes its bytes
from that shard set, so a survivor that stays is never encoded again.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc

from reelmill.curation.cut import SUFFIX, cut, cut_key
from reelmill.curation.cut_stage import Cut
from reelmill.curation.level import Level
from reelmill.curation.measure import Found, naming
from reelmill.curation.passes import Advance
from reelmill.curation.units import MEASURED, STATUS, facts_schema
from reelmill.datasets.manifest import caption_file, printable
from reelmill.datasets.media.decode import MediaInfo
from reelmill.datasets.sample import Clip
from reelmill.datasets.shards import (
    ShardInfo,
    ShardSample,
    find_existing,
    read_manifest,
    write_shards,
)
from reelmill.datasets.workspace import Workspace
from reelmill.errors import MediaError, ReelmillError

MAX_CAPTION_BYTES = 64 << 10
CUT_PATIENCE = 60.0  # seconds for a second of clip: large pictures on a slow core


@dataclass(frozen=True)
class Materialised:
    """What a kind's survivors became. cut: clips encoded by this run; written: samples packed."""

    shards: tuple[Path, ...]
    manifest: tuple[ShardInfo, ...]
    cut: int
    written: int


def cut_file(path: Path, info: MediaInfo, clip: Clip, final: Path, stage: Cut) -> Found:
    """Cuts one clip: the file, there whole or not at all, and a row of the stage's facts."""
    found = Found()
    part = final.with_name(f"part-{final.name}")
    try:
        with found.timing(stage.name), naming(stage.name, str(path)):
            written = cut(path, info, clip, part, stage.settings)
            part.replace(final)
    except MediaError as error:
        found.fail(clip.id, error)
        return found
    proven = asdict(written)
    del proven["path"]
    found.rows.append(
        {
            "unit": clip.id,
            "cut_frames": written.frames,
            "cut_samples": written.samples,
            "av_offset_ms": written.av_offset_ms,
            "cut_bytes": written.bytes,
            "cut": json.dumps(proven, sort_keys=True, default=str),
        }
    )
    return found


class Packer:
    """Cuts and packs the survivors of one kind."""

    def __init__(self, workspace: Workspace, level: Level):
        self.workspace, self.level = workspace, level
        stage = level.recipe.stages[-1]
        assert isinstance(stage, Cut), "recipe.check() puts Cut last"
        self.stage = stage
        self.settings = stage.settings
        self.clips: list[Clip] = level.kept()
        self.keys = {clip.id: cut_key(clip, self.settings) for clip in self.clips}
        self.folder = workspace.shards(str(level.recipe.kind))
        self.existing = find_existing(self.folder)
        self.cut_now = 0

    @property
    def _facts_folder(self) -> str:
        return self.level.passes.facts_folder(self.stage.name)

    def _file(self, clip: Clip) -> Path:
        return self.workspace.cuts / f"{clip.id}.{self.keys[clip.id]}{SUFFIX[clip.kind]}"

    def missing(self) -> list[Clip]:
        """Survivors that have neither a cut file, a place in a shard, nor a recorded failure."""
        have = self.level.passes.ledger.units(self._facts_folder)
        table = self.level.passes.ledger.table(self._facts_folder)
        failed = set()
        if table is not None:
            failed = set(table.filter(pc.is_valid(table["cause"]))["unit"].to_pylist())
        work = [
            clip
            for clip in self.clips
            if clip.id not in failed
            and not (
                clip.id in have
                and ((clip.id, self.keys[clip.id]) in self.existing or self._file(clip).exists())
            )
        ]
        self.level.measured[self.stage.name] = len(work)
        return work

    def cut(self, clips: Sequence[Clip], advance: Advance) -> None:
        """Cuts a group of clips and commits what was found."""
        self.workspace.cuts.mkdir(exist_ok=True)
        passes, by_id = self.level.passes, self.level.by_id
        found = passes.workers.map(
            cut_file,
            [
                (Path(by_id[c.asset].path), self.level.infos[c.asset], c, self._file(c), self.stage)
                for c in clips
            ],
            name=lambda i: f"cut of clip {clips[i].id} from {by_id[clips[i].asset].path}",
            patience=lambda i: CUT_PATIENCE * clips[i].seconds,
        )
        with passes.committing(self._facts_folder, facts_schema(self.stage)) as batch:
            for clip, one in zip(clips, found, strict=True):
                rows = passes.note(self.stage.name, clip.id, one, batch)
                self.cut_now += any(row.get("cut") is not None for row in rows)
                batch.rows += rows
                advance(1)

    def pack(self, advance: Advance) -> Materialised:
        """Decides the cut, writes the shard set of what survived, then lets go of the cuts."""
        self.level.decide(self.stage)
        survivors = self.level.kept()
        if survivors or self.folder.exists():
            manifest = write_shards(
                self._samples(survivors, advance),
                self.folder,
                prefix=str(self.level.recipe.kind),
                max_samples=int(self.stage.shard_samples.value or 1000),
                max_bytes=int((self.stage.shard_megabytes.value or 512) * 1e6),
            )
        else:
            manifest = read_manifest(self.folder)
        for clip in survivors:
            self._file(clip).unlink(missing_ok=True)
        for part in self.workspace.cuts.glob("part-*"):  # of workers that died over them
            part.unlink()
        paths = tuple(self.folder / shard.file for shard in manifest)
        return Materialised(paths, tuple(manifest), self.cut_now, len(survivors))

    def _samples(self, clips: Sequence[Clip], advance: Advance) -> Iterator[ShardSample]:
        units = self.level.clips.units
        row_of = {unit: row for row, unit in enumerate(units.ids)}
        for clip in sorted(clips, key=lambda c: c.id):
            row, key = row_of[clip.id], self.keys[clip.id]
            proven = json.loads(units.columns["cut"].values[row])
            asset = self.level.by_id[clip.asset]
            file = self._file(clip)
            data = file.read_bytes() if file.exists() else self.existing[clip.id, key]()
            yield ShardSample(
                key=clip.id,
                suffix=SUFFIX[clip.kind],
                media=data,
                caption=_caption(Path(asset.path)),
                record={
                    "id": clip.id,
                    "kind": str(clip.kind),
                    "asset": clip.asset,
                    "file": min(printable(Path(p).name) for p in asset.paths),
                    "start_us": clip.start_us,
                    "end_us": clip.end_us,
                    "cut_key": key,
                    "cut": proven,
                    "facts": self._facts(row),
                },
            )
            advance(1)

    def _facts(self, row: int) -> dict[str, Any]:
        """Facts of a clip as plain JSON; those without a value say why."""
        found: dict[str, Any] = {}
        for name, column in self.level.clips.units.columns.items():
            if name in {fact.name for fact in self.stage.adds}:
                continue
            if column.status[row] == MEASURED:
                value = column.values[row]
                found[name] = value if isinstance(value, str) else _number(value, column.fact.dtype)
            else:
                found[name] = {"no_value": str(STATUS[column.status[row]])}
        return found


def _number(value: np.floating, dtype: type) -> float | int | bool:
    return dtype(value) if dtype is not float else round(float(value), 6)


def _caption(path: Path) -> str | None:
    """The caption that lies beside a media file, or None. Raises for one that is no short text."""
    file = caption_file(path)
    if file == path or not file.is_file():
        return None
    try:
        with file.open("rb") as handle:
            data = handle.read(MAX_CAPTION_BYTES + 1)
        if len(data) > MAX_CAPTION_BYTES:
            raise ValueError(f"it is longer than {MAX_CAPTION_BYTES} bytes")
        return data.decode("utf-8").strip()
    except (OSError, ValueError) as error:
        raise ReelmillError(
            f"caption {printable(file)} cannot be used: {error}. Mend or remove it, then run again."
        ) from error
