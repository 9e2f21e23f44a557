"""Two runs side by side: one self-contained page, rendered from their run.json alone.

Which units changed sides is not in a run.json; whoever has the ledger gives it as `moves`.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from reelmill.reports.document import document, report_style
from reelmill.reports.drift import alarms, shift
from reelmill.reports.histogram import Histogram
from reelmill.reports.markup import (
    count,
    duration,
    el,
    join,
    number,
    percent,
    plural,
    table,
    text,
    visible,
)
from reelmill.reports.schema import RunReport, StageReport

SHOWN = 50
_WIDTH, _HEIGHT = 160.0, 34.0


@dataclass(frozen=True)
class Moved:
    """Units of one level that went from one fate to another; `side`: they are now kept, or not."""

    level: str
    before: str
    after: str
    units: Sequence[str]
    side: bool


def render_diff(before: RunReport, after: RunReport, moves: Sequence[Moved] | None = None) -> str:
    """The page. moves None: it is not known which units changed sides, and the page says so."""
    parts = [
        ("alarms", "Drift", _alarms(before, after)),
        ("stages", "Stages", _stages(before, after)),
        ("reasons", "Reasons", _reasons(before, after)),
        ("units", "Units that changed sides", _moves(moves)),
        ("scores", "Scores", _scores(before, after)),
        ("recipe", "Recipe", _recipes(before, after)),
        ("made-with", "Made with", _made_with(before, after)),
    ]
    contents = el(
        "nav",
        el("p", "Reelmill", class_="brand"),
        el("ul", [el("li", el("a", title, href=f"#{key}")) for key, title, _ in parts]),
        aria_label="Contents",
    )
    main = join(
        _header(before, after),
        [el("section", el("h2", title), body, id=key) for key, title, body in parts],
    )
    body = join(
        el("a", "Skip to the difference", href="#main", class_="skip"),
        el("div", contents, el("main", main, id="main"), class_="frame"),
    )
    title = f"Reelmill: {visible(before.run, 40)} and {visible(after.run, 40)}"
    return document(title, body, style=report_style())


def write_diff(page: str, path: Path) -> Path:
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(page, encoding="utf-8")
    temporary.replace(path)
    return path


def _change(a: float, b: float) -> str:
    sign = "+" if b > a else "−" if b < a else "±"
    return f"{sign}{count(round(abs(b - a)))}"


def _header(before: RunReport, after: RunReport) -> Markup:
    a, b = before.totals.clips, after.totals.clips
    pairs = [("Clips in", "into"), ("Clips kept", "kept"), ("Rejected", "rejected"),
             ("Failed", "failed")]  # fmt: skip
    tiles = [(n, count(getattr(a, p).count), count(getattr(b, p).count)) for n, p in pairs]
    tiles.insert(2, ("Media kept", duration(a.kept.seconds), duration(b.kept.seconds)))
    return el(
        "header",
        el(
            "p",
            "Difference from ",
            text(before.run, 80, mono=True),
            " to ",
            text(after.run, 80, mono=True),
            class_="over",
        ),
        el("h1", f"{_change(a.kept.count, b.kept.count)} clips kept"),
        el(
            "dl",
            [
                el("div", el("dt", n), el("dd", el("b", new), el("small", f"was {old}")))
                for n, old, new in tiles
            ],
            class_="tiles",
        ),
    )


def _alarms(before: RunReport, after: RunReport) -> Markup:
    found = alarms(before, after)
    if not found:
        return el("p", "Nothing drifted beyond what chance explains.", class_="quiet")
    rows = [[text(a.stage, 60), text(a.what, 300)] for a in found]
    return table(["Stage", "What"], rows, caption="Figures that drifted")


def _pairs(
    before: RunReport, after: RunReport
) -> Iterator[tuple[str, StageReport | None, StageReport | None]]:
    """Stages by name, in the order of `after`, then those that are gone."""
    old = {stage.slug: stage for stage in before.stages}
    new = {stage.slug: stage for stage in after.stages}
    for slug in [*new, *(slug for slug in old if slug not in new)]:
        yield slug, old.get(slug), new.get(slug)


def _stages(before: RunReport, after: RunReport) -> Markup:
    rows = []
    for slug, old, new in _pairs(before, after):
        cells: list[Markup | str] = [el("th", slug, scope="row")]
        for part in ("into", "kept", "rejected", "failed"):
            a = getattr(old.tally, part).count if old else None
            b = getattr(new.tally, part).count if new else None
            told = "–" if b is None else count(b)
            moved = f" ({_change(a, b)})" if a is not None and b is not None and a != b else ""
            cells.append(el("td", told, el("b", moved) if moved else None, class_="n"))
        shares = [
            percent(s.tally.kept.count, s.tally.into.count) if s else "no such stage"
            for s in (old, new)
        ]
        cells += [el("td", share, class_="n") for share in shares]
        rows.append(cells)
    head = ["Stage", "In", "Kept", "Rejected", "Failed", "Kept of in, before", "now"]
    return table(head, rows, caption="Stages; in brackets what changed")


def _reasons(before: RunReport, after: RunReport) -> Markup:
    def counted(report: RunReport) -> dict[tuple[str, str], int]:
        return {(s.slug, r.reason): r.count for s in report.stages for r in s.reasons}

    old, new = counted(before), counted(after)
    keys = [key for key in dict.fromkeys([*new, *old]) if old.get(key, 0) != new.get(key, 0)]
    if not keys:
        return el("p", "Every reason rejected as many as before.", class_="quiet")
    keys.sort(key=lambda key: -abs(new.get(key, 0) - old.get(key, 0)))
    rows = [
        [
            text(slug, 60),
            text(reason.replace("_", " "), 80),
            el("td", count(old.get((slug, reason), 0)), class_="n"),
            el("td", count(new.get((slug, reason), 0)), class_="n"),
            el("td", _change(old.get((slug, reason), 0), new.get((slug, reason), 0)), class_="n"),
        ]
        for slug, reason in keys[:200]
    ]
    return table(["Stage", "Reason", "Before", "Now", "Change"], rows, caption="Reasons that moved")


def _moves(moves: Sequence[Moved] | None) -> Markup:
    if moves is None:
        return el("p", "Not known: the verdicts of these runs were not at hand.", class_="quiet")
    chosen = [move for move in moves if move.side]
    if not chosen:
        return el("p", "No unit changed sides.", class_="quiet")
    return join(
        [
            el(
                "details",
                el("summary", f"{plural(len(move.units), move.level)}: ",
                   text(move.before, 120), " → ", text(move.after, 120)),
                el("ul", [el("li", text(unit, 80, mono=True)) for unit in move.units[:SHOWN]]),
                el("p", f"and {count(len(move.units) - SHOWN)} more", class_="quiet")
                if len(move.units) > SHOWN else None,
                open=len(move.units) <= 8,
            )
            for move in chosen[:100]
        ]
    )  # fmt: skip


def _scores(before: RunReport, after: RunReport) -> Markup:
    rows = []
    for slug, old, new in _pairs(before, after):
        facts = {h.fact: h for h in old.histograms} if old else {}
        for histogram in new.histograms if new else []:
            earlier = facts.get(histogram.fact)
            if earlier is None or not (earlier.measured or histogram.measured):
                continue
            found = shift(earlier, histogram)
            tone = "warn" if found is not None and found.alarming else None
            rows.append(
                [
                    text(slug, 60),
                    text(histogram.fact, 60, mono=True),
                    el("td", _outlines(earlier, histogram)),
                    *(el("td", _median(h), class_="n") for h in (earlier, histogram)),
                    el("td", f"{found.psi:.3f}" if found else "–", class_="n"),
                    el("td", f"{found.distance:.3f}" if found else "–", class_="n"),
                    el("span", "drifted", class_=tone) if tone else "",
                ]
            )
    if not rows:
        return el("p", "No score was measured in both runs.", class_="quiet")
    head = ["Stage", "Score", "Before (line), now (filled)", "Median before", "now",
            "psi", "JS distance", ""]  # fmt: skip
    return table(head, rows, caption="Scores of all units that came in; – where too few")


def _median(histogram: Histogram) -> str:
    value = histogram.quantile(0.5)
    return "–" if value is None else number(value)


def _outlines(before: Histogram, after: Histogram) -> Markup | str:
    """Both as shares, on one scale."""
    if before.edges != after.edges:
        return "other bins"
    old, new = before.counts, after.counts
    shares = [[c / (sum(counts) or 1) for c in counts] for counts in (old, new)]
    top = max(*shares[0], *shares[1], 1e-9)
    step = _WIDTH / len(old)

    def height(share: float) -> float:
        return _HEIGHT - (_HEIGHT - 2) * share / top

    filled = [
        el("rect", x=i * step, y=height(s), width=step, height=_HEIGHT - height(s), class_="kept")
        for i, s in enumerate(shares[1]) if s
    ]  # fmt: skip
    line = " ".join(
        f"{i * step:.1f},{height(s):.1f} {(i + 1) * step:.1f},{height(s):.1f}"
        for i, s in enumerate(shares[0])
    )
    return el(
        "svg",
        filled,
        el("polyline", points=line, class_="before"),
        viewBox=f"0 0 {_WIDTH:.0f} {_HEIGHT:.0f}",
        class_="outlines",
        aria_hidden="true",
    )


def _recipes(before: RunReport, after: RunReport) -> Markup:
    parts: list[Markup] = []
    for kind in dict.fromkeys([*before.recipes, *after.recipes]):
        old, new = (r.recipes.get(kind) for r in (before, after))
        lines = difflib.unified_diff(
            old.yaml.splitlines() if old else [],
            new.yaml.splitlines() if new else [],
            "before", "now", lineterm="", n=2,
        )  # fmt: skip
        told = "\n".join(list(lines)[:2000])
        parts.append(el("h3", kind))
        parts.append(
            el("pre", el("code", visible(told, 60_000)))
            if told
            else el("p", "The recipe is the same.", class_="quiet")
        )
    return join(parts) if parts else el("p", "No recipe is recorded.", class_="quiet")


def _made_with(before: RunReport, after: RunReport) -> Markup:
    def known(report: RunReport) -> Mapping[str, str]:
        made = report.provenance
        weights = {f"weights {w.name}": w.sha256 or "absent" for w in made.weights}
        found = {"Reelmill": made.version, "commit": made.commit, "Python": made.python}
        return found | {"platform": made.platform} | dict(made.libraries) | weights

    old, new = known(before), known(after)
    rows = [
        [text(name, 80), text(old.get(name, "–"), 80, mono=True),
         text(new.get(name, "–"), 80, mono=True)]
        for name in dict.fromkeys([*old, *new]) if old.get(name) != new.get(name)
    ]  # fmt: skip
    if not rows:
        return el("p", "The same code, libraries and weights.", class_="quiet")
    return table(["", "Before", "Now"], rows, caption="What differs")
