"""Results of rounds whose raters are simulated, through plan, ballots and join."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from tests.evaluation.review.paper_round import SCALES, Mind, voted

from reelmill.errors import UsageError
from reelmill.evaluation.review.plan import Mode, Shares
from reelmill.evaluation.review.results import results
from reelmill.evaluation.review.results_page import render_results
from reelmill.evaluation.vote import OVERALL

TRUTH = {"ace": 1.2, "bee": 0.4, "cat": -0.3, "dog": -1.3}
MANY = Shares(each=3, repeats=0.1, gold=0.1)


def overall(found):
    return next(p for p in found.pairs if p.dimension == OVERALL)


def test_ranking_ties_and_side_are_recovered():
    minds = {f"r{i}": Mind(ties=0.2, side=0.5) for i in range(6)}
    found = results(voted(TRUTH, minds, 1, prompts=60), draws=40)
    arena = overall(found).arena
    assert [r.system for r in arena.ratings] == list(TRUTH)
    assert {r.system: r.strength for r in arena.ratings} == pytest.approx(TRUTH, abs=0.25)
    assert arena.ties == pytest.approx(0.2, abs=0.15)
    assert arena.left == pytest.approx(0.5, abs=0.15)
    assert arena.votes == 3 * 60 * 6
    assert not arena.tied("ace", "bee")
    assert found.answered == found.asked


@pytest.mark.slow
def test_intervals_cover_at_their_rate():
    """Of ratings and of Good-Bad scores, over rounds that differ in their seed alone."""
    truth = {"ace": 0.6, "bee": 0.0}
    minds = {f"r{i}": Mind() for i in range(2)}
    shares = Shares(each=2, repeats=0, gold=0)
    p = np.exp([0.3, -0.5, -0.3])
    score = (p[0] - p[2]) / p.sum()
    rated = scored = 0
    runs = 100
    for run in range(runs):
        found = overall(results(voted(truth, minds, run, shares=shares), draws=60))
        _, low, high = found.arena.differences["ace", "bee"]
        rated += low <= 0.6 <= high
        (contest,) = found.contests
        scored += contest.score.low <= score <= contest.score.high
    assert 0.9 <= rated / runs <= 0.99
    assert 0.9 <= scored / runs <= 0.99


def test_the_same_system_under_two_names_is_tied():
    truth = {"ace": 0.0, "double": 0.0, "poor": -1.5}
    tied = 0
    for seed in range(12):
        found = results(voted(truth, {f"r{i}": Mind() for i in range(4)}, seed), draws=60)
        arena = overall(found).arena
        tied += arena.tied("ace", "double")
        assert not arena.tied("ace", "poor")
        assert ("No winner" in render_results(found)) == arena.tied("ace", "double")
    assert tied >= 10


def test_random_and_biased_raters_are_flagged_and_good_ones_are_not():
    minds = {f"good{i}": Mind(ties=-1.0) for i in range(5)}
    minds |= {"random": Mind(skill=0.0), "lefty": Mind(side=5.0, skill=0.5)}
    shares = Shares(each=7, repeats=0.15, gold=0.15)
    found = {r.name: r for r in results(voted(TRUTH, minds, 3, shares=shares), draws=20).raters}
    for i in range(5):
        assert found[f"good{i}"].warnings == ()
        assert found[f"good{i}"].pairs.gold > 0.8
    told = {n: " ".join(found[n].warnings) for n in ("random", "lefty")}
    assert "gold" in told["random"]
    assert "votes follow nothing" in told["random"]
    assert found["random"].skill == pytest.approx(0, abs=0.3)
    assert all(0.6 < found[f"good{i}"].skill < 1.6 for i in range(5))
    assert "one side" in told["lefty"]
    assert "contradicts itself" in told["lefty"]
    assert "gold" in told["lefty"]


def test_who_answers_at_random_is_found_in_a_round_of_usual_size():
    """Twenty prompts, three raters a pair, shares as they come: 60 pairs and 12 gold for each."""
    flagged = false = 0
    for seed in range(20):
        minds = {f"good{i}": Mind() for i in range(4)} | {"random": Mind(skill=0.0)}
        closed = voted(TRUTH, minds, seed, prompts=20, shares=Shares())
        raters = {r.name: r for r in results(closed, draws=20).raters}
        flagged += bool(raters["random"].warnings)
        false += sum(bool(raters[f"good{i}"].warnings) for i in range(4))
    assert flagged >= 17
    assert false <= 2


def test_good_raters_are_rarely_flagged_even_among_equal_systems():
    """Where clips are alike, repeats are answered by chance; that is nobody's fault."""
    truth = {"ace": 0.05, "bee": 0.0, "cat": -0.05}
    flagged = 0
    for seed in range(12):
        minds = {f"r{i}": Mind(ties=-1.0) for i in range(4)}
        found = results(voted(truth, minds, seed, shares=Shares(4, 0.2, 0.1)), draws=20)
        told = [w for r in found.raters for w in r.warnings]
        flagged += len(told)
    assert flagged <= 1


