"""What the scores say: per model and metric, and between models, always with how many applied."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from reelmill.datasets.sample import Status
from reelmill.evaluation.bench import Bench
from reelmill.evaluation.bootstrap import LEVEL, Interval, Pair, mean_interval, paired_interval
from reelmill.evaluation.clips import ClipEntry
from reelmill.evaluation.metric import Better, goodness
from reelmill.evaluation.taxonomy import dimension_of

VERSION = 3


class Scored(Protocol):
    """What is read of a score."""

    @property
    def entry(self) -> ClipEntry: ...
    @property
    def metric(self) -> str: ...
    @property
    def value(self) -> float | None: ...
    @property
    def status(self) -> Status: ...


class Described(Protocol):
    """What is read of a metric, ours or another program's."""

    @property
    def name(self) -> str: ...
    @property
    def unit(self) -> str: ...
    @property
    def better(self) -> Better: ...
    @property
    def part(self) -> str: ...
    @property
    def truth(self) -> bool: ...


@dataclass(frozen=True)
class SetValue:
    """A number of all clips of a model together, such as FVD; it cannot be paired."""

    model: str
    metric: Described
    value: float | None
    status: Status
    clips: int


@dataclass(frozen=True)
class MetricLine:
    """One metric of one model. applied of total clips have a value; the others say why not.

    interval: of the mean over the clips that it applied to; None where it applied to none.
    """

    model: str
    metric: str
    unit: str
    better: str
    part: str
    dimension: str
    applied: int
    total: int
    not_applicable: int
    not_measured: int
    failed: int
    interval: Interval | None


@dataclass(frozen=True)
class Comparison:
    """One metric of two models, over the (prompt, seed) where it applied to both.

    difference: of `first` less `second`, in the metric's unit. gain: the same of goodness (below
    zero: `first` is worse), None for a metric that ranks nothing. verdict: the better of the two,
    if the interval of `gain` leaves out 0; `tied` if it holds 0; `unclear` with fewer than five
    common prompts; `no direction` for a metric that ranks nothing.
    """

    first: str
    second: str
    metric: str
    difference: Interval | None
    gain: Interval | None
    verdict: str
    truth: bool = False
    sure: bool = False


@dataclass(frozen=True)
class Standing:
    """Of two models. better: one of them, `tied`, `mixed` (each is better on something) or
    `unclear` (nothing in common was held against what was asked for).

    first_on, second_on: metrics on which each is better for sure. judged: how many were asked.
    """

    first: str
    second: str
    better: str
    first_on: tuple[str, ...]
    second_on: tuple[str, ...]
    judged: int

    def __str__(self) -> str:
        asked = f"{self.judged} {'measure' if self.judged == 1 else 'measures'} of what was asked"
        if self.better == "unclear":
            return f"{self.first} and {self.second}: nothing that was asked could be measured"
        if self.better == "tied":
            return f"{self.first} and {self.second} are tied on {asked}"
        sides = ((self.first, self.first_on), (self.second, self.second_on))
        told = "; ".join(f"{name} is better on {', '.join(on)}" for name, on in sides if on)
        return f"{told} (of {asked})"


@dataclass(frozen=True)
class Summary:
    """All of it, as summary.json holds it. prompts_missing: per model, of the bench. There is no
    total score: sum up what you can defend."""

    version: int
    seed: int
    models: tuple[str, ...]
    clips: Mapping[str, int]
    prompts_missing: Mapping[str, int]
    lines: tuple[MetricLine, ...]
    comparisons: tuple[Comparison, ...]

    def line(self, model: str, metric: str) -> MetricLine:
        """Raises KeyError for a model or metric that was not measured."""
        for line in self.lines:
            if (line.model, line.metric) == (model, metric):
                return line
        raise KeyError((model, metric))

    def comparison(self, first: str, second: str, metric: str) -> Comparison:
        """Names in alphabetical order. Raises KeyError where there is none."""
        for found in self.comparisons:
            if (found.first, found.second, found.metric) == (first, second, metric):
                return found
        raise KeyError((first, second, metric))

    def standing(self, one: str, other: str) -> Standing:
        """Which of two models does more of what was asked. Proxies do not count."""
        first, second = sorted((one, other))
        held = [
            c
            for c in self.comparisons
            if (c.first, c.second) == (first, second) and c.truth and c.verdict != "unclear"
        ]
        ours, theirs = (
            tuple(c.metric for c in held if c.sure and c.verdict == name)
            for name in (first, second)
        )
        better = "mixed" if ours and theirs else first if ours else second if theirs else "tied"
        return Standing(first, second, better if held else "unclear", ours, theirs, len(held))


