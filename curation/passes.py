"""The passes that touch media: probe, whole-file stages, the one shared decode, clip stages.

Each pass takes a group of assets or clips, has workers measure what the ledger does not have yet
(reelmill.curation.measure) and commits it, in the order of the group.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import pyarrow as pa

from reelmill.curation.crew import Crew
from reelmill.curation.measure import (
    DECODE,
    Found,
    LazyMedia,
    MediaStage,
    decode_file,
    measure_clips,
    measure_file,
    probe_file,
)
from reelmill.curation.media_table import DECODED, MEDIA
from reelmill.curation.stage import AssetStage, ClipStage, Resources, WeightsStore
from reelmill.curation.units import facts_schema
from reelmill.curation.workers import Lost, Workers
from reelmill.datasets.ledger import Batch, Ledger, rows_table
from reelmill.datasets.media.decode import MediaInfo
from reelmill.datasets.sample import Asset
from reelmill.errors import MediaError

Advance = Callable[[int], None]
READ_BYTES_S = 10e6  # a file that is read in silence gets a second more for each so many bytes
SPILL_ROWS, SPILL_BYTES = 1000, 64 << 20  # what a pass holds in memory before it commits
CLIP_PATIENCE = 20.0  # seconds for a second of clip: a large model on a slow core


@dataclass
class Clock:
    """Seconds of work in each stage, over a run; workers' seconds are added up."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def of(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.add(name, time.perf_counter() - start)

    def add(self, name: str, seconds: float) -> None:
        self.seconds[name] = self.seconds.get(name, 0.0) + seconds


