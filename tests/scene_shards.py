"""Curated shards of bouncing shapes, as `curate` would leave them."""

from __future__ import annotations

import tempfile
from fractions import Fraction
from pathlib import Path

from reelmill.datasets.corpus.render import render_scene
from reelmill.datasets.corpus.scene import Scene, random_scene
from reelmill.datasets.corpus.sound import scene_audio
from reelmill.datasets.media.encode import write_audio, write_image, write_video
from reelmill.datasets.shards import ShardSample, write_shards

RATE = 48_000


def make_scene(seed: int, *, seconds: float = 1.5, size: tuple[int, int] = (32, 32)) -> Scene:
    return random_scene(seed, seconds=seconds, size=size, contrast=8.0)


def film_sample(
    seed: int,
    *,
    seconds: float = 1.5,
    size: tuple[int, int] = (32, 32),
    fps: int = 16,
    silent: bool = False,
) -> ShardSample:
    """One mp4 with sound."""
    scene = make_scene(seed, seconds=seconds, size=size)
    asset = f"{seed:064x}"
    us = round(seconds * 1e6)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip.mp4"
        write_video(
            path,
            render_scene(scene, fps),
            fps=Fraction(fps),
            audio=None if silent else scene_audio(scene, RATE),
            audio_rate=RATE,
            audio_codec="flac",  # lossless, so that alignment shows to the sample
            crf=10,
        )
        media = path.read_bytes()
    return ShardSample(
        key=f"{seed:016x}_0_{us}",
        suffix=".mp4",
        media=media,
        record={"kind": "video", "asset": asset, "cut": {"seconds": seconds}},
        caption=scene.caption,
    )


def still_sample(seed: int, *, size: tuple[int, int] = (32, 32)) -> ShardSample:
    scene = make_scene(seed, size=size)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "still.jpg"
        write_image(path, render_scene(scene, 16)[0])
        media = path.read_bytes()
    return ShardSample(
        key=f"{seed:016x}_0_0",
        suffix=".jpg",
        media=media,
        record={"kind": "image", "asset": f"{seed:064x}", "cut": {}},
        caption=scene.caption,
    )


def sound_sample(seed: int, *, seconds: float = 3.0) -> ShardSample:
    """One flac."""
    scene = make_scene(seed, seconds=seconds)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "sound.flac"
        write_audio(path, scene_audio(scene, RATE), RATE)
        media = path.read_bytes()
    return ShardSample(
        key=f"{seed:016x}_0_{round(seconds * 1e6)}",
        suffix=".flac",
        media=media,
        record={"kind": "audio", "asset": f"{seed:064x}", "cut": {"seconds": seconds}},
        caption=scene.caption,
    )


def write_set(folder: Path, samples: list[ShardSample], *, per_shard: int = 4) -> Path:
    ordered = sorted(samples, key=lambda s: s.key)
    write_shards(ordered, folder, prefix=folder.name, max_samples=per_shard, max_bytes=1 << 30)
    return folder
