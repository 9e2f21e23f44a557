"""Pictures of a scene."""

from __future__ import annotations

from fractions import Fraction
from functools import lru_cache

import numpy as np

from reelmill.datasets.corpus.scene import BACKGROUNDS, COLOURS, Background, Ball, Scene, track

GRAIN = 4.0  # standard deviation of the finest detail, so that sharpness can be told from blur
SLOPE = 1.4  # amplitude ~ 1 / frequency ** SLOPE, near that of natural pictures


def frame_times(scene: Scene, fps: Fraction | float) -> np.ndarray:
    """Times of the frames in seconds: n / fps from 0, below the scene's length."""
    return np.arange(round(scene.seconds * fps)) / float(fps)


def render_scene(
    scene: Scene,
    fps: Fraction | float = 16,
    size: tuple[int, int] | None = None,
    *,
    times: np.ndarray | None = None,
) -> np.ndarray:
    """Frames of a scene, uint8 RGB [frames, height, width, 3].

    size: (width, height) of the pictures; None: the scene's own. times: seconds of each frame,
    for variable rate; then fps is not read.
    """
    width, height = size or (scene.width, scene.height)
    if times is None:
        times = frame_times(scene, fps)
    frames = _grounds(scene, width, height, times)
    for ball in scene.balls:
        _draw(frames, ball, scene, times)
    return frames


def _grounds(scene: Scene, width: int, height: int, times: np.ndarray) -> np.ndarray:
    still = texture(scene.background, width, height)
    dx, dy = scene.background.drift
    if not (dx or dy):
        return np.repeat(still[None], len(times), axis=0)
    xs = np.rint(dx * width / scene.width * times).astype(int) % width
    ys = np.rint(dy * height / scene.height * times).astype(int) % height
    tiled = np.tile(still, (2, 2, 1))
    return np.stack([tiled[y : y + height, x : x + width] for x, y in zip(xs, ys, strict=True)])


@lru_cache(maxsize=8)
def texture(background: Background, width: int, height: int) -> np.ndarray:
    """The background's picture, uint8 RGB [height, width, 3]; seamless at its borders.

    Noise with a falling spectrum: large patches that differ from seed to seed, which perceptual
    hashes see, and fine detail, which sharpness measures see. The same seed at another size is
    another picture.
    """
    rng = np.random.default_rng([background.seed, width, height])
    spectrum = np.fft.rfft2(rng.standard_normal((height, width)))
    radius = np.hypot(
        np.fft.fftfreq(height)[:, None] * height, np.fft.rfftfreq(width)[None] * width
    )
    radius[0, 0] = np.inf
    field = np.fft.irfft2(spectrum / radius**SLOPE, s=(height, width))
    field *= background.contrast / field.std()
    field += GRAIN * rng.standard_normal((height, width))
    tint = np.array(BACKGROUNDS[background.colour], np.float64)
    colour = tint * (1 + field[..., None] / tint.mean())
    return np.clip(np.rint(colour), 0, 255).astype(np.uint8)


def _draw(frames: np.ndarray, ball: Ball, scene: Scene, times: np.ndarray) -> None:
    height, width = frames.shape[1:3]
    sx, sy = width / scene.width, height / scene.height
    xs, ys = track(ball, scene, times)
    rx, ry = ball.radius * sx, ball.radius * sy
    colour = np.array(COLOURS[ball.colour], np.float32)
    for frame, x, y in zip(frames, xs * sx, ys * sy, strict=True):
        x0, x1 = max(0, int(x - rx) - 1), min(width, int(x + rx) + 2)
        y0, y1 = max(0, int(y - ry) - 1), min(height, int(y + ry) + 2)
        dx = (np.arange(x0, x1, dtype=np.float32) + 0.5 - np.float32(x))[None] / np.float32(rx)
        dy = (np.arange(y0, y1, dtype=np.float32) + 0.5 - np.float32(y))[:, None] / np.float32(ry)
        cover = np.clip(_inside(ball.shape, dx, dy) * np.float32(min(rx, ry)) + 0.5, 0, 1)
        patch = frame[y0:y1, x0:x1]
        patch[:] = (patch + cover[..., None] * (colour - patch) + 0.5).astype(np.uint8)


def _inside(shape: str, dx: np.ndarray, dy: np.ndarray) -> np.ndarray:
    """How deep a point is inside the shape, in radii; all shapes fill the square [-1, 1]."""
    if shape == "circle":
        return 1 - np.hypot(dx, dy)
    if shape == "square":
        return 1 - np.maximum(np.abs(dx), np.abs(dy))
    # A triangle that stands on its base: apex (0, -1), corners (-1, 1) and (1, 1).
    return np.minimum(1 - dy, (1 + dy - 2 * np.abs(dx)) / np.float32(np.sqrt(5)))
