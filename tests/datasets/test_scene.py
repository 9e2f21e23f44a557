"""The corpus' scenes: where balls are, when they bounce, and that pictures and sound follow."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from reelmill.datasets.corpus.render import render_scene
from reelmill.datasets.corpus.scene import PITCHES, random_scene, track
from reelmill.datasets.corpus.sound import scene_audio


@given(
    seed=st.integers(0, 2**31),
    balls=st.integers(1, 3),
    rate=st.floats(0.5, 5),
    wide=st.integers(64, 256),
    high=st.integers(64, 256),
)
def test_balls_stay_inside_and_bounce_when_the_truth_says(seed, balls, rate, wide, high):
    """The oracle steps through time and reverses a speed at a wall."""
    scene = random_scene(
        seed, seconds=3, size=(wide, high), balls=balls, bounces_per_second=(rate, rate)
    )
    assert scene == random_scene(
        seed, seconds=3, size=(wide, high), balls=balls, bounces_per_second=(rate, rate)
    )
    steps = 3000
    for ball in scene.balls:
        x, y, vx, vy = ball.x, ball.y, ball.vx, ball.vy
        path, hits = [], []
        for i in range(steps):
            path.append((x, y))
            x, y = x + vx / 1000, y + vy / 1000
            if not ball.radius <= x <= wide - ball.radius:
                x = 2 * np.clip(x, ball.radius, wide - ball.radius) - x
                vx = -vx
                hits.append((i + 1) / 1000)
            if not ball.radius <= y <= high - ball.radius:
                y = 2 * np.clip(y, ball.radius, high - ball.radius) - y
                vy = -vy
                hits.append((i + 1) / 1000)
        got = np.stack(track(ball, scene, np.arange(steps) / 1000), axis=1)
        np.testing.assert_allclose(got, path, atol=1e-6)
        told = [b.t for b in scene.bounces if b.colour == ball.colour]
        hits = [t for t in hits if t < 2.9985]
        assert len([t for t in told if t < 2.9985]) in (len(hits), len(hits) - 1, len(hits) + 1)
        for t in hits[:-1]:
            assert min(abs(t - u) for u in told) <= 1.1e-3
        assert {b.pitch for b in scene.bounces if b.colour == ball.colour} <= {PITCHES[ball.colour]}


def test_rendering_scales_and_matches_the_rate():
    scene = random_scene(5, seconds=2.5, size=(96, 96), balls=1)
    assert render_scene(scene, 16).shape == (40, 96, 96, 3)
    assert render_scene(scene, 24, (128, 64)).shape == (60, 64, 128, 3)
    np.testing.assert_array_equal(render_scene(scene, 16)[::2], render_scene(scene, 8))
    sound = scene_audio(scene, 24_000)
    assert sound.shape == (2, 60_000)
    assert sound.dtype == np.float32
    assert np.abs(sound).max() <= 0.86
