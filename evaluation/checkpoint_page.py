"""The page of one checkpoint: what it gained and lost, the gate, and the trend. One file."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from reelmill.evaluation.bootstrap import LEVEL, Interval
from reelmill.evaluation.gate import Bounds, Decision
from reelmill.evaluation.review.document import document
from reelmill.evaluation.summary import MetricLine, Summary
from reelmill.evaluation.taxonomy import dimensions
from reelmill.reports.markup import el, join, number, plural, table, text

WIDTH, HEIGHT, PAD = 160.0, 36.0, 4.0
LEAD = (
    "Measured without weights unless a program was named. Means over prompts with their "
    f"{LEVEL:.0%} interval, drawn by prompt; changes are paired by prompt and seed. 'Applied' is "
    "the number of clips that a metric could say anything about. There is no total score."
)


def render_checkpoint(
    summary: Summary, order: Sequence[str], decision: Decision | None, bounds: Bounds
) -> str:
    """order: checkpoints from the first to the one of this page. Same input, same bytes."""
    name = order[-1]
    body = join(
        el("a", "Skip to the results", href="#main", class_="skip"),
        el(
            "main",
            el("h1", "Checkpoint ", text(name)),
            el("p", LEAD),
            _gate(decision, bounds),
            _standing(summary, name, decision),
            [_dimension(summary, order, d.name, decision) for d in dimensions()],
            el(
                "p",
                f"{plural(summary.clips[name], 'clip')}; prompts of the bench without one: "
                f"{summary.prompts_missing[name]}. Seed of the intervals: {summary.seed}.",
            ),
            id="main",
        ),
    )
    return document(f"Checkpoint {name}", body, style="results.css")


def _gate(decision: Decision | None, bounds: Bounds) -> Markup:
    if decision is None:
        return el("section", el("h2", "Gate"), el("p", "The first checkpoint: nothing to compare."))
    said = "Promoted" if decision.promoted else "Not promoted"
    rows = [
        [text(f.metric), _interval(f.change), number(f.may_fall), f.why] for f in decision.falls
    ]
    return el(
        "section",
        el("h2", "Gate: ", said),
        el("p", "Held against ", text(decision.incumbent), f": {len(bounds)} bounds on "
           f"{plural(decision.judged, 'metric')} with a value, {len(rows)} broken."),
        table(["Metric", "Change in goodness", "May fall", "Why"], rows, caption="Broken bounds")
        if rows
        else None,
    )  # fmt: skip


def _standing(summary: Summary, name: str, decision: Decision | None) -> Markup | None:
    if decision is None:
        return None
    found = summary.standing(name, decision.incumbent)
    return el(
        "section",
        el("h2", "What was asked for"),
        el("p", text(str(found)), ". Only what holds clips against the prompt counts here, at "
           f"{LEVEL:.0%} for all of it together; everything else below is a proxy."),
    )  # fmt: skip


def _dimension(
    summary: Summary, order: Sequence[str], name: str, decision: Decision | None
) -> Markup:
    lines = [ln for ln in summary.lines if ln.model == order[-1] and ln.dimension == name]
    rows = [_row(summary, order, line, decision) for line in lines]
    title = name.replace("_", " ").capitalize()
    head = ["Metric", "Value", "Better", "Applied", "Change", "Verdict", "Trend"]
    return el("section", el("h2", title), table(head, rows, caption=title) if rows else None)


def _row(
    summary: Summary, order: Sequence[str], line: MetricLine, decision: Decision | None
) -> list[Markup | str]:
    change, verdict = None, "-"
    if decision is not None:
        first, second = sorted((order[-1], decision.incumbent))
        try:
            found = summary.comparison(first, second, line.metric)
        except KeyError:
            found = None
        if found is not None and found.difference is not None:
            change, verdict = found.difference, found.verdict
            if first != order[-1]:
                change = _turned(change)
    values = [_mean(summary, model, line.metric) for model in order]
    unit = f" {line.unit}" if line.unit else ""
    none = (
        f"{line.applied}/{line.total}"
        + (f", {line.not_measured} not measured" if line.not_measured else "")
        + (f", {line.failed} failed" if line.failed else "")
    )
    return [
        text(line.metric),
        join(_interval(line.interval), unit if line.interval else ""),
        line.better,
        none,
        _interval(change),
        text(verdict),
        _trend(order, values),
    ]


def _turned(found: Interval) -> Interval:
    low = None if found.high is None else -found.high
    high = None if found.low is None else -found.low
    return Interval(-found.mean, low, high, found.prompts, found.clips)


def _mean(summary: Summary, model: str, metric: str) -> float | None:
    try:
        interval = summary.line(model, metric).interval
    except KeyError:
        return None
    return None if interval is None else interval.mean


def _interval(found: Interval | None) -> str:
    if found is None:
        return "-"
    if found.low is None or found.high is None:
        return number(found.mean)
    return f"{number(found.mean)} [{number(found.low)}, {number(found.high)}]"


def _trend(order: Sequence[str], values: Sequence[float | None]) -> Markup | str:
    known = [(i, v) for i, v in enumerate(values) if v is not None]
    if len(known) < 2:
        return "-"
    low, high = min(v for _, v in known), max(v for _, v in known)
    spread = (high - low) or 1.0
    places = [
        (
            PAD + (WIDTH - 2 * PAD) * i / (len(values) - 1),
            HEIGHT - PAD - (HEIGHT - 2 * PAD) * (v - low) / spread,
        )
        for i, v in known
    ]
    told = ", ".join(f"{order[i]} {number(v)}" for i, v in known)
    line = el(
        "polyline",
        points=" ".join(f"{x:.1f},{y:.1f}" for x, y in places),
        fill="none",
        stroke="currentColor",
    )
    dots = [el("circle", cx=x, cy=y, r=2.0, fill="currentColor") for x, y in places]
    box = f"0 0 {WIDTH:.0f} {HEIGHT:.0f}"
    parts = [el("title", told), line, *dots]
    return el("svg", parts, viewBox=box, width=WIDTH, height=HEIGHT, role="img", aria_label=told)
