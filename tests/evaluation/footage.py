"""Footage to damage, and the ladder that every metric must climb down.

Import as `from tests.evaluation.footage import ...`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
from scipy.stats import spearmanr

from reelmill.datasets.corpus.render import render_scene
from reelmill.datasets.corpus.scene import random_scene
from reelmill.datasets.corpus.sound import scene_audio
from reelmill.datasets.media.encode import write_audio, write_video
from reelmill.evaluation.bench import Prompt
from reelmill.evaluation.clip import ClipMedia, read_clip
from reelmill.evaluation.damage import LEVELS, Damage, Footage, damaged
from reelmill.evaluation.metric import Metric, NoValue, goodness

RATE = 32_000
FPS = 16


def prompt(**changes) -> Prompt:
    """One shot with the sound of effects, but for the fields given."""
    fields = {
        "id": "a-prompt",
        "language": "en",
        "content": "social",
        "sound": "effects",
        "camera": "static",
        "subject": "object",
        "scene": "indoor",
        "tempo": "fast",
        "seconds": 4.0,
        "text": "A ball bounces. <sfx>a tone at every bounce</sfx>",
    }
    return Prompt.model_validate(fields | changes)


def bouncing(seed: int = 1, seconds: float = 4.0, size: tuple[int, int] = (192, 128)) -> Footage:
    """A ball that bounces with a tone on a textured ground, in stereo, with a quiet room."""
    scene = random_scene(seed, seconds=seconds, size=size, balls=1, bounces_per_second=(1.2, 1.8))
    return Footage(render_scene(scene, FPS), FPS, scene_audio(scene, RATE), RATE)


def panning(seed: int = 1, seconds: float = 3.0, size: tuple[int, int] = (192, 128)) -> Footage:
    """A textured ground under a camera that moves smoothly; no sound."""
    width, height = size
    wide = random_scene(seed, seconds=seconds, size=(2 * width, 2 * height), balls=2)
    frames = render_scene(wide, FPS)
    t = np.arange(len(frames)) / FPS
    x = width * (1 + 0.3 * np.sin(2 * np.pi * t / 6))
    y = height * (1 + 0.3 * np.cos(2 * np.pi * t / 6))
    views = [cv2.getRectSubPix(f, size, (a, b)) for f, a, b in zip(frames, x, y, strict=True)]
    return Footage(np.stack(views), FPS, np.zeros((1, 0), np.float32), RATE)


def hopping(times: Sequence[float], seconds: float = 4.0, late: float = 0.0) -> Footage:
    """A square that stands still, but leaps between the frames around each time, with a click."""
    ground = render_scene(random_scene(5, seconds=1, size=(192, 128), balls=0), FPS)[0]
    square = render_scene(random_scene(6, seconds=1, size=(192, 128), balls=0), FPS)[0, :48, :48]
    frames = []
    for n in range(round(seconds * FPS)):
        hops = sum(n / FPS > t for t in times)
        x = 40 + 10 * (hops % 2)
        frame = ground.copy()
        frame[40:88, x : x + 48] = 255 - square
        frames.append(frame)
    sound = 1e-4 * np.random.default_rng(0).standard_normal((1, round(seconds * RATE)))
    click = np.exp(-np.arange(1600) / 300) * np.sin(np.arange(1600) * 0.3) * 0.5
    for t in times:
        start = round((t + late) * RATE)
        piece = click[: max(0, sound.shape[1] - start)]
        sound[0, start : start + len(piece)] += piece
    return Footage(np.stack(frames), FPS, sound.astype(np.float32), RATE)


def write(path: Path, footage: Footage, **options) -> Path:
    """Encodes footage with little loss in the picture and none in the sound."""
    if not len(footage.frames):
        write_audio(path, footage.samples, footage.rate, container="matroska")
        return path
    fps = Fraction(footage.fps).limit_denominator(1001)
    options = {"crf": 12, "audio_codec": "flac", "container": "matroska"} | options
    sound = footage.samples if footage.samples.shape[1] else None
    write_video(path, footage.frames, fps=fps, audio=sound, audio_rate=footage.rate, **options)
    return path


def seen(footage: Footage) -> Footage:
    """Without its sound."""
    return replace(footage, samples=footage.samples[:, :0])


def heard(footage: Footage) -> Footage:
    """Without its picture."""
    return replace(footage, frames=footage.frames[:0])


def ladder(
    folder: Path, footage: Footage, damage: Damage, asked: Prompt | None = None, **options
) -> list[ClipMedia]:
    """The footage at levels 0 to 5 of a damage, encoded and read again."""
    folder.mkdir(parents=True, exist_ok=True)
    return [
        read_clip(write(folder / f"{level}.mkv", damaged(footage, damage, level), **options), asked)
        for level in range(LEVELS + 1)
    ]


def falls(metric: Metric, clips: Iterable[ClipMedia]) -> tuple[float, list[float]] | str:
    """(rank correlation of level and badness, badness by level), or why it does not apply.

    Of a metric that ranks nothing, the badness is how far it moves from its first value.
    """
    values = []
    for clip in clips:
        value = metric.measure(clip)
        if isinstance(value, NoValue):
            return f"level {len(values)}: {value.why}"
        values.append(value)
    bad = [-g for v in values if (g := goodness(metric.better, v)) is not None]
    if not bad:
        bad = [abs(v - values[0]) for v in values]
    if np.ptp(bad) == 0:
        return 0.0, bad
    return float(spearmanr(range(len(bad)), bad).statistic), bad
