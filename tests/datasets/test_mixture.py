from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reelmill.datasets.mixture import Mixture, Pool, Schedule, permute
from reelmill.errors import DatasetError

BUCKET = (9, 32, 32)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 30), min_size=1, max_size=6), st.integers(1, 400))
def test_no_choice_strays_one_unit_from_its_share(parts, length):
    schedule = Schedule([float(p) for p in parts])
    counts = np.zeros(len(parts))
    shares = np.array(parts) / sum(parts)
    for n in range(length):
        assert [schedule.visits(n, k) for k in range(len(parts))] == counts.tolist()
        counts[schedule.choice(n)] += 1
        assert np.all(np.abs(counts - shares * (n + 1)) < 1)


def test_awkward_weights_still_give_their_shares():
    weights = [1 / 3, np.pi / 10, 0.001]
    schedule = Schedule(weights)
    counts = Counter(schedule.choice(n) for n in range(20_000))
    for k, weight in enumerate(weights):
        assert counts[k] == pytest.approx(20_000 * weight / sum(weights), abs=3)


@pytest.mark.parametrize("weights", [[], [0.0], [1.0, -1.0], [float("nan")]])
def test_weights_that_are_no_shares_are_refused(weights):
    with pytest.raises(DatasetError):
        Schedule(weights)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 3000), st.text(max_size=10))
def test_the_shuffle_is_a_bijection(size, key):
    assert sorted(permute(np.arange(size), size, key).tolist()) == list(range(size))


def test_the_shuffle_depends_on_its_key_and_leaves_no_neighbours():
    a, b = (permute(np.arange(5000), 5000, key) for key in "ab")
    assert np.mean(a == b) < 0.01
    assert np.mean(np.abs(np.diff(a)) < 50) < 0.04  # .02 in a true permutation
    assert int(permute(123, 5000, "a")) == a[123]


def mixture(batch=4, seed=0):
    pools = {
        "t2v": [Pool(BUCKET, np.arange(10)), Pool((17, 32, 32), np.arange(10, 16))],
        "v2a": [Pool(BUCKET, np.arange(3, 9))],
    }
    return Mixture({"t2v": 0.7, "v2a": 0.3}, pools, batch, seed)


def test_order_is_a_function_of_seed_and_step():
    first, again = mixture(), mixture()
    for step in (5, 900, 0, 5):
        a, b = first.draw(step), again.draw(step)
        assert (a.task, a.bucket, a.rows.tolist()) == (b.task, b.bucket, b.rows.tolist())
    other = mixture(seed=1)
    assert any(first.draw(s).rows.tolist() != other.draw(s).rows.tolist() for s in range(9))


def test_every_sample_of_a_pool_is_seen_once_per_epoch():
    visits = Counter()
    for step in range(400):
        draw = mixture().draw(step)
        for row, epoch in zip(draw.rows, draw.epochs, strict=True):
            visits[draw.task, draw.bucket, int(epoch), int(row)] += 1
    assert set(visits.values()) == {1}
    rows = [r for (task, bucket, epoch, r) in visits if (task, bucket, epoch) == ("t2v", BUCKET, 7)]
    assert sorted(rows) == list(range(10))


def test_buckets_are_visited_by_their_size():
    plan = mixture(batch=1)
    buckets = Counter(plan.draw(s).bucket for s in range(2000) if plan.draw(s).task == "t2v")
    assert buckets[BUCKET] / buckets.total() == pytest.approx(10 / 16, abs=0.01)


def test_a_task_without_samples_is_named():
    with pytest.raises(DatasetError, match="'t2i'"):
        Mixture({"t2i": 1.0}, {"t2i": []}, 4, 0)


def of_sources(sources, **fields):
    pools = {
        "t2v": [Pool(BUCKET, np.arange(10), "web"), Pool(BUCKET, np.arange(10, 16), "film")],
        "t2i": [Pool((1, 32, 32), np.arange(16, 20), "web")],
    }
    return Mixture({"t2v": 0.6, "t2i": 0.4}, pools, 2, 7, sources, **fields)


def test_tasks_and_sources_keep_their_shares_over_any_window():
    found = of_sources({"web": 1.0, "film": 3.0})
    draws = [found.draw(step) for step in range(400)]
    counts = Counter()
    for step, draw in enumerate(draws, 1):
        counts[draw.task, draw.source] += 1
        t2v = counts["t2v", "web"] + counts["t2v", "film"]
        assert abs(t2v - 0.6 * step) < 1
        assert abs(counts["t2v", "film"] - 0.75 * t2v) < 1
    assert counts == {("t2v", "film"): 180, ("t2v", "web"): 60, ("t2i", "web"): 160}
    films = np.concatenate([d.rows for d in draws if d.source == "film"])
    assert set(np.bincount(films, minlength=16)[10:]) == {60}  # ten steps of two an epoch of six


def test_a_substitute_comes_from_the_same_source():
    found = of_sources({"web": 1.0, "film": 1.0})
    for step in range(40):
        draw = found.draw(step)
        pool = next(p for p in found.pools[draw.task] if p.source == draw.source)
        assert found.substitute(draw, 0, 1) in pool.rows


def test_a_mixture_that_names_no_source_of_its_pools_is_refused():
    with pytest.raises(DatasetError, match=r"'radio'.*there are: film, web"):
        of_sources({"web": 1.0, "radio": 1.0})
    with pytest.raises(DatasetError, match=r"'t2i' has no sample of any source"):
        of_sources({"film": 1.0}).draw(0)


def test_buckets_of_different_batches_come_up_so_that_all_samples_are_seen_alike():
    small, large = (
        Pool(BUCKET, np.arange(32), batch=8),
        Pool((9, 64, 64), np.arange(32, 48), batch=2),
    )
    found = Mixture({"t2v": 1.0}, {"t2v": [small, large]}, 8, 0)
    seen = np.zeros(48, int)
    for step in range(12 * 5):
        draw = found.draw(step)
        assert len(draw.rows) == (8 if draw.bucket == BUCKET else 2)
        np.add.at(seen, draw.rows, 1)
    assert set(seen) == {5}