def summarise(
    scores: Sequence[Scored],
    metrics: Sequence[Described],
    *,
    bench: Bench | None,
    seed: int,
    sets: Sequence[SetValue] = (),
) -> Summary:
    """Means over prompts with 95 % intervals, and paired differences of every two models."""
    models = sorted({score.entry.model for score in scores})
    held: dict[tuple[str, str], list[Scored]] = {}
    for score in scores:
        held.setdefault((score.entry.model, score.metric), []).append(score)
    lines = [
        _line(model, metric, held.get((model, metric.name), []), seed)
        for model in models
        for metric in metrics
    ]
    lines += [_set_line(value) for value in sets]
    count = sum(metric.truth and metric.better is not Better.NEITHER for metric in metrics)
    comparisons = [
        _compare(a, b, m, held.get((a, m.name), []), held.get((b, m.name), []), seed, count)
        for a, b in itertools.combinations(models, 2)
        for m in metrics
    ]
    entries = {score.entry.key: score.entry for score in scores}.values()
    asked = {prompt.id for prompt in bench.prompts} if bench is not None else set()
    missing = {m: len(asked - {e.prompt for e in entries if e.model == m}) for m in models}
    return Summary(
        version=VERSION,
        seed=seed,
        models=tuple(models),
        clips=dict(Counter(entry.model for entry in entries)),
        prompts_missing=missing,
        lines=tuple(lines),
        comparisons=tuple(comparisons),
    )


def _values(scores: Sequence[Scored]) -> dict[Pair, float]:
    """By (prompt, seed); a clip of no prompt is a prompt of its own."""
    return {
        (s.entry.prompt or s.entry.path, s.entry.seed): s.value
        for s in scores
        if s.value is not None
    }


def _line(model: str, metric: Described, scores: Sequence[Scored], seed: int) -> MetricLine:
    status = Counter(score.status for score in scores)
    return MetricLine(
        model=model,
        metric=metric.name,
        unit=metric.unit,
        better=str(metric.better),
        part=metric.part,
        dimension=dimension_of(metric.part),
        applied=status[Status.MEASURED],
        total=len(scores),
        not_applicable=status[Status.NOT_APPLICABLE],
        not_measured=status[Status.NOT_MEASURED],
        failed=status[Status.FAILED],
        interval=mean_interval(_values(scores), seed=seed),
    )


def _set_line(found: SetValue) -> MetricLine:
    def clips(status: Status) -> int:
        return found.clips if found.status is status else 0

    metric = found.metric
    return MetricLine(
        model=found.model,
        metric=metric.name,
        unit=metric.unit,
        better=str(metric.better),
        part=metric.part,
        dimension=dimension_of(metric.part),
        applied=clips(Status.MEASURED),
        total=found.clips,
        not_applicable=clips(Status.NOT_APPLICABLE),
        not_measured=clips(Status.NOT_MEASURED),
        failed=clips(Status.FAILED),
        interval=None if found.value is None else Interval(found.value, None, None, 0, found.clips),
    )


def _compare(
    first: str,
    second: str,
    metric: Described,
    a: Sequence[Scored],
    b: Sequence[Scored],
    seed: int,
    count: int,
) -> Comparison:
    """count: of metrics that are asked together which of the two is better."""
    ours, theirs = _paired(a), _paired(b)
    gain = _gain(metric.better, ours, theirs, seed)
    strict = None
    if metric.truth:
        strict = _gain(metric.better, ours, theirs, seed, 1 - (1 - LEVEL) / max(1, count))
    return Comparison(
        first=first,
        second=second,
        metric=metric.name,
        difference=paired_interval(ours, theirs, seed=seed),
        gain=gain,
        verdict="no direction"
        if metric.better is Better.NEITHER
        else _verdict(first, second, gain),
        truth=metric.truth,
        sure=strict is not None and strict.excludes_zero,
    )


def _paired(scores: Sequence[Scored]) -> dict[Pair, float]:
    """Only clips of a prompt can be paired."""
    return _values([score for score in scores if score.entry.prompt])


def _gain(
    better: Better,
    ours: Mapping[Pair, float],
    theirs: Mapping[Pair, float],
    seed: int,
    level: float = LEVEL,
) -> Interval | None:
    if better is Better.NEITHER:
        return None
    good = [
        {pair: g for pair, v in values.items() if (g := goodness(better, v)) is not None}
        for values in (ours, theirs)
    ]
    return paired_interval(good[0], good[1], seed=seed, level=level)


def _verdict(first: str, second: str, gain: Interval | None) -> str:
    if gain is None or gain.low is None:
        return "unclear"
    if not gain.excludes_zero:
        return "tied"
    return first if gain.mean > 0 else second
