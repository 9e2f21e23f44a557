"""Ratings from simulated raters whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest
from tests.evaluation.raters import panel, vote

from reelmill.evaluation.arena import bars, rank
from reelmill.evaluation.vote import OVERALL, Choice, PairVote

TRUTH = {"a": 1.2, "b": 0.4, "c": 0.0, "d": -0.6, "e": -1.0}


def test_ranking_and_strengths_are_recovered_through_ties_and_side_bias():
    arena = rank(panel(TRUTH, 1, raters=6, prompts=40, ties=0.3, side=0.8), draws=60)
    assert [r.system for r in arena.ratings] == list("abcde")
    found = {r.system: r.strength for r in arena.ratings}
    assert sum(found.values()) == pytest.approx(0, abs=1e-9)
    assert found == pytest.approx(TRUTH, abs=0.2)
    assert arena.ties == pytest.approx(0.3, abs=0.1)
    assert arena.left == pytest.approx(0.8, abs=0.1)
    assert arena.votes == 6 * 40 * 10
    assert arena.prompts == 40
    assert [r.elo for r in arena.ratings] == sorted((r.elo for r in arena.ratings), reverse=True)


def test_intervals_cover_the_true_difference_at_their_rate():
    """Of a - b over many rounds; prompts are as independent here as the model says."""
    truth = {"a": 0.5, "b": 0.0, "c": -0.5}
    hits, runs = 0, 50
    for run in range(runs):
        arena = rank(panel(truth, run, raters=3, prompts=30), draws=40, seed=run)
        _, low, high = arena.differences["a", "b"]
        hits += low <= 0.5 <= high
    assert 0.86 <= hits / runs <= 1.0


def test_the_same_clips_under_two_names_are_tied_and_a_clear_gap_is_not():
    arena = rank(panel({"a": 0.0, "b": 0.0, "c": -1.5}, 3), draws=80)
    assert arena.tied("a", "b")
    assert not arena.tied("a", "c")
    mean, low, high = arena.differences["c", "a"]
    assert low <= mean <= high < 0


def test_a_system_that_never_lost_has_a_finite_rating():
    votes = [vote("r", f"p{i}", "a", "b", Choice.LEFT) for i in range(20)]
    arena = rank(votes, draws=20)
    assert arena.ratings[0].system == "a"
    assert np.isfinite([r.strength for r in arena.ratings]).all()


def test_repeats_count_once_and_gold_pairs_not_at_all():
    votes = panel({"a": 0.5, "b": 0.0}, 5, prompts=20)
    more = votes + [v.model_copy(update={"left": v.right, "right": v.left}) for v in votes]
    more += [vote("r0", f"g{i}", "a", "a", Choice.LEFT, gold=Choice.LEFT) for i in range(9)]
    assert rank(more, draws=20) == rank(votes, draws=20)


def test_no_votes_on_a_dimension_is_no_arena():
    assert rank([], draws=20) is None
    assert rank([vote("r", "p", "a", "b", Choice.LEFT)], "audio_quality", draws=20) is None


def test_bars_count_from_the_first_names_side():
    votes = [
        vote("r", "1", "a", "b", Choice.LEFT),
        vote("r", "2", "b", "a", Choice.LEFT),
        vote("r", "3", "b", "a", Choice.RIGHT),
        vote("r", "4", "b", "a", Choice.SAME),
        vote("r", "5", "a", "a", Choice.LEFT, gold=Choice.LEFT),
    ]
    (found,) = bars(votes)
    assert (found.first, found.second) == ("a", "b")
    assert (found.good, found.same, found.bad) == (2, 1, 1)
    assert found.score == pytest.approx((2 - 1) / 4)
    assert bars(votes, "audio_quality") == []


def test_a_dimension_is_ranked_by_its_own_votes():
    def both(i: int) -> PairVote:
        choices = {OVERALL: Choice.LEFT, "audio_quality": Choice.RIGHT}
        return PairVote(rater="r", prompt=f"p{i}", left="a", right="b", choices=choices)

    votes = [both(i) for i in range(10)]
    assert rank(votes, draws=20).ratings[0].system == "a"
    assert rank(votes, "audio_quality", draws=20).ratings[0].system == "b"
