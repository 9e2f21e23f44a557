"""Do raters agree, with each other, with themselves and with what is known?"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from zlib import crc32

import numpy as np
from scipy.stats import binomtest, fisher_exact, spearmanr

from reelmill.evaluation.vote import OVERALL, Choice, PairVote, ScaleVote

ALARM = 0.001  # chance of a false alarm per rater and check
GOLD_AT_LEAST = 0.8  # of the gold pairs an attentive rater gets right, at least
DRIFT_AT_LEAST = 0.3


class Scale(StrEnum):
    NOMINAL = "nominal"
    ORDINAL = "ordinal"
    INTERVAL = "interval"


def krippendorff_alpha(ratings: np.ndarray, scale: Scale = Scale.ORDINAL) -> float | None:
    """Krippendorff's alpha of float [raters, units], NaN where a rater gave none.

    1: full agreement; 0: chance; None where no two ratings of a unit can be compared or all
    ratings are one value. After Krippendorff 2011, Computing Krippendorff's Alpha-Reliability.
    """
    ratings = np.asarray(ratings, np.float64)
    values = np.unique(ratings[np.isfinite(ratings)])
    counts = np.stack([(ratings == v).sum(axis=0) for v in values], axis=1) if len(values) else None
    if counts is None:
        return None
    counts = counts[counts.sum(axis=1) >= 2].astype(np.float64)
    if not len(counts):
        return None
    n = counts.sum(axis=1)
    together = (counts.T / (n - 1)) @ counts - np.diag((counts / (n - 1)[:, None]).sum(axis=0))
    total = together.sum(axis=1)
    distance = _distances(values, total, scale)
    expected = np.outer(total, total) * distance
    if expected.sum() <= 0:
        return None
    return float(1 - (total.sum() - 1) * (together * distance).sum() / expected.sum())


def _distances(values: np.ndarray, total: np.ndarray, scale: Scale) -> np.ndarray:
    match scale:
        case Scale.NOMINAL:
            return (values[:, None] != values[None]).astype(np.float64)
        case Scale.INTERVAL:
            return np.square(values[:, None] - values[None])
    middle = np.cumsum(total) - total / 2
    return np.square(middle[:, None] - middle[None])


def pair_alpha(votes: Sequence[PairVote], dimension: str = OVERALL) -> float | None:
    """Ordinal alpha of Good, Same, Bad over pairs of clips.

    Which clip of a pair counts as first is a fixed coin's throw: if it were always the better
    system, all pairs would look alike, and alpha, which corrects for chance, would read 0.
    """
    rows: dict[str, dict[tuple, float]] = defaultdict(dict)
    for vote in votes:
        key, value = _turned(vote, dimension)
        if value is not None:
            rows[vote.rater].setdefault(key, value)
    return krippendorff_alpha(_matrix(rows))


def scale_alpha(votes: Sequence[ScaleVote], dimension: str) -> float | None:
    """Ordinal alpha of Likert scores over clips."""
    rows: dict[str, dict[tuple, float]] = defaultdict(dict)
    for vote in votes:
        if dimension in vote.scores:
            key = (vote.system, vote.prompt, vote.seed)
            rows[vote.rater].setdefault(key, float(vote.scores[dimension]))
    return krippendorff_alpha(_matrix(rows))


def _matrix(rows: Mapping[str, Mapping[tuple, float]]) -> np.ndarray:
    units = sorted({key for row in rows.values() for key in row})
    return np.array([[row.get(u, np.nan) for u in units] for row in rows.values()]).reshape(
        len(rows), len(units)
    )


def _turned(vote: PairVote, dimension: str) -> tuple[tuple, float | None]:
    """(pair, -1 | 0 | 1 for one of its systems); None for gold pairs and no word."""
    choice = vote.choices.get(dimension)
    first, second = sorted((vote.left, vote.right))
    key = (vote.prompt, vote.seed, first, second)
    if crc32(repr(key).encode()) & 1:
        first = second
    if choice is None or vote.left == vote.right:
        return key, None
    value = {Choice.LEFT: 1.0, Choice.SAME: 0.0, Choice.RIGHT: -1.0}[choice]
    return key, value if vote.left == first else -value


@dataclass(frozen=True)
class RaterReport:
    """One rater of a round. A share is None where there was nothing to take it of.

    left: share of left among left and right. gold: share of gold pairs got right. repeats: share
    of repeated pairs answered alike. agreement: share of pairs where the majority of the others
    has a side and this rater takes it. drift: that share in the second half of the rater's votes
    less that in the first. warnings: what is beyond chance, in words.
    """

    rater: str
    votes: int
    left: float | None
    gold: float | None
    repeats: float | None
    agreement: float | None
    drift: float | None
    warnings: tuple[str, ...]


def rater_reports(votes: Sequence[PairVote], dimension: str = OVERALL) -> list[RaterReport]:
    """One report per rater, by name.

    A warning needs evidence at `ALARM`: a leaning to one side; more gold pairs missed than an
    attentive rater (80 % right) would, or than the others do; agreement with the majority no
    better than a coin's, and less than the others have; repeats answered alike less often than the
    others answer theirs; or agreement that falls from the first half to the second by 0.3 or more.
    Agreement and repeats are held against the others', since among clips that are alike nobody can
    do well.
    """
    by_pair: dict[tuple, dict[str, float]] = defaultdict(dict)
    for vote in votes:
        key, value = _turned(vote, dimension)
        if value is not None:
            by_pair[key].setdefault(vote.rater, value)
    words = {
        name: _words([v for v in votes if v.rater == name], by_pair, dimension)
        for name in sorted({vote.rater for vote in votes})
    }
    return [_report(name, words, dimension) for name in words]


@dataclass(frozen=True)
class _Words:
    """One rater's votes in time; whether each gold pair is right, each vote agrees with the
    majority, each repeat with itself."""

    votes: Sequence[PairVote]
    gold: Sequence[bool]
    agreed: Sequence[bool]
    twice: Sequence[bool]


def _words(
    votes: Sequence[PairVote], by_pair: Mapping[tuple, Mapping[str, float]], dimension: str
) -> _Words:
    votes = sorted(votes, key=lambda vote: vote.at)
    agreed: list[bool] = []
    twice: list[bool] = []
    first: dict[tuple, float] = {}
    for vote in votes:
        key, value = _turned(vote, dimension)
        if value is None:
            continue
        if key in first:
            twice.append(first[key] == value)
            continue
        first[key] = value
        others = sum(v for name, v in by_pair[key].items() if name != vote.rater)
        if others and value:
            agreed.append(bool(np.sign(others) == value))
    gold = [v.choices.get(dimension) == v.gold for v in votes if v.gold is not None]
    return _Words(votes, gold, agreed, twice)


def _report(rater: str, words: Mapping[str, _Words], dimension: str) -> RaterReport:
    own = words[rater]
    votes, agreed, twice = own.votes, own.agreed, own.twice
    others = [theirs for name, theirs in words.items() if name != rater]
    choices = [vote.choices[dimension] for vote in votes if dimension in vote.choices]
    lefts, rights = choices.count(Choice.LEFT), choices.count(Choice.RIGHT)
    gold = own.gold
    half = len(agreed) // 2
    drift = float(np.mean(agreed[half:]) - np.mean(agreed[:half])) if half >= 5 else None
    warnings = []
    if lefts + rights and binomtest(lefts, lefts + rights).pvalue < ALARM:
        warnings.append(f"leans to one side: {lefts} left, {rights} right")
    if misses(gold, [right for theirs in others for right in theirs.gold]):
        warnings.append(f"misses gold pairs: {sum(gold)} of {len(gold)} right")
    coin = len(agreed) >= 20 and binomtest(sum(agreed), len(agreed), 0.5, "greater").pvalue > 0.05
    if coin and _fewer(agreed, [yes for theirs in others for yes in theirs.agreed]) < ALARM:
        warnings.append(f"agrees with the others like a coin: {sum(agreed)} of {len(agreed)}")
    if twice and _fewer(twice, [yes for theirs in others for yes in theirs.twice]) < ALARM:
        warnings.append(f"contradicts itself: {sum(twice)} of {len(twice)} repeats answered alike")
    if drift is not None and drift <= -DRIFT_AT_LEAST and _fell(agreed, half) < ALARM:
        warnings.append(f"drifts: agreement falls by {-drift:.2f} over the round")
    return RaterReport(
        rater=rater,
        votes=len(votes),
        left=lefts / (lefts + rights) if lefts + rights else None,
        gold=float(np.mean(gold)) if gold else None,
        repeats=float(np.mean(twice)) if twice else None,
        agreement=float(np.mean(agreed)) if agreed else None,
        drift=drift,
        warnings=tuple(warnings),
    )


def misses(gold: Sequence[bool], others: Sequence[bool]) -> bool:
    """Whether fewer gold questions are right than chance allows an attentive rater, or a rater who
    is like the others. others: theirs, of all of them."""
    if not gold:
        return False
    careless = binomtest(sum(gold), len(gold), GOLD_AT_LEAST, "less").pvalue < ALARM
    return bool(careless or _fewer(gold, others) < ALARM)


def _fell(agreed: Sequence[bool], half: int) -> float:
    return _fewer(agreed[half:], agreed[:half])


def _fewer(some: Sequence[bool], others: Sequence[bool]) -> float:
    """Chance that a share no smaller than the others' looks as small as this (Fisher's test)."""
    table = [[sum(some), len(some) - sum(some)], [sum(others), len(others) - sum(others)]]
    return float(fisher_exact(table, "less").pvalue)


def scale_drift(votes: Sequence[ScaleVote], dimension: str) -> dict[str, float | None]:
    """Per rater, rank correlation of the Likert score with its place in time.

    What is scored is subtracted first: the mean of the other raters for that clip. None where
    fewer than ten clips were scored by others too.
    """
    clips: dict[tuple, list[float]] = defaultdict(list)
    for vote in votes:
        if dimension in vote.scores:
            clips[vote.system, vote.prompt, vote.seed].append(vote.scores[dimension])
    found: dict[str, float | None] = {}
    for rater in sorted({vote.rater for vote in votes}):
        own = sorted((v for v in votes if v.rater == rater), key=lambda vote: vote.at)
        rest = [
            own_score - (sum(all_scores) - own_score) / (len(all_scores) - 1)
            for vote in own
            if (own_score := vote.scores.get(dimension)) is not None
            and len(all_scores := clips[vote.system, vote.prompt, vote.seed]) > 1
        ]
        enough = len(rest) >= 10 and np.ptp(rest) > 0
        found[rater] = float(spearmanr(np.arange(len(rest)), rest).statistic) if enough else None
    return found
