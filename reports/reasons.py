"""The reason table: what each stage rejected, and what no other stage would have."""

from __future__ import annotations

from markupsafe import Markup

from reelmill.reports.markup import count, duration, el, percent, size, table, text
from reelmill.reports.schema import ReasonCount, RunReport, StageReport


def stage_title(stage: StageReport, *, several: bool) -> str:
    return f"{stage.recipe} · {stage.name}" if several and stage.recipe else stage.name


def _number(shown: str, value: float) -> Markup:
    return el("td", shown, class_="n", data_value=repr(value))


def reasons(report: RunReport) -> Markup:
    several = len(report.kinds) > 1
    rows: list[tuple[StageReport, ReasonCount]] = [
        (stage, reason) for stage in report.stages for reason in stage.reasons if reason.count
    ]
    if not rows:
        return el("p", "Nothing was rejected.", class_="quiet")
    rows.sort(key=lambda row: (-row[1].count, row[0].slug, row[1].reason))
    most = rows[0][1].count
    cells = [
        (
            el("td", el("a", stage_title(stage, several=several), href=f"#{stage.slug}")),
            el("td", text(reason.reason.replace("_", " "), 80)),
            el("td", _bar(reason, most), class_="bar"),
            _number(count(reason.count), reason.count),
            el("td", stage.unit, class_="unit"),
            _number(percent(reason.count, stage.tally.into.count),
                    reason.count / max(1, stage.tally.into.count)),
            _number(duration(reason.seconds), reason.seconds),
            _number(size(reason.bytes), reason.bytes),
            _number(count(reason.only), reason.only),
        )
        for stage, reason in rows
    ]  # fmt: skip
    head = ["Stage", "Reason", "", "Rejected", "Unit", "Of those that came in", "Media", "Bytes",
            "Only reason"]  # fmt: skip
    return el(
        "div",
        table(head, cells, class_="sortable", caption="Rejections by reason"),
        el(
            "p",
            "A unit counts under the first bound that it breaks. “Only reason” counts those that "
            "would have survived otherwise, as far as later stages measured them.",
            class_="quiet",
        ),
    )


def _bar(reason: ReasonCount, most: int) -> Markup:
    """Rejected, and the part with this as its only reason in a darker shade."""
    width, only = 120 * reason.count / most, 120 * reason.only / most
    return el(
        "svg",
        el("rect", x=0, y=2, width=max(width, 1.5), height=8, class_="rejected", rx=1),
        el("rect", x=0, y=2, width=only, height=8, class_="only", rx=1) if reason.only else None,
        viewBox="0 0 120 12",
        width=120,
        height=12,
        aria_hidden="true",
    )
