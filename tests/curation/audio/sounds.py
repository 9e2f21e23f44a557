"""Runs audio stages over sound with known truth, and makes clips for clip stages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

from reelmill.curation.stage import AudioStage, Facts
from reelmill.datasets.media.decode import (
    AudioBlock,
    AudioInfo,
    DecodeSummary,
    MediaInfo,
    decode,
    probe,
)
from reelmill.datasets.media.sound import resample
from reelmill.datasets.sample import Clip, Kind

SUMMARY = DecodeSummary(np.zeros(0, np.int64), 0, 0, 0, 0, "")
SHA = "5" * 64


def info_of(samples: np.ndarray, rate: int, codec: str = "pcm_s16le") -> MediaInfo:
    audio = AudioInfo(rate, len(samples), codec, 0.0)
    return MediaInfo(Kind.AUDIO, "wav", samples.shape[1] / rate, 0, None, audio)


def span(first: int, last: int, rate: int) -> Clip:
    return Clip(SHA, Kind.AUDIO, first, last, Fraction(1, rate), 0, first, last)


def tracks_of(
    stage: AudioStage, samples: np.ndarray, rate: int, *, block: int = 24_000, codec="pcm_s16le"
) -> dict[str, np.ndarray]:
    """Tracks of float32 [channels, n] that comes in blocks of `block` samples."""
    analyser = stage.open(info_of(samples, rate, codec))
    mono = resample(samples.mean(axis=0), rate, 16_000)
    for start in range(0, samples.shape[1], block):
        low, high = start * 16_000 // rate, (start + block) * 16_000 // rate
        last = start + block >= samples.shape[1]
        heard = mono[low:] if last else mono[low:high]
        analyser.block(
            AudioBlock(start, samples[:, start : start + block], lambda heard=heard: heard)
        )
    return analyser.finish(SUMMARY)


def facts_of(stage: AudioStage, samples: np.ndarray, rate: int, **options) -> Facts:
    """Facts of the whole of float32 [channels, n]."""
    tracks = tracks_of(stage, samples, rate, **options)
    clip = span(0, samples.shape[1], rate)
    return stage.facts(tracks, clip, info_of(samples, rate))


def facts_of_file(stage: AudioStage, path: Path) -> Facts:
    """Facts of the whole sound of a file, through the shared decode."""
    info = probe(path)
    assert info.audio is not None
    analyser = stage.open(info)
    summary = decode(path, info, on_audio=analyser.block)
    clip = span(0, summary.samples, info.audio.rate)
    sound = MediaInfo(Kind.AUDIO, info.container, info.seconds, info.bytes, None, info.audio)
    return stage.facts(analyser.finish(summary), clip, sound)


@dataclass
class Heard:
    """A clip of which a ClipStage asks nothing but sound."""

    mono: np.ndarray  # 16 kHz
    facts: Facts
    asked: int = 0

    @property
    def clip(self) -> Clip:
        return span(0, len(self.mono), 16_000)

    @property
    def info(self) -> MediaInfo:
        return info_of(self.mono[None], 16_000)

    def audio(self, rate: int) -> np.ndarray:
        self.asked += 1
        return resample(self.mono, 16_000, rate)

    def frames(self, fps: float, height: int) -> np.ndarray:
        raise AssertionError("no picture is needed")


@dataclass
class Shelf:
    """Weights by name."""

    folders: Mapping[str, Path]

    def path(self, name: str) -> Path | None:
        return self.folders.get(name)


def read_mono(path: Path) -> np.ndarray:
    """float32 [n] at 16 kHz, through the shared decode."""
    blocks: list[np.ndarray] = []
    decode(path, probe(path), on_audio=lambda block: blocks.append(block.mono16k))
    return np.concatenate(blocks)
