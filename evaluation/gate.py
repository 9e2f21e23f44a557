"""May a checkpoint take the place of the one before? Bounds are data; the answer says why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from reelmill.errors import UsageError
from reelmill.evaluation.bootstrap import Interval
from reelmill.evaluation.metric import Better
from reelmill.evaluation.summary import Comparison, MetricLine, Summary

MAX_YAML = 1 << 20


class Bound(BaseModel):
    """How far a metric, or each metric of a dimension, may fall, in the metric's own unit.

    certain: it counts as fallen when all of the interval of the paired difference lies beyond;
    else when its mean does. required: without a value in common it may not be promoted.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    may_fall: float = Field(default=0.0, ge=0)
    certain: bool = True
    required: bool = False


Bounds = Mapping[str, Bound]  # by name of a metric or of a dimension


@dataclass(frozen=True)
class Fall:
    """A bound that is broken. change: in goodness, so below zero is worse; None: no value."""

    metric: str
    change: Interval | None
    may_fall: float
    why: str


@dataclass(frozen=True)
class Decision:
    candidate: str
    incumbent: str
    falls: tuple[Fall, ...]
    judged: int

    @property
    def promoted(self) -> bool:
        return not self.falls


def read_bounds(path: Path) -> dict[str, Bound]:
    """Bounds of a YAML file, `Sharpness: {may_fall: 0.002}` a line. Raises UsageError."""
    try:
        if path.stat().st_size > MAX_YAML:
            raise UsageError(f"{path} is larger than {MAX_YAML >> 20} MiB: no bounds.")
        rows = yaml.safe_load(path.read_text("utf-8"))
        if not isinstance(rows, dict) or not rows:
            raise UsageError(f"{path} must hold bounds by the name of a metric or a dimension.")
        return {str(name): Bound.model_validate(row or {}) for name, row in rows.items()}
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}.") from error
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise UsageError(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}.") from error
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(f"{path} is no YAML: {str(error)[:200]}.") from error


def promote(summary: Summary, candidate: str, incumbent: str, bounds: Bounds) -> Decision:
    """Whether `candidate` may follow `incumbent`, both models of the summary.

    Raises UsageError for a model that was not measured, or a bound that names nothing measurable.
    """
    for model in (candidate, incumbent):
        if model not in summary.models:
            raise UsageError(f"no clips of {model!r} were measured: {', '.join(summary.models)}.")
    lines = [line for line in summary.lines if line.model == candidate]
    falls: list[Fall] = []
    judged = 0
    for name, bound in bounds.items():
        mine = [ln for ln in lines if name in (ln.metric, ln.dimension)]
        mine = [ln for ln in mine if ln.better != Better.NEITHER]
        if not mine:
            raise UsageError(f"bound {name!r} names no metric or dimension that has a direction.")
        changes = [(line, _change(summary, line, candidate, incumbent)) for line in mine]
        known = [change for _, change in changes if change is not None]
        judged += len(known)
        if bound.required and not known:
            falls.append(Fall(name, None, bound.may_fall, "no clip in common has a value"))
        for line, change in changes:
            if change is not None and (why := _fallen(change, bound)):
                falls.append(Fall(line.metric, change, bound.may_fall, why))
    return Decision(candidate, incumbent, tuple(falls), judged)


def _fallen(change: Interval, bound: Bound) -> str:
    if not bound.certain:
        return "its mean fell" if change.mean < -bound.may_fall else ""
    if change.high is None:  # fewer than five prompts: nothing is certain
        return ""
    return "it fell for certain" if change.high < -bound.may_fall else ""


def _change(summary: Summary, line: MetricLine, candidate: str, incumbent: str) -> Interval | None:
    """Gain of the candidate in goodness, paired by prompt and seed."""
    first, second = sorted((candidate, incumbent))
    try:
        found: Comparison = summary.comparison(first, second, line.metric)
    except KeyError:
        return None  # of a whole set: it cannot be paired
    gain = found.gain
    if gain is None or first == candidate:
        return gain
    turn = None if gain.low is None or gain.high is None else (-gain.high, -gain.low)
    low, high = turn or (None, None)
    return Interval(-gain.mean, low, high, gain.prompts, gain.clips)
