"""Intervals hold the truth as often as they say."""

from __future__ import annotations

import numpy as np
import pytest

from reelmill.evaluation.bootstrap import mean_interval, paired_interval, resampled


@pytest.mark.parametrize("kind", ["normal", "skewed", "clustered"])
def test_intervals_cover_the_truth_at_their_rate(kind: str):
    rng = np.random.default_rng(7)
    hits, runs, n = 0, 250, 20
    for run in range(runs):
        if kind == "clustered":
            values = {
                (prompt, seed): 1 + centre + rng.normal(0, 0.3)
                for prompt, centre in enumerate(rng.normal(0, 1, n))
                for seed in range(4)
            }
        else:
            draw = rng.normal(1, 1, n) if kind == "normal" else rng.exponential(1, n)
            values = {(i, 0): float(x) for i, x in enumerate(draw)}
        found = mean_interval(values, seed=run)
        hits += found.low <= 1 <= found.high
    assert 0.91 <= hits / runs <= 0.99


def test_seeds_of_one_prompt_do_not_count_as_prompts():
    rng = np.random.default_rng(0)
    one = {(p, 0): v for p, v in enumerate(rng.normal(0, 1, 12))}
    copies = {(p, s): v for (p, _), v in one.items() for s in range(10)}
    few, many = mean_interval(one), mean_interval(copies)
    assert (few.low, few.high) == pytest.approx((many.low, many.high))
    assert few.prompts == many.prompts == 12
    assert (few.clips, many.clips) == (12, 120)


def test_pairing_sees_a_small_gain_that_prompts_hide():
    rng = np.random.default_rng(1)
    first = {(p, 0): v for p, v in enumerate(rng.normal(0, 10, 30))}
    second = {pair: v + 0.5 + rng.normal(0, 0.2) for pair, v in first.items()}
    apart = mean_interval(first)
    assert apart.high - apart.low > 4
    gain = paired_interval(second, first)
    assert gain.excludes_zero
    assert gain.mean == pytest.approx(0.5, abs=0.1)
    assert paired_interval(first, first).mean == 0
    assert not paired_interval(first, first).excludes_zero


def test_too_few_prompts_have_no_interval_and_none_have_no_mean():
    found = mean_interval({("a", 0): 1.0, ("b", 0): 3.0})
    assert (found.mean, found.low, found.high, found.prompts) == (2.0, None, None, 2)
    assert not found.excludes_zero
    assert mean_interval({}) is None
    assert paired_interval({("a", 0): 1.0}, {("b", 0): 1.0}) is None


def test_the_same_seed_gives_the_same_interval():
    values = {(i, 0): float(i % 5) for i in range(20)}
    assert mean_interval(values, seed=3) == mean_interval(values, seed=3)
    times = resampled(range(20), 50, 0)
    assert times.shape == (50, 20)
    assert (times.sum(axis=1) == 20).all()
