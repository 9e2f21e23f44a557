"""What a worker does with one file or one batch of clips.

Each function takes plain values, opens media, and gives back rows and tables for the ledger. A
file that cannot be read is an outcome; a stage that breaks is a defect, and raises ReelmillError
with its name and the file's.
"""

from __future__ import annotations

import pickle
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import pyarrow as pa

from reelmill.curation.media_table import info_text, summary_tracks
from reelmill.curation.pulse import beat
from reelmill.curation.stage import (
    AssetStage,
    AudioStage,
    ClipMedia,
    ClipStage,
    Facts,
    FrameStage,
    WeightsStore,
)
from reelmill.curation.units import facts_row, failed_row
from reelmill.curation.viewing import Viewing
from reelmill.datasets.ledger import tracks_table
from reelmill.datasets.media.container import NotMedia
from reelmill.datasets.media.decode import (
    AudioBlock,
    MediaInfo,
    clip_audio,
    clip_frames,
    decode,
    probe,
)
from reelmill.datasets.sample import Asset, Clip
from reelmill.errors import MediaError, ReelmillError

DECODE = "decode"
MediaStage = FrameStage | AudioStage
Row = dict[str, object]


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
class Found:
    """What was found of one item.

    rows: of the stage's table. tracks: by stage. transient: failures by unit that are not
    recorded, so that the next run tries again. seconds: wall time by stage.
    """

    rows: list[Row] = field(default_factory=list)
    tracks: dict[str, pa.Table] = field(default_factory=dict)
    transient: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    def fail(self, unit: str, error: MediaError) -> None:
        if error.cause == "transient":
            self.transient[unit] = str(error)
        else:
            self.rows.append(failed_row(unit, error.cause, str(error)))

    @contextmanager
    def timing(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - start


def probe_file(asset: Asset) -> Found:
    """What a file holds: a row of the MEDIA table."""
    found = Found()
    row: Row = {"unit": asset.sha256, "not_media": False}
    try:
        with found.timing("Ingest"), naming("Ingest", asset.path):
            found.rows.append(row | {"info": info_text(probe(Path(asset.path)))})
    except NotMedia as error:
        found.rows.append(row | {"not_media": True, "message": str(error)})
    except MediaError as error:
        found.fail(asset.sha256, error)
        found.rows = [row | failed for failed in found.rows]
    return found


def measure_file(stage: AssetStage, asset: Asset, info: MediaInfo) -> Found:
    """One AssetStage over one file: a row of its facts."""
    found = Found()
    try:
        with found.timing(stage.name), naming(stage.name, asset.path):
            facts = stage.measure(Path(asset.path), info)
            found.rows.append(facts_row(asset.sha256, stage, facts))
    except MediaError as error:
        found.fail(asset.sha256, error)
    return found


def decode_file(
    asset: Asset,
    info: MediaInfo,
    stages: Sequence[MediaStage],
    weights: WeightsStore | None = None,
) -> Found:
    """The one shared decode of a file: tracks of all stages, and a row of the DECODED table."""
    viewing = Viewing(
        [s for s in stages if isinstance(s, FrameStage)],
        info,
        partial(naming, path=asset.path),
        weights,
    )
    audio_stages = [(s, s.open(info)) for s in stages if isinstance(s, AudioStage)]
    spent = {stage.name: 0.0 for stage, _ in audio_stages}
    now = time.perf_counter

    def on_audio(block: AudioBlock) -> None:
        beat()
        for stage, analyser in audio_stages:
            start = now()
            with naming(stage.name, asset.path):
                analyser.block(block)
            spent[stage.name] += now() - start

    found = Found()
    begin = now()
    try:
        with naming(DECODE, asset.path):
            summary = decode(
                Path(asset.path),
                info,
                on_frame=viewing.frame if info.video else None,
                on_audio=on_audio if info.audio else None,
                vectors=any(s.vectors for s in stages if isinstance(s, FrameStage)),
            )
    except MediaError as error:
        found.fail(asset.sha256, error)
    else:
        found.rows.append({"unit": asset.sha256})
        tracks = {DECODE: summary_tracks(summary)} | viewing.finish(summary)
        for stage, analyser in audio_stages:
            with naming(stage.name, asset.path):
                tracks[stage.name] = analyser.finish(summary)
        found.tracks = {name: tracks_table(asset.sha256, t) for name, t in tracks.items()}
    found.seconds = viewing.seconds | spent
    found.seconds[DECODE] = now() - begin - sum(found.seconds.values())
    return found


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
            beat()
            self._audio[rate] = clip_audio(self.path, self.info, self.clip, rate)
        return self._audio[rate]

    def frames(self, fps: float, height: int) -> np.ndarray:
        if (fps, height) not in self._frames:
            beat()
            self._frames[fps, height] = clip_frames(self.path, self.info, self.clip, fps, height)
        return self._frames[fps, height]

    def forget(self) -> None:
        self._audio.clear()
        self._frames.clear()


def measure_clips(stage: ClipStage, weights: WeightsStore, clips: Sequence[LazyMedia]) -> Found:
    """One ClipStage over a batch of clips: rows of its facts."""
    found = Found()
    with found.timing(stage.name):
        _batch(stage, clips, _session.measure(stage, weights), found)
    for item in clips:
        item.forget()
    return found


def _batch(
    stage: ClipStage,
    group: Sequence[LazyMedia],
    measure: Callable[[Sequence[ClipMedia]], list[Facts]],
    found: Found,
) -> None:
    """A batch with a clip that cannot be read is tried clip by clip."""
    try:
        names = ", ".join(item.clip.id for item in group)
        with naming(stage.name, f"clips {names}"):
            facts = measure(group)
            found.rows += [
                facts_row(m.clip.id, stage, f) for m, f in zip(group, facts, strict=True)
            ]
    except MediaError as error:
        if len(group) > 1:
            for item in group:
                _batch(stage, [item], measure, found)
        else:
            found.fail(group[0].clip.id, error)


class _Session:
    """The one loaded model of this process; it makes room for the next stage's."""

    def __init__(self) -> None:
        self._key = b""
        self._stack = ExitStack()
        self._measure: Callable[[Sequence[ClipMedia]], list[Facts]] | None = None

    def measure(
        self, stage: ClipStage, weights: WeightsStore
    ) -> Callable[[Sequence[ClipMedia]], list[Facts]]:
        key = pickle.dumps((stage, weights))
        if self._measure is None or key != self._key:
            self.close()
            self._measure = self._stack.enter_context(stage.session(weights))
            self._key = key
        return self._measure

    def close(self) -> None:
        self._measure = None
        self._stack.close()


_session = _Session()


def close_session() -> None:
    """Lets go of the model that this process loaded last."""
    _session.close()