@dataclass
class Passes:
    """The passes of one run. transient: failures of this run that the next one tries again."""

    ledger: Ledger
    keys: Mapping[str, str]
    decode_key: str
    workers: Crew = field(default_factory=lambda: Workers(0))
    clock: Clock = field(default_factory=Clock)
    transient: dict[tuple[str, str], str] = field(default_factory=dict)
    fact_keys: dict[str, str] = field(default_factory=dict)
    weights: WeightsStore | None = None

    def fact_key(self, stage: str) -> str:
        """Key of a stage's facts: that of its measurement, but for a Segmenter (Level)."""
        return self.fact_keys.get(stage, self.keys[stage])

    def facts_folder(self, stage: str) -> str:
        return f"ledger/facts/{stage}/{self.fact_key(stage)}"

    def tracks_folder(self, stage: str) -> str:
        return f"tracks/{stage}/{self.keys[stage]}" if stage != DECODE else self.decode_tracks

    @property
    def media_folder(self) -> str:
        return f"ledger/media/{self.decode_key}"

    @property
    def decoded_folder(self) -> str:
        return f"ledger/decoded/{self.decode_key}"

    @property
    def decode_tracks(self) -> str:
        return f"tracks/{DECODE}/{self.decode_key}"

    def probe(self, assets: Sequence[Asset], advance: Advance) -> None:
        """Finds out what each file holds."""
        found = self.workers.map(
            probe_file,
            [(asset,) for asset in assets],
            name=lambda i: assets[i].path,
            patience=lambda i: assets[i].bytes / READ_BYTES_S,
        )
        with self.committing(self.media_folder, MEDIA) as batch:
            for asset, one in zip(assets, found, strict=True):
                rows = self.note("Ingest", asset.sha256, one, batch)
                batch.rows += [{"not_media": False} | row for row in rows]
                advance(1)

    def whole_files(
        self, stage: AssetStage, assets: Sequence[tuple[Asset, MediaInfo]], advance: Advance
    ) -> None:
        """One AssetStage over assets."""
        found = self.workers.map(
            measure_file,
            [(stage, asset, info) for asset, info in assets],
            name=lambda i: f"stage {stage.name} on {assets[i][0].path}",
            patience=lambda i: assets[i][0].bytes / READ_BYTES_S,
            needs=stage.resources,
        )
        with self.committing(self.facts_folder(stage.name), facts_schema(stage)) as batch:
            for (asset, _), one in zip(assets, found, strict=True):
                batch.rows += self.note(stage.name, asset.sha256, one, batch)
                advance(1)

    def shared_decode(
        self,
        assets: Sequence[tuple[Asset, MediaInfo, Sequence[MediaStage]]],
        advance: Advance,
    ) -> None:
        """Decodes each asset once for the stages that lack its tracks, and commits the group."""
        stages = {stage.name: stage for _, _, some in assets for stage in some}
        found = self.workers.map(
            decode_file,
            [(*item, self.weights) for item in assets],
            name=lambda i: assets[i][0].path,
            needs=together([stage.resources for stage in stages.values()]),
        )
        with self.committing(self.decoded_folder, DECODED) as batch:
            for (asset, _, _), one in zip(assets, found, strict=True):
                batch.rows += self.note(DECODE, asset.sha256, one, batch)
                advance(1)

    def clips(
        self, stage: ClipStage, media: Sequence[LazyMedia], weights: WeightsStore, advance: Advance
    ) -> None:
        """One ClipStage over clips, in batches; commits the group."""
        size = stage.batch_size
        groups = [media[start : start + size] for start in range(0, len(media), size)]
        with self.committing(self.facts_folder(stage.name), facts_schema(stage)) as batch:
            for group, one in zip(groups, self._clips(stage, weights, groups), strict=True):
                each: Iterable[Found | Lost] = [one]
                if isinstance(one, Lost) and len(group) > 1:  # one of them is at fault
                    each = self._clips(stage, weights, [[item] for item in group])
                for item, result in zip(group, each, strict=False):
                    batch.rows += self.note(stage.name, item.clip.id, result, batch)
                advance(len(group))

    def _clips(
        self, stage: ClipStage, weights: WeightsStore, groups: Sequence[Sequence[LazyMedia]]
    ) -> Iterator[Found | Lost]:
        return self.workers.map(
            measure_clips,
            [(stage, weights, group) for group in groups],
            name=lambda i: f"stage {stage.name} on clip {groups[i][0].clip.id}",
            patience=lambda i: CLIP_PATIENCE * sum(item.clip.seconds for item in groups[i]),
            needs=stage.resources,
        )

    def note(
        self, stage: str, unit: str, found: Found | Lost, batch: Gathered
    ) -> Iterable[dict[str, object]]:
        """Takes in what a worker found of a unit: its tracks, time, failures. Returns its rows.

        What was gathered of the units before it is committed first, where that is much.
        """
        if len(batch.rows) >= SPILL_ROWS or batch.bytes >= SPILL_BYTES:
            batch.commit(self.ledger)
        if isinstance(found, Lost):
            lost, found = found, Found()
            found.fail(unit, MediaError(lost.message, cause=lost.cause))
        for name, tracks in found.tracks.items():
            batch.tables.add(self.tracks_folder(name), tracks)
            batch.bytes += tracks.nbytes
        for name, seconds in found.seconds.items():
            self.clock.add(name, seconds)
        for failed, message in found.transient.items():
            self.transient[stage, failed] = message
        return found.rows

    @contextmanager
    def committing(self, folder: str, schema: pa.Schema) -> Iterator[Gathered]:
        """Commits what was gathered, also when the group is interrupted."""
        batch = Gathered(folder, schema)
        try:
            yield batch
        finally:
            batch.commit(self.ledger)


def together(resources: Sequence[Resources]) -> Resources:
    """What a worker takes that holds several stages at once: the most that any asks for."""
    return Resources(
        cpus=max((one.cpus for one in resources), default=1.0),
        gpus=max((one.gpus for one in resources), default=0.0),
        memory_gb=max((one.memory_gb for one in resources), default=0.5),
    )


@dataclass
class Gathered:
    """Rows of one table and other tables, on their way into a commit. bytes: of the tables."""

    folder: str
    schema: pa.Schema
    rows: list[dict[str, object]] = field(default_factory=list)
    tables: Batch = field(default_factory=Batch)
    bytes: int = 0

    def commit(self, ledger: Ledger) -> None:
        """Commits, and begins anew."""
        tables, self.tables, self.bytes = self.tables, Batch(), 0
        tables.add(self.folder, rows_table(self.rows, self.schema))
        self.rows.clear()  # the list stays: who adds to it may hold it already
        ledger.commit(tables)
