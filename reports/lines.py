"""Lines over steps as inline SVG, each with a table of the same numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from markupsafe import Markup

from reelmill.reports.chart import ticks
from reelmill.reports.markup import count, el, number, table, text

POINTS = 160
WIDTH, HEIGHT = 720.0, 200.0
LEFT, RIGHT, TOP, BOTTOM = 56.0, 14.0, 10.0, 26.0
COLOURS = 6
Series = Sequence[tuple[float, float]]


def thinned(points: Series, most: int = POINTS) -> list[tuple[float, float]]:
    """At most so many points: means over equal runs of neighbours; values that are no number go."""
    good = [(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y)]
    if len(good) <= most:
        return good
    found = []
    for i in range(most):
        part = good[i * len(good) // most : (i + 1) * len(good) // most]
        found.append((sum(x for x, _ in part) / len(part), sum(y for _, y in part) / len(part)))
    return found


def lines(title: str, series: Mapping[str, Series], *, unit: str = "", log: bool = False) -> Markup:
    """A figure of several lines over steps. log: the upright axis, where all values are above 0."""
    drawn = {name: thinned(points) for name, points in series.items()}
    drawn = {name: points for name, points in drawn.items() if points}
    if not drawn:
        return el("p", f"{title}: nothing was recorded.", class_="quiet")
    values = [y for points in drawn.values() for _, y in points]
    log = log and min(values) > 0
    scale = math.log10 if log else float
    low, high = scale(min(values)), scale(max(values))
    if not log:
        low = min(low, 0.0)
    if high - low < 1e-12:
        low, high = low - 0.5, high + 0.5
    first = min(points[0][0] for points in drawn.values())
    last = max(points[-1][0] for points in drawn.values())
    span = max(last - first, 1.0)

    def x_of(x: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (x - first) / span

    def y_of(y: float) -> float:
        return TOP + (HEIGHT - TOP - BOTTOM) * (1 - (scale(y) - low) / (high - low))

    axis: list[Markup] = []
    for level in ticks(low, high, about=4):
        value = 10.0**level if log else level
        y = y_of(value)
        axis.append(el("line", x1=LEFT, x2=WIDTH - RIGHT, y1=y, y2=y, class_="grid"))
        axis.append(el("text", number(float(value)), x=LEFT - 6, y=y + 4, text_anchor="end"))
    for step in ticks(first, first + span):
        if step != round(step):
            continue
        axis.append(el("text", count(round(step)), x=x_of(step), y=HEIGHT - 8,
                       text_anchor="middle"))  # fmt: skip
    paths = [
        el("polyline", points=" ".join(f"{x_of(x):.1f},{y_of(y):.1f}" for x, y in points),
           class_=f"line c{i % COLOURS}")
        if len(points) > 1
        else el("circle", cx=x_of(points[0][0]), cy=y_of(points[0][1]), r=3,
                class_=f"dot c{i % COLOURS}")
        for i, points in enumerate(drawn.values())
    ]  # fmt: skip
    legend = [
        el("span", text(name, 60), f" {number(float(points[-1][1]))}", class_=f"key c{i % COLOURS}")
        for i, (name, points) in enumerate(drawn.items())
    ]
    rows = [
        [
            text(name, 60),
            el("td", count(round(x)), class_="n"),
            el("td", number(float(y)), class_="n"),
        ]
        for name, points in drawn.items()
        for x, y in thinned(points, 12)
    ]
    what = f"{title} over steps. The table below holds points of the same lines."
    return el(
        "figure",
        el("figcaption", el("b", title), el("span", unit) if unit else None),
        el("svg", axis, paths, viewBox=f"0 0 {WIDTH:.0f} {HEIGHT:.0f}", role="img",
           aria_label=what, class_="histogram lines"),
        el("div", legend, class_="legend"),
        el("details", el("summary", "Numbers"),
           table(["Line", "Step", "Value"], rows, class_="numbers", caption=title), class_="minor"),
        class_="chart",
    )  # fmt: skip
