"""Agreement against published examples, and raters with known faults."""

from __future__ import annotations

from itertools import chain

import numpy as np
import pytest
from tests.evaluation.raters import panel, vote, votes_of

from reelmill.evaluation.agreement import (
    Scale,
    krippendorff_alpha,
    pair_alpha,
    rater_reports,
    scale_alpha,
    scale_drift,
)
from reelmill.evaluation.vote import Choice, ScaleVote

_ = np.nan
# Krippendorff 2011, Computing Krippendorff's Alpha-Reliability, example C: four observers.
PUBLISHED = np.array(
    [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, _, _, _],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, _, 3],
        [_, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, _],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, _],
    ]
)
TRUTH = {"a": 1.5, "b": 0.0, "c": -1.5}
PROMPTS = [f"p{i}" for i in range(30)]


@pytest.mark.parametrize(
    ("scale", "alpha"),
    [(Scale.NOMINAL, 0.743), (Scale.ORDINAL, 0.815), (Scale.INTERVAL, 0.849)],
)
def test_alpha_is_that_of_the_published_example(scale: Scale, alpha: float):
    assert krippendorff_alpha(PUBLISHED, scale) == pytest.approx(alpha, abs=5e-4)


def test_alpha_at_its_ends():
    rng = np.random.default_rng(0)
    same = np.repeat(rng.integers(1, 6, (1, 200)), 3, axis=0).astype(float)
    assert krippendorff_alpha(same) == pytest.approx(1.0)
    chance = rng.integers(1, 6, (3, 2000)).astype(float)
    assert krippendorff_alpha(chance) == pytest.approx(0.0, abs=0.05)
    assert krippendorff_alpha(np.ones((3, 5))) is None
    assert krippendorff_alpha(np.full((2, 4), np.nan)) is None
    assert krippendorff_alpha(np.array([[1.0, _], [_, 2.0]])) is None


def test_pairs_agree_whichever_side_they_are_shown_on():
    votes = [
        vote("r1", "p1", "a", "b", Choice.LEFT),
        vote("r2", "p1", "b", "a", Choice.RIGHT),
        vote("r1", "p2", "a", "b", Choice.RIGHT),
        vote("r2", "p2", "a", "b", Choice.RIGHT),
    ]
    assert pair_alpha(votes) == pytest.approx(1.0)
    sure = pair_alpha(panel(TRUTH, 0))
    unsure = pair_alpha(panel(TRUTH, 0, skill=0.0))
    assert sure > 0.2
    assert unsure == pytest.approx(0.0, abs=0.06)


def test_faulty_raters_are_flagged_and_good_ones_are_not():
    rng = np.random.default_rng(4)
    good = [
        v
        for r in range(6)
        for v in votes_of(f"good{r}", TRUTH, PROMPTS, rng, gold=40, repeats=20, ties=-1.0)
    ]
    faulty = {
        "random": votes_of("random", TRUTH, PROMPTS, rng, skill=0, gold=40),
        "lefty": votes_of("lefty", TRUTH, PROMPTS, rng, side=2.5, gold=40),
        "tired": votes_of("tired", TRUTH, PROMPTS, rng, tired=-1.0),
    }
    reports = {r.rater: r for r in rater_reports([*good, *chain(*faulty.values())])}
    for r in range(6):
        assert reports[f"good{r}"].warnings == ()
        assert reports[f"good{r}"].gold > 0.7
        assert reports[f"good{r}"].repeats > 0.4
        assert reports[f"good{r}"].agreement > 0.7
    told = {name: " ".join(reports[name].warnings) for name in faulty}
    assert "gold" in told["random"]
    assert "like a coin" in told["random"]
    assert "one side" in told["lefty"]
    assert reports["lefty"].left > 0.7
    assert "drifts" in told["tired"]
    assert reports["tired"].drift < -0.3


def test_good_raters_are_rarely_flagged():
    flagged = 0
    for seed in range(12):
        votes = panel(TRUTH, seed, raters=5, gold=15, ties=-1.0)
        flagged += sum(bool(r.warnings) for r in rater_reports(votes))
    assert flagged <= 1


def scales(rater: str, rng: np.random.Generator, slope: float) -> list[ScaleVote]:
    made = []
    for at, i in enumerate(rng.permutation(40)):
        score = int(np.clip(np.rint(1 + i % 3 + slope * at + rng.normal(0, 0.3)), 1, 5))
        made.append(
            ScaleVote(
                rater=rater, prompt=f"p{i}", system="a", scores={"motion_quality": score}, at=at
            )
        )
    return made


def test_likert_scores_agree_and_drift_is_seen():
    rng = np.random.default_rng(2)
    steady = [v for r in range(4) for v in scales(f"r{r}", rng, 0.0)]
    assert scale_alpha(steady, "motion_quality") > 0.8
    assert scale_alpha(steady, "audio_quality") is None
    found = scale_drift([*steady, *scales("rising", rng, 0.05)], "motion_quality")
    assert found["rising"] > 0.5
    assert all(abs(found[f"r{r}"]) < 0.5 for r in range(4))
    assert scale_drift(steady[:5], "motion_quality") == {"r0": None}


def test_what_there_was_nothing_of_has_no_share():
    (report,) = rater_reports([vote("r", "p", "a", "b", Choice.SAME)])
    assert (report.left, report.gold, report.repeats, report.drift) == (None, None, None, None)
    assert report.agreement is None
    assert report.votes == 1
