"""A take: scenes rendered one after the other, with their sound, ready to be encoded."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np

from reelmill.datasets.corpus.render import frame_times, render_scene
from reelmill.datasets.corpus.scene import Scene
from reelmill.datasets.corpus.sound import scene_audio
from reelmill.datasets.corpus.truth import Bounce

RATE = 48_000
VFR_GAPS_MS = (33, 42, 50, 67)


@dataclass(frozen=True)
class Take:
    """What a file is made from. sound: [2, samples] at 48 kHz. pts_ms: variable rate."""

    scenes: tuple[Scene, ...]
    frames: np.ndarray
    sound: np.ndarray
    fps: Fraction
    shots: tuple[int, ...]
    pts_ms: tuple[int, ...] | None = None

    @property
    def seconds(self) -> float:
        return sum(scene.seconds for scene in self.scenes)

    @property
    def caption(self) -> str:
        return ", then ".join(scene.caption for scene in self.scenes)

    @property
    def bounces(self) -> tuple[Bounce, ...]:
        starts = itertools.accumulate((s.seconds for s in self.scenes), initial=0.0)
        return tuple(
            bounce.model_copy(update={"t": round(bounce.t + start, 6)})
            for scene, start in zip(self.scenes, starts, strict=False)
            for bounce in scene.bounces
        )

    def last(self, frames: int) -> Take:
        """The end of it, from that frame on."""
        start = float(frames / self.fps)
        return replace(
            self, frames=self.frames[frames:], sound=self.sound[:, round(start * RATE) :]
        )


def film(scenes: Sequence[Scene], fps: Fraction, *, variable: int | None = None) -> Take:
    """Renders scenes one after the other. variable: seed of the frame lengths, for variable rate.

    A scene's length is rounded to whole frames, so that cuts fall between two frames.
    """
    pictures, sounds, shots, stamps, exact = [], [], [], [], []
    count, start_ms = 0, 0
    rng = np.random.default_rng(variable)
    for scene in scenes:
        if variable is None:
            number = round(scene.seconds * fps)
            scene = replace(scene, seconds=float(number / fps))
            times = frame_times(scene, fps)
        else:
            gaps = rng.choice(VFR_GAPS_MS, size=round(scene.seconds * 1000 / min(VFR_GAPS_MS)))
            ends = np.cumsum(gaps)
            ends = ends[ends <= scene.seconds * 1000]
            scene = replace(scene, seconds=float(ends[-1]) / 1000)
            times = np.concatenate([[0], ends[:-1]]) / 1000
            stamps += [start_ms + round(t * 1000) for t in times]
            start_ms += int(ends[-1])
        exact.append(scene)
        pictures.append(render_scene(scene, times=times))
        sounds.append(scene_audio(scene, RATE))
        shots.append(count)
        count += len(times)
    return Take(
        scenes=tuple(exact),
        frames=np.concatenate(pictures),
        sound=np.concatenate(sounds, axis=1),
        fps=fps,
        shots=tuple(shots),
        pts_ms=tuple(stamps) if variable is not None else None,
    )
