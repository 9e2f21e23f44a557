"""One stage on the page: the same template for every stage, no code of any stage's own."""

from __future__ import annotations

import json
from typing import Any

from markupsafe import Markup

from reelmill.reports.chart import chart
from reelmill.reports.embed import Previews
from reelmill.reports.funnel import bar
from reelmill.reports.gallery import gallery
from reelmill.reports.markup import (
    SIGNS,
    count,
    duration,
    el,
    join,
    number,
    percent,
    plural,
    size,
    table,
    text,
    visible,
)
from reelmill.reports.schema import Amount, BoundReport, Reviewed, StageReport
from reelmill.reports.votes import wilson


def section(stage: StageReport, previews: Previews, *, several: bool) -> Markup:
    """Folded when there is nothing to judge: nothing lost, no bound."""
    tally = stage.tally
    quiet = not (tally.rejected.count or tally.failed.count or any(b.op for b in stage.bounds))
    kind = f"{stage.recipe} · " if several and stage.recipe else ""
    return el(
        "details",
        el(
            "summary",
            el("h3", el("span", kind, class_="quiet") if kind else None, stage.name),
            el("span", _short(stage), class_="short"),
        ),
        el("p", text(stage.doc, 500), class_="doc") if stage.doc else None,
        el("p", _about(stage), class_="quiet small"),
        el("div", _figures(stage), _settings(stage), class_="pair"),
        [chart(stage, h, f"s-{stage.slug}-{i}") for i, h in enumerate(stage.histograms)],
        gallery(stage, previews),
        class_="stage",
        id=stage.slug,
        open=not quiet,
    )


def _short(stage: StageReport) -> list[Markup | str]:
    tally = stage.tally
    parts: list[Markup | str] = [f"{percent(tally.kept.count, tally.into.count)} kept"]
    if tally.rejected.count:
        parts.append(f" · {count(tally.rejected.count)} rejected")
    if tally.failed.count:
        parts.append(el("span", f" · {count(tally.failed.count)} failed", class_="failed"))
    return parts


def _about(stage: StageReport) -> str:
    parts = [f"{stage.shape} over {stage.unit}s" if stage.shape else f"over {stage.unit}s"]
    if stage.paper:
        parts.append(f"paper: {visible(stage.paper, 200)}")
    return " · ".join(parts)


def _figures(stage: StageReport) -> Markup:
    tally = stage.tally
    rows: list[tuple[str, Any]] = [
        (name, (el("b", count(a.count)), _media(a) if a.count else None))
        for name, a in (
            ("in", tally.into),
            ("kept", tally.kept),
            ("rejected", tally.rejected),
            ("failed", tally.failed),
        )
    ]
    if stage.no_value.not_applicable:
        rows.append(("not applicable", el("b", count(stage.no_value.not_applicable))))
    if stage.no_value.not_measured:
        absent = el("b", count(stage.no_value.not_measured), class_="warn")
        rows.append(("not measured", absent))
    rows += [(f"{name}, reviewed", _said(said)) for name, said in stage.reviewed.items()]
    each = ""
    if stage.measured:
        each = f", {1000 * stage.cost_seconds / stage.measured:,.1f} ms each"
    cost = f"{duration(stage.cost_seconds)} for {count(stage.measured)} measured{each}"
    reused = f"; {count(stage.reused)} reused" if stage.reused else ""
    rows.append(("cost", el("small", cost + reused)))
    return el(
        "div",
        bar(tally, lambda a: a.count, tally.into.count),
        el("dl", [(el("dt", name), el("dd", value)) for name, value in rows], class_="figures"),
    )


def _said(said: Reviewed) -> Markup:
    """The share of verdicts that reviewers agree with, estimated from cards drawn by lot."""
    judged = said.agree + said.disagree
    if not judged:
        return el("small", f"unsure of {plural(said.unsure, 'card')}")
    low, high = (f"{100 * share:.0f}" for share in wilson(said.agree, judged))
    unsure = f", {count(said.unsure)} unsure" if said.unsure else ""
    return join(
        el("b", percent(said.agree, judged)),
        el("small", f" right ({low} to {high} %), of {plural(judged, 'card')}{unsure}"),
    )


def _media(amount: Amount) -> Markup:
    return el("small", f" {duration(amount.seconds)} · {size(amount.bytes)}")


def _settings(stage: StageReport) -> Markup | None:
    """Bounds with how many break them, then the fields of the measurement."""
    rows = [[*_bound(stage, b)] for b in stage.bounds]
    rows += [
        [text(name, mono=True), text(_plain(value), 80, mono=True), ""]
        for name, value in stage.fields.items()
    ]
    if not rows:
        return None
    return table(["Field", "Value", "Break it"], rows, class_="settings", caption="Fields")


def _bound(stage: StageReport, bound: BoundReport) -> list[Markup | str]:
    value = "off" if bound.value is None else number(bound.value)
    if bound.op:
        rule = f"{visible(bound.fact, 60)} {SIGNS[bound.op]} {value}"
        if bound.value is None:
            rule = f"off ({visible(bound.fact, 60)} {SIGNS[bound.op]} …)"
    else:
        rule = value
    broken = "" if bound.broken is None else plural(bound.broken, stage.unit)
    return [text(bound.field, mono=True), el("span", rule, class_="rule"), broken]


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)