def test_scores_rank_systems_and_flag_who_sees_no_damage():
    minds = {f"good{i}": Mind(strict=0.3 * i) for i in range(4)} | {"blind": Mind(skill=0.0)}
    shares = Shares(each=5, repeats=0.05, gold=0.3)
    closed = voted(TRUTH, minds, 2, mode=Mode.SCALES, shares=shares, prompts=20)
    found = results(closed)
    for dimension in SCALES:
        means = {s.system: s.mean.mean for s in found.scales if s.dimension == dimension}
        assert sorted(means, key=means.get, reverse=True) == list(TRUTH)
        assert found.scale_alphas[dimension] > 0.2
    without = results(closed, without=["blind"])
    assert without.scale_alphas["motion_quality"] > found.scale_alphas["motion_quality"]
    raters = {r.name: r for r in found.raters}
    assert "misses damage" in " ".join(raters["blind"].warnings)
    assert all(not raters[f"good{i}"].warnings for i in range(4))
    assert all(raters[f"good{i}"].gold_scales > 0.9 for i in range(4))
    one = found.scales[0]
    assert sum(one.counts) == 5 * 20
    damaged = {(v.system, v.prompt) for v in closed.gold_scales}
    assert damaged
    assert found.pairs == ()


def test_a_rater_left_out_changes_the_votes_and_stays_on_the_list():
    minds = {f"r{i}": Mind() for i in range(3)} | {"random": Mind(skill=0.0)}
    closed = voted(TRUTH, minds, 4, shares=Shares(each=4, repeats=0.1, gold=0.1))
    every, some = results(closed, draws=20), results(closed, without=["random"], draws=20)
    assert overall(some).arena.votes == overall(every).arena.votes * 3 // 4
    assert overall(some).alpha > overall(every).alpha
    (left_out,) = [r for r in some.raters if not r.counted]
    assert left_out.name == "random"
    assert "left out" in render_results(some)
    with pytest.raises(UsageError, match="did not vote"):
        results(closed, without=["nobody"])
    with pytest.raises(UsageError, match="nothing is left"):
        results(closed, without=list(minds))


def test_repeats_count_once():
    minds = {f"r{i}": Mind() for i in range(3)}
    shares = Shares(each=3, repeats=0.5, gold=0.0)
    found = results(voted({"ace": 1.0, "bee": 0.0}, minds, 4, shares=shares), draws=20)
    assert overall(found).arena.votes == overall(found).contests[0].bars.votes == 90
    assert all(r.pairs.repeats is not None for r in found.raters)


def test_with_few_prompts_there_is_no_verdict():
    found = results(voted({"ace": 5.0, "bee": -5.0}, {"r": Mind()}, 1, prompts=3,
                          shares=Shares(1, 0, 0)), draws=20)  # fmt: skip
    assert not overall(found).enough_prompts
    page = render_results(found)
    assert "Too few prompts for a verdict" in page
    assert "is better than" not in page


def test_the_page_escapes_and_fetches_nothing():
    bad = "<script>alert(1)</script>"
    closed = voted({bad: 1.0, "bee": 0.0}, {"r1": Mind(), "r2": Mind()}, 1, prompts=8,
                   mode=Mode.BOTH, shares=Shares(2))  # fmt: skip
    closed = closed.model_copy(update={"notes": (("r1", f"{bad} p", "x\" onload='y'"),)})
    found = results(closed, draws=20)
    page = render_results(found)
    assert bad not in page
    assert "&lt;script&gt;alert(1)" in page
    assert "<script" not in page.lower()
    assert not re.search(r"(src|href)=\"?(https?:)?//", page)
    assert "default-src 'none'" in page
    assert len(page.encode()) < 500_000
    plain = json.loads(json.dumps(found.as_json(), allow_nan=False))
    assert f"{bad} - bee" in plain["pairs"][0]["arena"]["differences"]
