"""A scene: coloured shapes that move in straight lines and bounce off the walls.

Everything follows from the scene in closed form: where a shape is at any time, when it touches a
wall, what that sounds like. So picture, sound and truth agree exactly, at any frame rate.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from reelmill.datasets.corpus.truth import Bounce

SHAPES = ("circle", "square", "triangle")
COLOURS: Mapping[str, tuple[int, int, int]] = {
    "red": (228, 40, 36),
    "yellow": (240, 214, 40),
    "green": (44, 190, 64),
    "cyan": (40, 208, 220),
    "blue": (44, 72, 232),
    "magenta": (222, 50, 206),
}
PITCHES: Mapping[str, float] = {  # Hz; a pentatonic scale, so that chords do not beat
    "red": 261.63,
    "yellow": 329.63,
    "green": 392.00,
    "cyan": 523.25,
    "blue": 659.26,
    "magenta": 783.99,
}
BACKGROUNDS: Mapping[str, tuple[int, int, int]] = {
    "grey": (126, 126, 126),
    "brown": (136, 104, 78),
    "olive": (112, 118, 70),
    "navy": (66, 78, 124),
    "purple": (110, 80, 128),
    "sand": (176, 158, 122),
}
CLOSEST = 0.08  # seconds between two bounces, where that can be had
TRIES = 40


@dataclass(frozen=True, slots=True)
class Ball:
    """One shape. Lengths in pixels of the scene, speeds in pixels per second, at time 0."""

    shape: str
    colour: str
    radius: float
    x: float
    y: float
    vx: float
    vy: float


@dataclass(frozen=True, slots=True)
class Background:
    """A seamless texture of one tint.

    drift: pixels per second that it moves, x and y."""

    seed: int
    colour: str
    drift: tuple[float, float] = (0.0, 0.0)
    contrast: float = 26.0


@dataclass(frozen=True, slots=True)
class Scene:
    """width and height in pixels; the walls are the borders of the picture."""

    width: int
    height: int
    seconds: float
    balls: tuple[Ball, ...]
    background: Background

    @property
    def caption(self) -> str:
        """E.g. `a red circle and a blue square bounce on a grey background`."""
        names = [f"{_a(ball.colour)} {ball.shape}" for ball in self.balls]
        listed = names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
        verb = "bounces" if len(names) == 1 else "bounce"
        return f"{listed} {verb} on {_a(self.background.colour)} background"

    @property
    def bounces(self) -> tuple[Bounce, ...]:
        """Every touch of a wall within the scene, in order of time."""
        return tuple(sorted(_bounces(self), key=lambda b: (b.t, b.pitch)))


def _a(word: str) -> str:
    return f"an {word}" if word[0] in "aeiou" else f"a {word}"


def position(start: float, speed: float, low: float, high: float, t: np.ndarray) -> np.ndarray:
    """Where a point is at times t that runs at `speed` and is thrown back at low and high."""
    span = high - low
    phase = np.mod(start - low + speed * np.asarray(t, np.float64), 2 * span)
    return low + span - np.abs(phase - span)


def track(ball: Ball, scene: Scene, t: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The centre of a ball, x and y in pixels, at times t [n] in seconds."""
    r = ball.radius
    return (
        position(ball.x, ball.vx, r, scene.width - r, t),
        position(ball.y, ball.vy, r, scene.height - r, t),
    )


def _hits(start: float, speed: float, low: float, high: float, seconds: float) -> np.ndarray:
    """Times in (0, seconds) at which that point meets low or high."""
    if speed == 0:
        return np.zeros(0)
    span = high - low
    first = ((high - start) if speed > 0 else (start - low)) / abs(speed)
    times = first + np.arange(max(0, int((seconds - first) * abs(speed) / span) + 2)) * (
        span / abs(speed)
    )
    return times[(times > 0) & (times < seconds)]


def _bounces(scene: Scene) -> list[Bounce]:
    found = []
    for ball in scene.balls:
        times = _ball_hits(ball, scene)
        xs, ys = track(ball, scene, times)
        found += [
            Bounce(
                t=round(float(t), 6),
                x=round(float(x) / scene.width, 6),
                y=round(float(y) / scene.height, 6),
                pan=round(2 * float(x) / scene.width - 1, 6),
                pitch=PITCHES[ball.colour],
                colour=ball.colour,
            )
            for t, x, y in zip(times, xs, ys, strict=True)
        ]
    return found


def random_scene(
    seed: int,
    *,
    seconds: float = 4.0,
    size: tuple[int, int] = (96, 96),
    balls: int | None = None,
    bounces_per_second: tuple[float, float] = (1.0, 4.0),
    drift: float = 0.0,
    background: str | None = None,
    contrast: float = 26.0,
) -> Scene:
    """A scene that is a pure function of its arguments.

    size: width, height. balls: how many; None: one or two. Colours within a scene differ. drift:
    speed of the background in pixels per second, in a random direction. contrast: standard
    deviation of the background's texture in grey levels. Of several draws, the
    first in which no two bounces are closer than 80 ms; else the one that comes nearest to it.
    """
    rng = np.random.default_rng([seed, 0x5CE7E])
    names = list(BACKGROUNDS)
    angle = rng.uniform(0, 2 * np.pi)
    ground = Background(
        seed=int(rng.integers(2**31)),
        colour=background or names[int(rng.integers(len(names)))],
        drift=(drift * float(np.cos(angle)), drift * float(np.sin(angle))),
        contrast=contrast,
    )
    count = balls if balls is not None else int(rng.integers(1, 3))
    blank = Scene(*size, seconds, (), ground)
    rate = rng.uniform(*bounces_per_second)
    best, widest = blank, -1.0
    for _ in range(TRIES):
        scene = replace(blank, balls=_draw(rng, blank, count, rate))
        times = np.sort([hit for ball in scene.balls for hit in _ball_hits(ball, scene)])
        gap = float(np.diff(times).min()) if len(times) > 1 else seconds
        if gap > widest:
            best, widest = scene, gap
        if gap >= CLOSEST:
            break
    return best


def _ball_hits(ball: Ball, scene: Scene) -> np.ndarray:
    r = ball.radius
    return np.concatenate(
        [
            _hits(ball.x, ball.vx, r, scene.width - r, scene.seconds),
            _hits(ball.y, ball.vy, r, scene.height - r, scene.seconds),
        ]
    )


def _draw(rng: np.random.Generator, scene: Scene, count: int, rate: float) -> tuple[Ball, ...]:
    small = min(scene.width, scene.height)
    colours = rng.permutation(list(COLOURS))
    drawn = []
    for i in range(count):
        radius = float(rng.uniform(0.13, 0.19)) * small
        wide, high = scene.width - 2 * radius, scene.height - 2 * radius
        angle = rng.uniform(0, 2 * np.pi)
        # A ball meets walls |vx| / wide + |vy| / high times a second: its part of the rate.
        speed = rate / count / (abs(np.cos(angle)) / wide + abs(np.sin(angle)) / high)
        drawn.append(
            Ball(
                shape=SHAPES[int(rng.integers(len(SHAPES)))],
                colour=str(colours[i % len(colours)]),
                radius=radius,
                x=float(rng.uniform(radius, scene.width - radius)),
                y=float(rng.uniform(radius, scene.height - radius)),
                vx=float(speed * np.cos(angle)),
                vy=float(speed * np.sin(angle)),
            )
        )
    return tuple(drawn)
