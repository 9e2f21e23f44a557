"""What a closed round says: ratings, Good/Same/Bad, Likert means, and whether raters agree."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from reelmill.errors import UsageError
from reelmill.evaluation.agreement import (
    RaterReport,
    misses,
    pair_alpha,
    rater_reports,
    scale_alpha,
    scale_drift,
)
from reelmill.evaluation.arena import Arena, Bars, bars, rank
from reelmill.evaluation.bootstrap import FEWEST, Interval, Pair, mean_interval
from reelmill.evaluation.review.round import Closed
from reelmill.evaluation.review.skill import rater_skills
from reelmill.evaluation.taxonomy import dimensions
from reelmill.evaluation.vote import OVERALL, Choice, PairVote, ScaleVote

Means = dict[Pair, float]


@dataclass(frozen=True)
class Contest:
    """Two systems on one dimension. score: (G - B) / (G + S + B) over prompts, with its interval.

    A pair that a rater saw twice counts once, as first answered.
    """

    bars: Bars
    score: Interval | None


@dataclass(frozen=True)
class PairResult:
    """One dimension, or overall. alpha: Krippendorff's, of the raters; None where none is had.

    enough_prompts: with fewer, the intervals of the ratings say nothing.
    """

    dimension: str
    arena: Arena | None
    contests: tuple[Contest, ...]
    enough_prompts: bool
    alpha: float | None


@dataclass(frozen=True)
class ScaleResult:
    """One system on one dimension. counts: of the scores 1 to 5; mean over prompts."""

    dimension: str
    system: str
    mean: Interval | None
    counts: tuple[int, ...]


@dataclass(frozen=True)
class Rater:
    """A rater of the round. skill: 1 where votes follow the clips as the others' do, 0 where they
    follow nothing. gold_scales: share of damaged clips scored below their whole selves.

    unseen: questions answered before the clips were seen to their end. drift: rank correlation of
    scores with time, the largest over the dimensions. warnings: what is beyond chance.
    """

    name: str
    questions: int
    pairs: RaterReport | None
    skill: float | None
    gold_scales: float | None
    scale_drift: float | None
    unseen: int
    seconds: float | None
    counted: bool
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class Results:
    """All that the page of results shows."""

    round: str
    title: str
    closed_at: float
    systems: tuple[str, ...]
    asked: int
    answered: int
    prompts: int
    pairs: tuple[PairResult, ...]
    scales: tuple[ScaleResult, ...]
    scale_alphas: dict[str, float | None]
    raters: tuple[Rater, ...]
    without: tuple[str, ...]
    told_apart_by: tuple[str, ...]
    marks: dict[str, dict[str, int]]
    notes: tuple[tuple[str, str, str], ...]
    digests: dict[str, str]

    def as_json(self) -> dict[str, Any]:
        """Plain values, the differences of an arena by `first - second`."""
        plain = asdict(self)
        for result in plain["pairs"]:
            if result["arena"] is not None:
                found = result["arena"]["differences"]
                result["arena"]["differences"] = {f"{a} - {b}": d for (a, b), d in found.items()}
        return plain


def results(
    closed: Closed, *, without: Collection[str] = (), draws: int = 200, seed: int = 0
) -> Results:
    """Works out the results of a closed round.

    without: raters whose votes are not counted; they are still reported on.
    Raises UsageError for a rater who is not of the round, or when nobody is left.
    """
    scored = (*closed.scales, *closed.gold_scales, *closed.again_scales)
    names = sorted({v.rater for v in (*closed.pairs, *scored)})
    if strange := sorted(set(without) - set(names)):
        raise UsageError(f"{strange[0]!r} did not vote in this round; raters: {', '.join(names)}.")
    if set(names) <= set(without):
        raise UsageError("with all raters left out, nothing is left.")
    pairs = _once([v for v in closed.pairs if v.rater not in without])
    scales = [v for v in closed.scales if v.rater not in without]
    rows = [OVERALL, *(d.name for d in dimensions())]
    prompts = {v.prompt for v in (*pairs, *scales)}
    return Results(
        round=closed.round,
        title=closed.title,
        closed_at=closed.at,
        systems=closed.systems,
        asked=closed.asked,
        answered=len(closed.pairs) + len(scored),
        prompts=len(prompts),
        pairs=tuple(
            _pair_result(pairs, row, draws, seed)
            for row in rows
            if any(row in v.choices and v.gold is None for v in pairs)
        ),
        scales=tuple(
            _scale_result(scales, d.name, system, seed)
            for d in dimensions()
            for system in closed.systems
            if any(d.name in v.scores and v.system == system for v in scales)
        ),
        scale_alphas={
            d.name: scale_alpha(scales, d.name)
            for d in dimensions()
            if any(d.name in v.scores for v in scales)
        },
        raters=_raters(closed, names, without),
        without=tuple(sorted(without)),
        told_apart_by=closed.told_apart_by,
        marks=closed.flags,
        notes=closed.notes,
        digests=closed.digests,
    )


def _once(votes: Sequence[PairVote]) -> list[PairVote]:
    """Without repeats."""
    first: dict[tuple, PairVote] = {}
    for i, vote in enumerate(votes):
        pair = (vote.rater, vote.prompt, vote.seed, *sorted((vote.left, vote.right)))
        first.setdefault((*pair, i) if vote.gold is not None else pair, vote)
    return list(first.values())


def _pair_result(votes: Sequence[PairVote], row: str, draws: int, seed: int) -> PairResult:
    contests = []
    for found in bars(votes, row):
        signs: dict[tuple[str, int], list[float]] = defaultdict(list)
        for vote in votes:
            choice = vote.choices.get(row)
            if choice is not None and {vote.left, vote.right} == {found.first, found.second}:
                sign = {Choice.LEFT: 1.0, Choice.SAME: 0.0, Choice.RIGHT: -1.0}[choice]
                own = sign if vote.left == found.first else -sign
                signs[vote.prompt, vote.seed].append(own)
        means: Means = {place: float(np.mean(given)) for place, given in signs.items()}
        contests.append(Contest(found, mean_interval(means, seed=seed)))
    arena = rank(votes, row, draws=draws, seed=seed)
    return PairResult(
        dimension=row,
        arena=arena,
        enough_prompts=arena is not None and arena.prompts >= FEWEST,
        contests=tuple(contests),
        alpha=pair_alpha(votes, row),
    )


def _scale_result(votes: Sequence[ScaleVote], row: str, system: str, seed: int) -> ScaleResult:
    given: dict[tuple[str, int], list[float]] = defaultdict(list)
    counts: Counter[int] = Counter()
    for vote in votes:
        if vote.system == system and row in vote.scores:
            given[vote.prompt, vote.seed].append(vote.scores[row])
            counts[vote.scores[row]] += 1
    means: Means = {place: float(np.mean(scores)) for place, scores in given.items()}
    return ScaleResult(
        row, system, mean_interval(means, seed=seed), tuple(counts[n] for n in range(1, 6))
    )


def _raters(closed: Closed, names: Sequence[str], without: Collection[str]) -> tuple[Rater, ...]:
    reports = {report.rater: report for report in rater_reports(closed.pairs)}
    every = (*closed.pairs, *closed.scales, *closed.gold_scales, *closed.again_scales)
    drifts = {d.name: scale_drift(closed.scales, d.name) for d in dimensions() if closed.scales}
    skills = rater_skills(_once(closed.pairs))
    golds = {name: _gold_scales(closed, name) for name in names}
    made = []
    for name in names:
        own = [vote for vote in every if vote.rater == name]
        warnings = list(reports[name].warnings) if name in reports else []
        skill = skills.get(name)
        if skill is not None and skill.none:
            warnings.append(f"votes follow nothing: skill {skill.value:.2f}, the others have 1")
        gold = golds[name]
        if misses(gold, [right for other in names if other != name for right in golds[other]]):
            warnings.append(
                f"misses damage: {sum(gold)} of {len(gold)} scored below the whole clip"
            )
        drift = [found for d in drifts.values() if (found := d.get(name)) is not None]
        taken = [vote.seconds for vote in own if vote.seconds > 0]
        made.append(
            Rater(
                name=name,
                questions=len(own),
                pairs=reports.get(name),
                skill=skill.value if skill else None,
                gold_scales=float(np.mean(gold)) if gold else None,
                scale_drift=max(drift, key=abs) if drift else None,
                unseen=closed.unseen.get(name, 0),
                seconds=float(np.median(taken)) if taken else None,
                counted=name not in without,
                warnings=tuple(warnings),
            )
        )
    return tuple(made)


def _gold_scales(closed: Closed, rater: str) -> list[bool]:
    """Whether each damaged clip was scored, in the mean, below the same clip undamaged."""
    whole = {
        (v.system, v.prompt, v.seed): np.mean(list(v.scores.values()))
        for v in closed.scales
        if v.rater == rater
    }
    return [
        bool(np.mean(list(v.scores.values())) < whole[v.system, v.prompt, v.seed])
        for v in closed.gold_scales
        if v.rater == rater and (v.system, v.prompt, v.seed) in whole
    ]
