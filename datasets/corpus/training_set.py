"""Clean media to train small models on: moving clips with sound, pictures, and sounds alone."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

import numpy as np

from reelmill.datasets.corpus.film import RATE, Take, film
from reelmill.datasets.corpus.render import render_scene
from reelmill.datasets.corpus.scene import Scene, random_scene
from reelmill.datasets.corpus.sound import scene_audio

FOLDER = "training"
FPS = 16
SIZE = (96, 96)
SECONDS = 4.0
SOUND_SECONDS = 15.0  # the longest chunk that curation cuts: nothing is joined
CONTRAST = 16.0
BOUNCES = (1.5, 4.0)  # a second
_STILLS, _SOUNDS = 500_000, 700_000  # seeds are those of clips, which begin at 0, and these on


def clips(seed: int, count: int) -> Iterator[tuple[str, Take]]:
    """Names and takes of 4 s, 96x96 at 16 fps."""
    for index in range(count):
        yield f"{FOLDER}/clip_{index:05d}.mp4", film([_scene(seed, index, SECONDS)], Fraction(FPS))


def stills(seed: int, count: int) -> Iterator[tuple[str, Scene, np.ndarray]]:
    """Names, scenes and pictures, uint8 RGB [96, 96, 3]."""
    for index in range(count):
        scene = _scene(seed, _STILLS + index, SECONDS)
        picture = render_scene(scene, times=np.array([SECONDS / 2]))[0]
        yield f"{FOLDER}/still_{index:05d}.jpg", scene, picture


def sounds(seed: int, count: int) -> Iterator[tuple[str, Scene, np.ndarray]]:
    """Names, scenes and what is heard of them, float32 [channels, n] at 48 kHz."""
    for index in range(count):
        scene = _scene(seed, _SOUNDS + index, SOUND_SECONDS)
        yield f"{FOLDER}/tones_{index:05d}.flac", scene, scene_audio(scene, RATE)


def _scene(seed: int, index: int, seconds: float) -> Scene:
    return random_scene(
        (seed + 1) * 1_000_003 + index,
        seconds=seconds,
        size=SIZE,
        contrast=CONTRAST,
        bounces_per_second=BOUNCES,
    )
