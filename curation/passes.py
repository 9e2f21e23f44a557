"""The passes that touch media: probe, whole-file stages, the one shared decode, clip stages.

Each pass takes a group of assets or clips, measures what the ledger does not have yet and commits
it. A file that cannot be read is an outcome; a stage that breaks is a defect, and stops the run
with its name and the file's.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path

import numpy as np

from reelmill.curation.media_table import DECODED, MEDIA, info_text, summary_tracks
from reelmill.curation.stage import (
    AssetStage,
    AudioAnalyser,
    AudioStage,
    ClipMedia,
    ClipStage,
    Facts,
    FrameAnalyser,
    FrameStage,
    Stage,
    WeightsStore,
)
from reelmill.curation.units import facts_row, facts_schema, failed_row
from reelmill.datasets.ledger import Batch, Ledger, rows_table, tracks_table
from reelmill.datasets.media.container import NotMedia
from reelmill.datasets.media.decode import (
    AudioBlock,
    Frame,
    MediaInfo,
    clip_audio,
    clip_frames,
    decode,
    probe,
)
from reelmill.datasets.sample import Asset, Clip
from reelmill.errors import MediaError, ReelmillError

Advance = Callable[[int], None]
MediaStage = FrameStage | AudioStage


@dataclass
class Clock:
    """Seconds of wall time spent in each stage, over a run."""

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


@contextmanager
def naming(stage: str, path: str) -> Iterator[None]:
    """Lets MediaError through; any other error of a stage stops the run, named."""
    try:
        yield
    except (ReelmillError, MemoryError):
        raise
    except Exception as error:
        raise ReelmillError(
            f"stage {stage} broke on {path}: {type(error).__name__}: {error}. This is a defect of "
            "the stage, not of the file. What was measured before it is committed; leave the stage "
            "out of the recipe or mend it, then run again."
        ) from error


@dataclass
class Passes:
    """The passes of one run. transient: failures of this run that the next one tries again."""

    ledger: Ledger
    keys: Mapping[str, str]
    decode_key: str
    clock: Clock = field(default_factory=Clock)
    transient: dict[tuple[str, str], str] = field(default_factory=dict)

    def facts_folder(self, stage: str) -> str:
        return f"ledger/facts/{stage}/{self.keys[stage]}"

    def tracks_folder(self, stage: str) -> str:
        return f"tracks/{stage}/{self.keys[stage]}"

    @property
    def media_folder(self) -> str:
        return f"ledger/media/{self.decode_key}"

    @property
    def decoded_folder(self) -> str:
        return f"ledger/decoded/{self.decode_key}"

    @property
    def decode_tracks(self) -> str:
        return f"tracks/decode/{self.decode_key}"

    def probe(self, assets: Sequence[Asset], advance: Advance) -> None:
        """Finds out what each file holds."""
        rows = []
        for asset in assets:
            row: dict[str, object] = {"unit": asset.sha256, "not_media": False}
            try:
                with self.clock.of("Ingest"), naming("Ingest", asset.path):
                    row["info"] = info_text(probe(Path(asset.path)))
            except NotMedia as error:
                row |= {"not_media": True, "message": str(error)}
            except MediaError as error:
                if error.cause == "transient":
                    self.transient["Ingest", asset.sha256] = str(error)
                    continue
                row |= {"cause": error.cause, "message": str(error)}
            rows.append(row)
            advance(1)
        batch = Batch()
        batch.add(self.media_folder, rows_table(rows, MEDIA))
        self.ledger.commit(batch)

    def whole_files(
        self, stage: AssetStage, assets: Sequence[tuple[Asset, MediaInfo]], advance: Advance
    ) -> None:
        """One AssetStage over assets."""
        rows = []
        for asset, info in assets:
            with self.clock.of(stage.name):
                measure = partial(stage.measure, Path(asset.path), info)
                row = self._try(stage, asset.sha256, asset.path, measure)
            if row is not None:
                rows.append(row)
            advance(1)
        batch = Batch()
        batch.add(self.facts_folder(stage.name), rows_table(rows, facts_schema(stage)))
        self.ledger.commit(batch)

    def _try(
        self, stage: Stage, unit: str, path: str, measure: Callable[[], Facts]
    ) -> dict[str, object] | None:
        try:
            with naming(stage.name, path):
                return facts_row(unit, stage, measure())
        except MediaError as error:
            if error.cause == "transient":
                self.transient[stage.name, unit] = str(error)
                return None
            return failed_row(unit, error.cause, str(error))

    def shared_decode(
        self,
        assets: Sequence[tuple[Asset, MediaInfo, Sequence[MediaStage]]],
        advance: Advance,
    ) -> None:
        """Decodes each asset once for the stages that lack its tracks, and commits the group."""
        batch = Batch()
        try:
            for asset, info, stages in assets:
                self._decode_one(asset, info, stages, batch)
                advance(1)
        finally:
            self.ledger.commit(batch)

    def _decode_one(
        self, asset: Asset, info: MediaInfo, stages: Sequence[MediaStage], batch: Batch
    ) -> None:
        frame_stages = [(s, s.open(info)) for s in stages if isinstance(s, FrameStage)]
        audio_stages = [(s, s.open(info)) for s in stages if isinstance(s, AudioStage)]
        spent = dict.fromkeys((s.name for s in stages), 0)
        now = time.perf_counter_ns

        def on_frame(frame: Frame) -> None:
            for stage, analyser in frame_stages:
                start = now()
                with naming(stage.name, asset.path):
                    analyser.frame(frame)
                spent[stage.name] += now() - start

        def on_audio(block: AudioBlock) -> None:
            for stage, analyser in audio_stages:
                start = now()
                with naming(stage.name, asset.path):
                    analyser.block(block)
                spent[stage.name] += now() - start

        row: dict[str, object] = {"unit": asset.sha256}
        begin = now()
        try:
            with naming("decode", asset.path):
                summary = decode(
                    Path(asset.path),
                    info,
                    on_frame=on_frame if frame_stages or info.video else None,
                    on_audio=on_audio if audio_stages or info.audio else None,
                )
        except MediaError as error:
            if error.cause == "transient":
                self.transient["decode", asset.sha256] = str(error)
                return
            row |= {"cause": error.cause, "message": str(error)}
        else:
            batch.add(self.decode_tracks, tracks_table(asset.sha256, summary_tracks(summary)))
            analysers: list[tuple[MediaStage, FrameAnalyser | AudioAnalyser]]
            analysers = [*frame_stages, *audio_stages]
            for stage, analyser in analysers:
                with naming(stage.name, asset.path):
                    tracks = analyser.finish(summary)
                    batch.add(self.tracks_folder(stage.name), tracks_table(asset.sha256, tracks))
        batch.add(self.decoded_folder, rows_table([row], DECODED))
        for name, nanoseconds in spent.items():
            self.clock.add(name, nanoseconds / 1e9)
        self.clock.add("decode", (now() - begin - sum(spent.values())) / 1e9)

    def clips(
        self, stage: ClipStage, media: Sequence[LazyMedia], weights: WeightsStore, advance: Advance
    ) -> None:
        """One ClipStage over clips, in batches; commits the group."""
        rows: list[dict[str, object]] = []
        with self.clock.of(stage.name), stage.session(weights) as measure:
            for start in range(0, len(media), stage.batch_size):
                group = media[start : start + stage.batch_size]
                rows += self._batch(stage, group, measure)
                advance(len(group))
                for item in group:
                    item.forget()
        batch = Batch()
        batch.add(self.facts_folder(stage.name), rows_table(rows, facts_schema(stage)))
        self.ledger.commit(batch)

    def _batch(
        self,
        stage: ClipStage,
        group: Sequence[LazyMedia],
        measure: Callable[[Sequence[ClipMedia]], list[Facts]],
    ) -> list[dict[str, object]]:
        try:
            names = ", ".join(item.clip.id for item in group)
            with naming(stage.name, f"clips {names}"):
                found = measure(group)
                return [facts_row(m.clip.id, stage, f) for m, f in zip(group, found, strict=True)]
        except MediaError as error:
            if len(group) > 1:
                return [row for item in group for row in self._batch(stage, [item], measure)]
            unit = group[0].clip.id
            if error.cause == "transient":
                self.transient[stage.name, unit] = str(error)
                return []
            return [failed_row(unit, error.cause, str(error))]


@dataclass
class LazyMedia:
    """A clip whose media are decoded when asked for, and forgotten after its batch."""

    clip: Clip
    info: MediaInfo
    facts: Facts
    path: Path

    @cached_property
    def _audio(self) -> dict[int, np.ndarray]:
        return {}

    @cached_property
    def _frames(self) -> dict[tuple[float, int], np.ndarray]:
        return {}

    def audio(self, rate: int) -> np.ndarray:
        if rate not in self._audio:
            self._audio[rate] = clip_audio(self.path, self.info, self.clip, rate)
        return self._audio[rate]

    def frames(self, fps: float, height: int) -> np.ndarray:
        if (fps, height) not in self._frames:
            self._frames[fps, height] = clip_frames(self.path, self.info, self.clip, fps, height)
        return self._frames[fps, height]

    def forget(self) -> None:
        self._audio.clear()
        self._frames.clear()
