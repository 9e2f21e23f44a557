"""The funnel in units, hours and bytes, and the conservation law in figures."""

from __future__ import annotations

from collections.abc import Callable

from markupsafe import Markup

from reelmill.reports.markup import count, duration, el, join, percent, plural, size, tabs
from reelmill.reports.schema import Amount, RunReport, StageReport, Tally

Measure = Callable[[Amount], float]
MEASURES: tuple[tuple[str, Measure, Callable[[float], str]], ...] = (
    ("Clips", lambda a: a.count, lambda v: count(int(v))),
    ("Hours", lambda a: a.seconds, duration),
    ("Bytes", lambda a: a.bytes, size),
)
PLURAL = {"asset": "assets", "clip": "clips"}


def strip(report: RunReport) -> Markup:
    """The stages in order, each with its share kept; failures stand out."""
    lists = []
    for kind in _lanes(report):
        cells = [_cell(stage) for stage in report.of_recipe(kind)]
        heading = el("p", kind or "all files", class_="lane")
        lists.append(el("div", heading, el("ol", cells, class_="strip")))
    return join(lists)


def _lanes(report: RunReport) -> list[str]:
    """Recipes in order, `` first for stages before the kinds part."""
    return list(dict.fromkeys(stage.recipe for stage in report.stages))


def _cell(stage: StageReport) -> Markup:
    tally = stage.tally
    told: list[Markup] = []
    if tally.rejected.count:
        told.append(el("span", f"−{count(tally.rejected.count)}", class_="lost"))
    if tally.failed.count:
        told.append(el("span", f"{count(tally.failed.count)} failed", class_="failed"))
    if stage.no_value.not_measured:
        told.append(el("span", "not measured", class_="warn"))
    return el(
        "li",
        el(
            "a",
            el("span", stage.name, class_="name"),
            el("b", percent(tally.kept.count, tally.into.count)),
            bar(tally, lambda a: a.count, tally.into.count),
            el("span", told or el("span", "–", class_="lost"), class_="told"),
            href=f"#{stage.slug}",
        ),
    )


def bar(tally: Tally, measure: Measure, most: float, width: int = 400) -> Markup:
    """Kept, rejected and failed side by side, on a scale where `most` is the whole width."""
    x, marks = 0.0, []
    for name in ("kept", "rejected", "failed"):
        value = measure(getattr(tally, name))
        if value and most:
            part = max(width * value / most, 2.0)
            marks.append(
                el("rect", x=min(x, width - part), y=0, width=part, height=10, class_=name)
            )
            x += part
    return el(
        "svg",
        el("rect", x=0, y=0, width=width, height=10, class_="track"),
        marks,
        viewBox=f"0 0 {width} 10",
        preserveAspectRatio="none",
        class_="share",
        aria_hidden="true",
    )


def funnel(report: RunReport) -> Markup:
    return tabs(
        "funnel",
        [
            (name, join([_lane(report, kind, name, measure, show) for kind in _lanes(report)]))
            for name, measure, show in MEASURES
        ],
        "Unit of the funnel",
    )


def _lane(
    report: RunReport, kind: str, name: str, measure: Measure, show: Callable[[float], str]
) -> Markup:
    stages = report.of_recipe(kind)
    by_count = name == "Clips"
    rows: list[Markup] = []
    most = 0.0
    for i, stage in enumerate(stages):
        before = stages[i - 1] if i else None
        if before is None or before.unit != stage.unit:
            if before is not None:
                rows.append(_gain(before, stage))
            if by_count or before is None:
                most = max((measure(s.tally.into) for s in stages if s.unit == stage.unit or
                            not by_count), default=0.0)  # fmt: skip
        rows.append(_row(stage, measure, show, most))
    head = ("Stage", "", "In", "Rejected", "Failed", "Kept", "Kept of in")
    return el(
        "div",
        el(
            "table",
            el("caption", f"{kind or 'All files'}, in {name.lower()}"),
            el("thead", el("tr", [el("th", h, scope="col") for h in head])),
            el("tbody", rows),
            class_="funnel",
        ),
        class_="scroll",
        tabindex=0,
        role="region",
        aria_label=f"Funnel of {kind or 'all files'} in {name.lower()}",
    )


def _row(stage: StageReport, measure: Measure, show: Callable[[float], str], most: float) -> Markup:
    tally = stage.tally
    into, kept = measure(tally.into), measure(tally.kept)
    rejected, failed = measure(tally.rejected), measure(tally.failed)
    return el(
        "tr",
        el("th", el("a", stage.name, href=f"#{stage.slug}"), scope="row"),
        el("td", bar(tally, measure, most), class_="bar"),
        el("td", show(into), class_="n"),
        el("td", f"−{show(rejected)}" if rejected else "", class_="n"),
        el("td", f"−{show(failed)}" if failed else "", class_="n failed" if failed else "n"),
        el("td", show(kept), class_="n strong"),
        el("td", percent(kept, into), class_="n quiet"),
    )


def _gain(assets: StageReport, clips: StageReport) -> Markup:
    """Segmentation makes many clips of one asset: a gain, not a loss."""
    kept, made = assets.tally.kept, clips.tally.into
    times = f" (× {made.count / kept.count:.1f})" if kept.count else ""
    words = (
        f"{plural(kept.count, assets.unit)} of {duration(kept.seconds)} became "
        f"{plural(made.count, clips.unit)} of {duration(made.seconds)}{times}"
    )
    return el("tr", el("td", words, colspan=7), class_="gain")


def conservation(report: RunReport) -> Markup:
    """in = kept + rejected + failed, as read from the report and checked when it was loaded."""
    lines = []
    for name in ("files", "assets", "clips"):
        tally: Tally = getattr(report.totals, name)
        parts = [tally.into, tally.kept, tally.rejected, tally.failed]
        cells = [
            el(
                "td",
                el("b", count(part.count)),
                el("small", f"{duration(part.seconds)} · {size(part.bytes)}")
                if part.count
                else None,
            )
            for part in parts
        ]
        signs = [el("td", sign, class_="sign", aria_hidden="true") for sign in ("=", "+", "+")]
        mixed = [cells[0], signs[0], cells[1], signs[1], cells[2], signs[2], cells[3]]
        lines.append(el("tr", el("th", name, scope="row"), mixed))
    head = ["", "in", "", "kept", "", "rejected", "", "failed"]
    return el(
        "div",
        el(
            "table",
            el("caption", "What came in and what became of it", class_="sr"),
            el("thead", el("tr", [el("th", h, scope="col") for h in head])),
            el("tbody", lines),
            class_="conservation",
        ),
        class_="scroll",
        tabindex=0,
        role="region",
        aria_label="Conservation",
    )
