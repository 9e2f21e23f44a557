"""A workspace whose ledger already holds every measurement of N synthetic clips.

Files, hashes, ledger, keys, segments, facts and cuts are real: written by the code that a run
writes them with, in groups as large as a run's. Only the values are drawn, so that a run over the
workspace measures nothing, and what it costs is ingest, deciding, packing and the report.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import numpy as np

from reelmill.curation.cut import SUFFIX, cut_key
from reelmill.curation.cut_stage import CORRECTION, Cut
from reelmill.curation.engine import MAX_GROUPS, CurateOptions, Curation
from reelmill.curation.keys import decode_components, key_of, stage_components
from reelmill.curation.level import Level, group
from reelmill.curation.media_table import (
    CLIPS,
    DECODED,
    MEDIA,
    clip_row,
    info_text,
    summary_tracks,
)
from reelmill.curation.passes import Passes
from reelmill.curation.recipe import Recipe
from reelmill.curation.stage import Bound, Fact, Stage, TableStage
from reelmill.curation.units import facts_row, facts_schema
from reelmill.datasets.ledger import Batch, Ledger, rows_table, tracks_table
from reelmill.datasets.manifest import build_manifest
from reelmill.datasets.media.decode import AudioInfo, DecodeSummary, MediaInfo, VideoInfo
from reelmill.datasets.sample import Asset, Clip, Kind
from reelmill.datasets.workspace import open_workspace

CLIPS_AN_ASSET = 5
FRAMES_A_CLIP = 72
TIME_BASE = Fraction(1, 24)
BREAKS = 0.02  # share of units that break a bound
COPIES = 0.05  # share of clips that look like another one
HASHES_A_CLIP = 12  # 4 a second
INFO = MediaInfo(
    Kind.VIDEO,
    "mp4",
    CLIPS_AN_ASSET * FRAMES_A_CLIP / 24,
    64,
    VideoInfo(
        1920, 1080, 1920, 1080, 0, Fraction(1), TIME_BASE, Fraction(24),
        CLIPS_AN_ASSET * FRAMES_A_CLIP, "h264", "yuv420p", 0.0,
    ),
    AudioInfo(48_000, 2, "aac", 0.0),
)  # fmt: skip


def make_workspace(options: CurateOptions, clips: int, *, seed: int = 0) -> None:
    """Makes the source folder and the workspace that a run with these options then uses.

    options: of one source folder and the video recipe. clips: a multiple of CLIPS_AN_ASSET.
    """
    media = Path(options.sources[0])
    for number in range(clips // CLIPS_AN_ASSET):
        file = media / f"{number // 1000:04d}" / f"{number:07d}.mp4"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(f"{seed} {number}".encode().ljust(64))
    curation = Curation(options)
    with tempfile.TemporaryDirectory() as elsewhere:  # the run itself is to hash the files
        scratch = open_workspace(Path(elsewhere) / "workspace")
        assets = build_manifest(curation.files, scratch).assets
    _Planter(curation, seed).plant(assets)


class _Planter:
    def __init__(self, curation: Curation, seed: int):
        self.recipe: Recipe = curation.recipes[Kind.VIDEO]
        self.workspace = curation.workspace
        self.ledger = Ledger(curation.workspace)
        parts = stage_components(self.recipe.stages, curation.weight_digests())
        keys = {name: key_of(part) for name, part in parts.items()}
        self.passes = Passes(self.ledger, keys, key_of(decode_components()))
        self.level = Level(self.recipe, self.passes, [], {})
        self.rng = np.random.default_rng(seed)
        self.hashes = np.zeros(0, np.uint64)

    def plant(self, assets: Sequence[Asset]) -> None:
        for some in group(assets, 16, MAX_GROUPS):
            self._assets(some)

    def _assets(self, assets: Sequence[Asset]) -> None:
        frames = CLIPS_AN_ASSET * FRAMES_A_CLIP
        summary = DecodeSummary(np.arange(frames), 1, frames, 0, 2000 * frames, "")
        batch = Batch()
        info = info_text(INFO)
        units = [a.sha256 for a in assets]
        media = [{"unit": u, "info": info, "not_media": False} for u in units]
        batch.add(self.passes.media_folder, rows_table(media, MEDIA))
        decoded = [{"unit": u} for u in units]
        batch.add(self.passes.decoded_folder, rows_table(decoded, DECODED))
        known = summary_tracks(summary)
        for unit in units:
            batch.add(self.passes.decode_tracks, tracks_table(unit, known))
        for stage in self.level.media_stages:
            for unit in units:
                track = self.rng.random(frames, np.float32)
                batch.add(self.passes.tracks_folder(stage.name), tracks_table(unit, {"x": track}))
        clips = [clip for unit in units for clip in _clips_of(unit)]
        spans = [clip_row(clip.asset, clip) for clip in clips]
        batch.add(self.level.segments_folder, rows_table(spans, CLIPS))
        for stages, names in (
            (self.level.asset_stages, units),
            (self.level.clip_stages, [clip.id for clip in clips]),
        ):
            for stage in stages:
                if not isinstance(stage, TableStage):
                    rows = self._cuts(stage, clips) if isinstance(stage, Cut) else None
                    rows = rows or list(self._facts(stage, names))
                    folder = self.passes.facts_folder(stage.name)
                    batch.add(folder, rows_table(rows, facts_schema(stage)))
        self.ledger.commit(batch)

    def _facts(self, stage: Stage, units: Sequence[str]) -> Iterator[dict[str, object]]:
        columns = {f.name: self._values(stage, f, len(units)) for f in stage.adds}
        for row, unit in enumerate(units):
            yield facts_row(unit, stage, {n: values[row] for n, values in columns.items()})

    def _values(self, stage: Stage, fact: Fact, count: int) -> Sequence:
        if fact.name == "phash":
            self.hashes = self._looks(count)
            return [_hexadecimal(row) for row in self.hashes]
        if fact.name == "phash_mirrored":
            return [_hexadecimal(~row) for row in self.hashes]
        if fact.name == "phash_inner":
            return [_hexadecimal(row ^ np.uint64(0x5A5A_5A5A_5A5A_5A5A)) for row in self.hashes]
        if fact.name == "phash_ms":
            return ["".join(f"{250 * n:06x}" for n in range(HASHES_A_CLIP))] * count
        if fact.name.endswith(("_box", "_boxes")):
            corners = np.sort(self.rng.uniform(0, 1, (count, 2, 2)), axis=1).reshape(count, 4)
            return [" ".join(f"{side:.4f}" for side in box) for box in corners]
        if fact.name == CORRECTION:
            return [0.0] * count  # the cuts that lie there have none
        if fact.dtype is str:
            return [f"{fact.name} {n}" for n in self.rng.integers(0, 1000, count)]
        low, high = fact.low, fact.high
        bounds = [b for b in stage.bounds().values() if b.fact == fact.name and b.value is not None]
        values = self.rng.uniform(*_inside(low, high, bounds), count)
        for bound in bounds:
            broken = self.rng.random(count) < BREAKS
            span = (high - low) * 0.01
            values[broken] = bound.value + (span if bound.op in ("<", "<=") else -span)
        if fact.dtype is not float:
            values = np.rint(values)
        return [fact.dtype(v) for v in values]

    def _looks(self, count: int) -> np.ndarray:
        """Hashes [count, HASHES_A_CLIP]; some clips look like the one four places before."""
        looks = self.rng.integers(0, 2**64, (count, HASHES_A_CLIP), dtype=np.uint64)
        looks[:, 1:] = np.uint64(1) << self.rng.integers(0, 64, looks[:, 1:].shape, dtype=np.uint64)
        looks = np.bitwise_xor.accumulate(looks, axis=1)  # from frame to frame a bit changes
        for row in np.flatnonzero(self.rng.random(count) < COPIES):
            if row >= 2 * CLIPS_AN_ASSET:
                looks[row] = looks[row - 2 * CLIPS_AN_ASSET] ^ np.uint64(1 << int(row % 64))
        return looks

    def _cuts(self, stage: Cut, clips: Sequence[Clip]) -> list[dict[str, object]]:
        self.workspace.cuts.mkdir(exist_ok=True)
        rows: list[dict[str, object]] = []
        proven = {
            "frames": FRAMES_A_CLIP, "samples": 1, "av_offset_ms": 0.0, "bytes": 48,
            "seconds": 3.0, "width": 1920, "height": 1080, "fps": 24.0,
        }  # fmt: skip
        for clip in clips:
            key = cut_key(clip, stage.settings)
            file = self.workspace.cuts / f"{clip.id}.{key}{SUFFIX[clip.kind]}"
            file.write_bytes(clip.id.encode().ljust(48))
            facts = {f.name: 0 for f in stage.adds if f.dtype is not str}
            facts |= {"cut": json.dumps(proven, sort_keys=True)}
            rows.append({"unit": clip.id, **facts})
        return rows


def _inside(low: float, high: float, bounds: Iterable[Bound]) -> tuple[float, float]:
    """The part of [low, high] in which every bound holds."""
    for bound in bounds:
        assert bound.value is not None
        if bound.op in (">", ">="):
            low = max(low, bound.value + (high - low) * 0.02)
        else:
            high = min(high, bound.value - (high - low) * 0.02)
    return (low, high) if low < high else (high, high)


def _clips_of(asset: str) -> list[Clip]:
    edges = [FRAMES_A_CLIP * i for i in range(CLIPS_AN_ASSET + 1)]
    return [Clip(asset, Kind.VIDEO, a, b, TIME_BASE, 0, a, b) for a, b in pairwise(edges)]


def _hexadecimal(hashes: np.ndarray) -> str:
    return "".join(f"{int(h):016x}" for h in hashes)
