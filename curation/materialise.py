"""Materialising: survivors are cut, encoded and packed into shards. Encoding happens here, last.

A cut lies in `cuts/` until a shard set that holds it is committed; the next run takes its bytes
from that shard set, so a survivor that stays is never encoded again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc

from reelmill.curation.cut import SUFFIX, cut, cut_key
from reelmill.curation.cut_stage import CORRECTION, CROP, SHARE, Cut
from reelmill.curation.frame_shape import Box, crop_box
from reelmill.curation.level import Level
from reelmill.curation.measure import Found, naming
from reelmill.curation.passes import Advance
from reelmill.curation.units import MEASURED, STATUS, facts_schema
from reelmill.datasets.ingest.remote import file_name
from reelmill.datasets.joining import Joined, JoinOptions, join_shards
from reelmill.datasets.manifest import caption_file, printable
from reelmill.datasets.media.decode import MediaInfo
from reelmill.datasets.sample import Asset, Clip, Kind
from reelmill.datasets.shards import (
    ShardInfo,
    ShardSample,
    find_existing,
    read_manifest,
    write_shards,
)
from reelmill.datasets.workspace import Workspace, aside
from reelmill.errors import MediaError, ReelmillError

MAX_CAPTION_BYTES = 64 << 10
CUT_PATIENCE = 60.0  # seconds for a second of clip: large pictures on a slow core


@dataclass(frozen=True)
class Materialised:
    """What a kind's survivors became. cut: clips encoded by this run; written: samples packed.

    joined: what became of short clips of sound beside the shards.
    """

    shards: tuple[Path, ...]
    manifest: tuple[ShardInfo, ...]
    cut: int
    written: int
    joined: Joined | None = None


def cut_file(
    path: Path,
    info: MediaInfo,
    clip: Clip,
    final: Path,
    stage: Cut,
    box: Box | None,
    delay: float,
) -> Found:
    """Cuts one clip: the file, there whole or not at all, and a row of the stage's facts."""
    found = Found()
    part = aside(final)
    try:
        with found.timing(stage.name), naming(stage.name, str(path)):
            written = cut(path, info, clip, part, stage.settings, box, delay)
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
        self.ids = [clip.id for clip in self.clips]
        self.boxes = self._boxes() if stage.crop else {}
        self.delays = self._delays()
        self.keys = {
            i: cut_key(c, self.settings, self.boxes.get(i), self.delays.get(i, 0.0))
            for i, c in zip(self.ids, self.clips, strict=True)
        }
        self.folder = workspace.shards(str(level.recipe.kind))
        self.existing = find_existing(self.folder)
        self.cut_now = 0

    @property
    def _facts_folder(self) -> str:
        return self.level.passes.facts_folder(self.stage.name)

    def _boxes(self) -> dict[str, Box]:
        """What each survivor that has bars is cropped to."""
        units = self.level.clips.units
        if any(name not in units.columns for name in (*CROP, SHARE)):
            return {}
        barred = self.level.clips.alive & (units.columns[SHARE].values < 1)
        sides = np.stack([units.columns[name].values.astype(np.float64) for name in CROP], axis=1)
        found = {}
        for row in np.flatnonzero(barred & ~np.isnan(sides).any(axis=1)):
            video = self.level.infos[units.clips[row].asset].video
            x, y, w, h = (int(side) for side in sides[row])
            if video is not None and (box := crop_box((x, y, w, h), video.width, video.height)):
                found[units.ids[row]] = box
        return found

    def _delays(self) -> dict[str, float]:
        """Seconds by which each survivor's sound is put later, where AVSync found an offset."""
        units = self.level.clips.units
        if CORRECTION not in units.columns:
            return {}
        found = units.columns[CORRECTION].values.astype(np.float64)
        moved = self.level.clips.alive & ~np.isnan(found) & (found != 0)
        return {units.ids[row]: round(float(found[row]), 6) for row in np.flatnonzero(moved)}

    def _name(self, clip_id: str) -> str:
        return f"{clip_id}.{self.keys[clip_id]}{SUFFIX[self.level.recipe.kind]}"

    def _file(self, clip: Clip) -> Path:
        return self.workspace.cuts / self._name(clip.id)

    def _made(self) -> set[str]:
        """Names of the cuts that wait for a shard."""
        folder = self.workspace.cuts
        return set(os.listdir(folder)) if folder.is_dir() else set()  # noqa: PTH208 - 100,000 names

    def missing(self) -> list[Clip]:
        """Survivors that have neither a cut file, a place in a shard, nor a recorded failure."""
        have = self.level.passes.ledger.has(self._facts_folder, self.ids)
        made = self._made()
        table = self.level.passes.ledger.table(self._facts_folder)
        failed = set()
        if table is not None:
            failed = set(table.filter(pc.is_valid(table["cause"]))["unit"].to_pylist())
        work = [
            clip
            for name, clip, known in zip(self.ids, self.clips, have, strict=True)
            if name not in failed
            and not (
                known and ((name, self.keys[name]) in self.existing or self._name(name) in made)
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
                (
                    Path(by_id[c.asset].path),
                    self.level.infos[c.asset],
                    c,
                    self._file(c),
                    self.stage,
                    self.boxes.get(c.id),
                    self.delays.get(c.id, 0.0),
                )
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
        self._remove_cuts({clip.id for clip in survivors})
        paths = tuple(self.folder / shard.file for shard in manifest)
        return Materialised(paths, tuple(manifest), self.cut_now, len(survivors))

    @property
    def joins(self) -> bool:
        """Whether short clips are joined too."""
        return self.level.recipe.kind is Kind.AUDIO and self.stage.join_seconds.value is not None

    def join(self, made: Materialised, advance: Advance) -> Materialised:
        """Joins what `pack` packed, as far as it is not there already."""
        if not made.manifest and not self.folder.exists():
            return made
        options = JoinOptions(
            max_seconds=self.stage.join_seconds.value or 0.0,
            shard_samples=int(self.stage.shard_samples.value or 1000),
            shard_bytes=int((self.stage.shard_megabytes.value or 512) * 1e6),
        )
        output = self.workspace.joined(str(self.level.recipe.kind))
        joined = join_shards(self.folder, output, options, empty=True, advance=advance)
        if joined.clips != made.written or joined.parts + joined.alone != joined.clips:
            raise ReelmillError(
                f"{made.written} clips were packed and {joined.parts} + {joined.alone} of "
                f"{joined.clips} joined: {output} is not of these shards."
            )
        return replace(made, joined=joined)

    def _remove_cuts(self, packed: Collection[str]) -> None:
        """Removes cuts that are packed, of other settings, or of clips that are not there now.

        Those of clips that are rejected now stay: they may come back.
        """
        there = set(self.level.clips.units.ids)
        for name in self._made():
            clip, _, _ = name.partition(".")
            if not name.endswith(SUFFIX[self.level.recipe.kind]):
                continue
            stale = clip not in there or (clip in self.keys and name != self._name(clip))
            if stale or clip in packed:
                (self.workspace.cuts / name).unlink()

    def _samples(self, clips: Sequence[Clip], advance: Advance) -> Iterator[ShardSample]:
        units = self.level.clips.units
        row_of = {unit: row for row, unit in enumerate(units.ids)}
        made = self._made()
        for name, clip in sorted((clip.id, clip) for clip in clips):
            row, key = row_of[name], self.keys[name]
            proven = json.loads(units.columns["cut"].values[row])
            asset = self.level.by_id[clip.asset]
            waits = self._name(name) in made
            given = json.loads(asset.columns) if asset.columns else []
            facts = self._facts(row)
            data = self._file(clip).read_bytes() if waits else self.existing[name, key]()
            yield ShardSample(
                key=name,
                suffix=SUFFIX[clip.kind],
                media=data,
                caption=_caption(asset, given) or _measured_caption(facts),
                record={
                    "id": name,
                    "kind": str(clip.kind),
                    "asset": clip.asset,
                    "file": min(printable(file_name(p)) for p in asset.paths),
                    "start_us": clip.start_us,
                    "end_us": clip.end_us,
                    "cut_key": key,
                    "cut": proven,
                    "facts": facts,
                }
                | ({"shots": clip.shots} if clip.kind == Kind.VIDEO else {})
                | ({"manifest": given} if given else {}),
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


def _measured_caption(facts: Mapping[str, Any]) -> str | None:
    """What the stage Caption wrote, where the recipe has it."""
    made = facts.get("caption_structured")
    return made if isinstance(made, str) else None


def _caption(asset: Asset, given: Sequence[Mapping[str, Any]]) -> str | None:
    """The caption that a manifest gives, else the one beside a media file, or None.

    Raises for a file that is no short text.
    """
    said = sorted({row["caption"] for row in given if isinstance(row.get("caption"), str)} - {""})
    if said:
        return said[0].strip()
    path = Path(asset.path)
    file = Path(asset.caption) if asset.caption else caption_file(path)
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
