"""What the result consists of: scores and text facts of the units that end in the shards."""

from __future__ import annotations

from collections.abc import Iterator

from markupsafe import Markup

from reelmill.reports.histogram import Histogram
from reelmill.reports.markup import Child, count, el, number, percent, plural, table, text, visible
from reelmill.reports.quota_map import quota_map
from reelmill.reports.schema import Category, RunReport, StageReport

# Scores that say what a clip is; how good it is stands with its stage.
MEASURES = frozenset(
    {"seconds", "width", "height", "aspect", "fps", "audio_rate", "audio_channels", "motion",
     "luma", "speech_ratio", "words"}
)  # fmt: skip
BANDS = 8
_WIDTH, _HEIGHT = 220.0, 40.0


def coverage(report: RunReport) -> Markup:
    """Per recipe: every category, and the histograms of what clips are, of what was shipped."""
    parts = [part for kind in report.kinds for part in _of_kind(report, kind)]
    if not parts:
        return el("p", "No stage measured what clips are.", class_="quiet")
    return el("div", parts, class_="coverage")


def _of_kind(report: RunReport, kind: str) -> Iterator[Markup]:
    told = f"{kind}: " if len(report.kinds) > 1 else ""
    seen: set[str] = set()
    for stage in report.of_recipe(kind):
        if stage.quotas is not None:
            yield quota_map(stage, stage.quotas, told)
        for category in stage.categories:
            if category.fact not in seen and category.counts:
                seen.add(category.fact)
                yield _category(stage, category, told)
        for histogram in stage.histograms:
            if histogram.fact in MEASURES and histogram.fact not in seen and histogram.measured:
                seen.add(histogram.fact)
                yield _measure(stage, histogram, told)


def _shipped(stage: StageReport) -> str:
    """Whether a clip of a file that passed ends in the shards is for the clips' stages to say."""
    return "In the shards" if stage.unit == "clip" else "Files passed"


def _heading(told: str, fact: str, what: str, stage: StageReport) -> Markup:
    return el(
        "figcaption",
        el("b", f"{told}{visible(fact, 60)}"),
        text(what, 120) if what else None,
        el("a", stage.name, href=f"#{stage.slug}"),
    )


def _category(stage: StageReport, category: Category, told: str) -> Markup:
    total = sum(category.shipped.values()) + category.other_shipped
    rows: list[list[Child]] = [
        [
            text(value or "none", 40),
            el("td", count(category.shipped.get(value, 0)), class_="n"),
            el("td", percent(category.shipped.get(value, 0), total), class_="n"),
            el("td", count(into), class_="n"),
        ]
        for value, into in category.counts.items()
    ]
    if category.other:
        rows.append([
            "all others",
            el("td", count(category.other_shipped), class_="n"),
            el("td", percent(category.other_shipped, total), class_="n"),
            el("td", count(category.other), class_="n"),
        ])  # fmt: skip
    head = [visible(category.fact, 60), _shipped(stage), "Share", "Came in"]
    body = table(
        head, rows, class_="numbers", caption=f"{visible(category.fact, 60)} of the result"
    )
    return el("figure", _heading(told, category.fact, category.what, stage), body)


def _measure(stage: StageReport, histogram: Histogram, told: str) -> Markup:
    shipped = histogram.shipped or [0] * (histogram.bins + 2)
    total = sum(shipped)
    edges = histogram.edges
    step = max(1, -(-histogram.bins // BANDS))
    bands = [("below " + number(edges[0]), shipped[0])]
    bands += [
        (
            f"{number(edges[i])} to {number(edges[min(i + step, histogram.bins)])}",
            sum(shipped[i + 1 : min(i + step, histogram.bins) + 1]),
        )
        for i in range(0, histogram.bins, step)
    ]
    bands.append(("above " + number(edges[-1]), shipped[-1]))
    rows = [
        [name, el("td", count(n), class_="n"), el("td", percent(n, total), class_="n")]
        for name, n in bands
        if n
    ]
    caption = f"{visible(histogram.fact, 60)} of the result"
    unit = f", {histogram.unit}" if histogram.unit else ""
    return el(
        "figure",
        _heading(told, histogram.fact + unit, histogram.what, stage),
        _bars(shipped),
        el(
            "details",
            el("summary", f"{plural(total, stage.unit)}: {_shipped(stage).lower()}"),
            table(["Value", "Units", "Share"], rows, class_="numbers", caption=caption),
            class_="minor",
        ),
    )


def _bars(counts: list[int]) -> Markup:
    top, width = max(1, *counts), _WIDTH / len(counts)
    bars = [
        el("rect", x=i * width, y=_HEIGHT * (1 - n / top), width=max(width - 0.6, 0.4),
           height=_HEIGHT * n / top, class_="kept")
        for i, n in enumerate(counts) if n
    ]  # fmt: skip
    return el(
        "svg", bars, viewBox=f"0 0 {_WIDTH:.0f} {_HEIGHT:.0f}", class_="small-bars",
        aria_hidden="true",
    )  # fmt: skip
