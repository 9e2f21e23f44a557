"""A histogram as inline SVG: kept and rejected stacked, the bound as a line, a slider below."""

from __future__ import annotations

import json
import math

from markupsafe import Markup

from reelmill.reports.histogram import Histogram
from reelmill.reports.markup import SIGNS, count, el, number, percent, plural, table, text, visible
from reelmill.reports.schema import BoundReport, StageReport
from reelmill.reports.slider import Stop, exact, stops

WIDTH, HEIGHT = 720.0, 172.0
LEFT, RIGHT, TOP, BOTTOM = 46.0, 14.0, 22.0, 24.0
GUTTER = 22.0  # of the bars under and over the range
_PLOT = WIDTH - LEFT - RIGHT - 2 * GUTTER
_BASE = HEIGHT - BOTTOM


def x_of(place: float, bins: int) -> float:
    """x of a position on the axis: 0 .. 1 is the under bar, bins + 1 .. bins + 2 the over bar."""
    start = LEFT + GUTTER
    if place < 1:
        return LEFT + GUTTER * place
    if place > bins + 1:
        return start + _PLOT + GUTTER * min(place - bins - 1, 1.0)
    return start + _PLOT * (place - 1) / bins


def ticks(low: float, high: float, *, log: bool = False, about: int = 6) -> list[float]:
    """Round values inside [low, high]."""
    if log:
        first, last = math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9)
        every = max(1, (last - first) // about)
        decades = [10.0**e for e in range(first, last + 1, every)]
        return decades if len(decades) > 1 else [low, high]
    raw = (high - low) / about
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= raw * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def _axis_place(histogram: Histogram, value: float) -> float:
    low, high = histogram.low, histogram.high
    if histogram.log:
        share = math.log(value / low) / math.log(high / low)
    else:
        share = (value - low) / (high - low)
    return 1 + share * histogram.bins


def _range(histogram: Histogram, k: int) -> str:
    """What a bin holds, in words."""
    edges, left = histogram.edges, histogram.closed == "left"
    if k == 0:
        return f"{'below' if left else 'at most'} {number(edges[0])}"
    if k == histogram.bins + 1:
        return f"{'at least' if left else 'above'} {number(edges[-1])}"
    a, b = number(edges[k - 1]), number(edges[k])
    return f"{a} to {b}"


def _bars(histogram: Histogram, top: int) -> list[Markup]:
    bars = []
    full = _BASE - TOP
    for k, (kept, rejected) in enumerate(zip(histogram.kept, histogram.rejected, strict=True)):
        if not kept + rejected:
            continue
        x, end = x_of(k, histogram.bins), x_of(k + 1, histogram.bins)
        gap = 1.0 if histogram.bins <= 80 else 0.2
        outer = 4.0 if k in (0, histogram.bins + 1) else 0.0
        x += outer if k == 0 else gap / 2
        width = end - x - (outer if k > histogram.bins else gap / 2)
        x += outer if k > histogram.bins else 0.0
        width -= outer if k > histogram.bins or k == 0 else 0.0
        low = max(full * kept / top, 1.5) if kept else 0.0
        high = max(full * rejected / top, 1.5) if rejected else 0.0
        title = f"{_range(histogram, k)}: {count(kept)} kept, {count(rejected)} rejected"
        parts: list[Markup] = [el("title", title)]
        if kept:
            parts.append(
                el("rect", x=x, y=_BASE - low, width=width, height=low, class_="kept", rx=1.0)
            )
        if rejected:
            parts.append(
                el("rect", x=x, y=_BASE - low - high, width=width, height=high, class_="rejected",
                   rx=1.0)
            )  # fmt: skip
        bars.append(el("g", parts))
    return bars


def _line(place: float, bins: int, label: str, class_: str, row: int = 0) -> Markup:
    x = x_of(place, bins)
    anchor = "end" if x > WIDTH * 0.7 else "start"
    dx = -5.0 if anchor == "end" else 5.0
    return el(
        "g",
        el("line", x1=0.0, x2=0.0, y1=6.0, y2=_BASE),
        el("text", label, x=dx, y=14.0 + 12 * row, text_anchor=anchor),
        transform=f"translate({x:.2f} 0)",
        class_=class_,
    )


def plot(histogram: Histogram, lines: list[tuple[float, str]]) -> Markup:
    """The SVG. lines: place on the axis and label of each bound."""
    top = max(1, *histogram.counts)
    bins = histogram.bins
    axis: list[Markup] = []
    for level in ticks(0, top, about=3):
        if level and level == round(level):
            y = _BASE - (_BASE - TOP) * level / top
            axis.append(el("line", x1=LEFT, x2=WIDTH - RIGHT, y1=y, y2=y, class_="grid"))
            axis.append(el("text", count(round(level)), x=LEFT - 6, y=y + 4, text_anchor="end"))
    for value in ticks(histogram.low, histogram.high, log=histogram.log):
        x = x_of(_axis_place(histogram, value), bins)
        axis.append(el("line", x1=x, x2=x, y1=_BASE, y2=_BASE + 4, class_="tick"))
        axis.append(el("text", number(value), x=x, y=_BASE + 17, text_anchor="middle"))
    axis.append(el("line", x1=LEFT, x2=WIDTH - RIGHT, y1=_BASE, y2=_BASE, class_="base"))
    what = (
        f"Histogram of {visible(histogram.fact)}: {plural(histogram.measured, 'value')}, "
        f"{count(sum(histogram.rejected))} rejected. The table below holds the same numbers."
    )
    return el(
        "svg",
        axis,
        _bars(histogram, top),
        [_line(place, bins, label, "bound", i) for i, (place, label) in enumerate(lines)],
        el("g", el("line", x1=0, x2=0, y1=6, y2=_BASE), class_="moving"),
        viewBox=f"0 0 {WIDTH:.0f} {HEIGHT:.0f}",
        role="img",
        aria_label=what,
        class_="histogram",
    )


def _numbers(histogram: Histogram) -> Markup:
    """The histogram as a table, empty bins left out."""
    rows = [
        [_range(histogram, k), count(kept), count(rejected)]
        for k, (kept, rejected) in enumerate(zip(histogram.kept, histogram.rejected, strict=True))
        if kept + rejected
    ]
    side = "[a, b)" if histogram.closed == "left" else "(a, b]"
    caption = f"{visible(histogram.fact)} in bins {side}"
    return el(
        "details",
        el("summary", "Numbers"),
        table(["Value", "Kept", "Rejected"], rows, class_="numbers", caption=caption),
        class_="minor",
    )


def _setting(stage: StageReport, bound: BoundReport, stop: Stop) -> str:
    value = "null" if stop.value is None else repr(stop.value).removesuffix(".0")
    return f"{stage.name}.{bound.field}={value}"


def _rule(bound: BoundReport) -> str:
    return f"{bound.field} {SIGNS[bound.op]} {number(bound.value)}"


def _slider(stage: StageReport, histogram: Histogram, bound: BoundReport, key: str) -> Markup:
    others = sum(b.fact == bound.fact and bool(b.op) for b in stage.bounds) > 1
    found = stops(histogram, bound, others=others)
    if not found or not histogram.measured:
        return Markup("")
    now = next((i for i, stop in enumerate(found) if stop.current), None)
    data = {
        "x": [round(x_of(stop.place, histogram.bins), 2) for stop in found],
        "value": [
            "off" if s.value is None else f"{SIGNS[bound.op]} {number(s.value)}" for s in found
        ],
        "set": [_setting(stage, bound, stop) for stop in found],
        "pass": [stop.passing for stop in found],
        "ends": [stop.ends for stop in found],
        "now": now,
        "of": histogram.measured,
        "unit": stage.unit,
        "about": not exact(histogram, bound),
    }
    start = now if now is not None else 0
    label = f"Move {bound.field} ({visible(bound.fact)} {bound.op})"
    return el(
        "div",
        el("label", label, for_=key, class_="sr"),
        el("input", type="range", id=key, min=0, max=len(found) - 1, step=1, value=start,
           autocomplete="off"),
        el("p",
           el("output", for_=key),
           el("code", class_="set"),
           el("button", "Copy", type="button", class_="copy"),
           el("button", "Reset", type="button", class_="reset"),
           class_="readout"),
        class_="slider",
        data_stops=json.dumps(data, separators=(",", ":")),
    )  # fmt: skip


def _no_values(histogram: Histogram, unit: str) -> Markup | None:
    parts = [
        f"{plural(n, unit)} {why}"
        for n, why in (
            (histogram.not_applicable, "not applicable"),
            (histogram.not_measured, "not measured"),
            (histogram.nan, "no number"),
        )
        if n
    ]
    if not parts:
        return None
    return el("span", f"Without a value, so not judged: {', '.join(parts)}.", class_="without")


def chart(stage: StageReport, histogram: Histogram, key: str) -> Markup:
    """A figure: title, plot, one slider per bound on the fact, quantiles, table of numbers."""
    bounds = [b for b in stage.bounds if b.fact == histogram.fact and b.op]
    lines = []
    for bound in bounds:
        found = [s for s in stops(histogram, bound) if s.current and s.value is not None]
        if found:
            lines.append((found[0].place, _rule(bound)))
        elif bound.value is not None:
            place = min(max(_clamped(histogram, bound.value), 0.5), histogram.bins + 1.5)
            lines.append((place, _rule(bound)))
    quantiles = [(q, histogram.quantile(q / 100)) for q in (5, 50, 95)]
    told = [f"p{q} {number(float(f'{value:.3g}'))}" for q, value in quantiles if value is not None]
    unit = f" [{histogram.unit}]" if histogram.unit else ""
    rejected = sum(histogram.rejected)
    caption = el(
        "figcaption",
        el("b", text(histogram.fact), unit),
        el("span", visible(histogram.what)) if histogram.what else None,
    )
    if not histogram.measured:
        none = _no_values(histogram, stage.unit) or el("span", "Nothing came in.")
        return el("figure", caption, el("p", none, class_="legend"), class_="chart")
    return el(
        "figure",
        caption,
        plot(histogram, lines),
        [_slider(stage, histogram, b, f"{key}-{b.field}") for b in bounds],
        el(
            "p",
            el("span", "kept", class_="key kept"),
            el("span", "rejected", class_="key rejected"),
            el(
                "span",
                f"{plural(histogram.measured, 'value')}, "
                f"{percent(rejected, histogram.measured)} rejected. " + " · ".join(told),
            ),
            _no_values(histogram, stage.unit),
            class_="legend",
        ),
        _numbers(histogram),
        class_="chart",
    )


def _clamped(histogram: Histogram, value: float) -> float:
    if histogram.log and value <= 0:
        return 0.5
    return _axis_place(histogram, value)
