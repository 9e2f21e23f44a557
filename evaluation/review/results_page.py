"""The page of results: one file, no network, rendered from the results alone."""

from __future__ import annotations

import time
from collections.abc import Iterable

from markupsafe import Markup

from reelmill.evaluation.arena import ELO
from reelmill.evaluation.bootstrap import LEVEL, Interval
from reelmill.evaluation.review.document import document
from reelmill.evaluation.review.page import label
from reelmill.evaluation.review.results import Contest, PairResult, Rater, Results, ScaleResult
from reelmill.evaluation.taxonomy import LIKERT
from reelmill.reports.markup import count, el, join, percent, plural, table, text

WIDTH = 420.0
MAX_NOTES = 200
ALPHA_GOOD, ALPHA_USABLE = 0.8, 0.667  # Krippendorff 2004, Content Analysis, p. 241


def render_results(found: Results) -> str:
    """The page. Same results, same bytes."""
    body = join(
        el("a", "Skip to the results", href="#main", class_="skip"),
        el(
            "main",
            _header(found),
            _warnings(found),
            _part("ratings", "Who is better", _ratings(found), RATING_LEAD)
            if found.pairs
            else None,
            _part("bars", "Good, Same, Bad", _contests(found), BARS_LEAD) if found.pairs else None,
            _part("scales", "Scores from 1 to 5", _scales(found), SCALE_LEAD)
            if found.scales
            else None,
            _part("marks", "What was wrong", _marks(found)) if found.marks else None,
            _part("raters", "Raters", _raters(found), RATER_LEAD),
            _part("notes", "Notes", _notes(found)) if found.notes else None,
            _part("provenance", "Provenance", _provenance(found)),
            id="main",
        ),
    )
    return document(f"Results: {found.title}", body, style="results.css")


RATING_LEAD = (
    "Bradley-Terry ratings with ties (Davidson) and a term for the side. 400 points are odds of "
    f"ten to one; 1000 is the mean. Intervals at {LEVEL:.0%} by drawing prompts."
)
BARS_LEAD = (
    "How often the first system was called better, the same, worse. The score is (good - bad) / "
    f"all, over prompts, with its {LEVEL:.0%} interval."
)
SCALE_LEAD = (
    f"1: {LIKERT[0]}, 5: {LIKERT[-1]}. Means over prompts, with their {LEVEL:.0%} interval."
)
RATER_LEAD = (
    "Gold: a clip against its damaged self, share got right. Repeats: the same pair with sides "
    "changed, share answered alike. Skill: 1 where votes follow the systems as the others' do, "
    "0 where they follow nothing. Agreement: with the majority of the others. Drift: that, in the "
    "second half less the first."
)


def _part(key: str, title: str, body: Markup, lead: str = "") -> Markup:
    return el("section", el("h2", title), el("p", lead, class_="lead") if lead else None, body,
              id=key)  # fmt: skip


def _header(found: Results) -> Markup:
    overall = next((p for p in found.pairs if p.dimension == "overall"), None)
    when = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(found.closed_at))
    tiles = [
        ("Systems", count(len(found.systems)), ""),
        ("Prompts", count(found.prompts), ""),
        ("Raters", count(sum(r.counted for r in found.raters)),
         f"{plural(len(found.without), 'rater')} left out" if found.without else ""),
        ("Answers", count(found.answered), f"of {count(found.asked)} asked"),
        ("Agreement", _alpha(overall.alpha if overall else None), "Krippendorff's alpha, overall"),
    ]  # fmt: skip
    return el(
        "header",
        el("p", "People's review, closed ", when, class_="over"),
        el("h1", _verdict(found)),
        el("p", text(found.title, 200), class_="quiet"),
        el(
            "dl",
            [
                el("div", el("dt", name), el("dd", el("b", value), el("small", told)))
                for name, value, told in tiles
            ],
            class_="tiles",
        ),
    )


def _verdict(found: Results) -> Markup | str:
    """One line: who leads, or that nobody does."""
    first = next((p for p in found.pairs if p.dimension == "overall"), None)
    overall = first.arena if first else None
    if first is None or overall is None:
        return "Scores of " + plural(len(found.systems), "system")
    if not first.enough_prompts:
        return "Too few prompts for a verdict"
    best, *others = overall.ratings
    tied = [r.system for r in others if overall.tied(best.system, r.system)]
    if not tied:
        return join(text(best.system, 60), " is better than ", _rest(others))
    return join("No winner: ", _names([best.system, *tied]), " are tied")


def _rest(others: list) -> Markup | str:
    return text(others[0].system, 60) if len(others) == 1 else "all others"


def _names(names: list[str]) -> Markup:
    parts: list[Markup | str] = []
    shown = names[:4]
    for i, name in enumerate(shown):
        last = i == len(shown) - 1 and len(names) <= 4
        parts += ["" if not i else " and " if last else ", ", text(name, 60)]
    return join(parts, " and others" if len(names) > 4 else "")


def _alpha(alpha: float | None) -> str:
    return "–" if alpha is None else f"{alpha:.2f}"


def _warnings(found: Results) -> Markup | None:
    told: list[Markup | str] = []
    for rater in found.raters:
        if rater.warnings:
            what = "; ".join(rater.warnings)
            fate = "" if rater.counted else " (votes left out)"
            told.append(join(text(rater.name, 40), f": {what}{fate}."))
    if any(rater.warnings and rater.counted for rater in found.raters):
        told.append("Their votes are counted; reelmill arena report --without NAME leaves one out.")
    if quiet := [r.name for r in found.raters if not r.counted and not r.warnings]:
        told.append(join("Left out without a warning: ", _names(quiet), "."))
    if found.told_apart_by:
        told.append("Raters could tell systems apart by " + "; ".join(found.told_apart_by) + ".")
    if found.answered < found.asked:
        told.append(f"Closed early: {count(found.asked - found.answered)} answers are missing.")
    if not told:
        return None
    return el("section", el("h2", "Mind"), el("ul", [el("li", line) for line in told]),
              class_="notes")  # fmt: skip


def _dot(mean: float, low: float | None, high: float | None, ends: tuple[float, float], told: str,
         zero: float | None = None) -> Markup:  # fmt: skip
    """A point with its interval, on a line from ends[0] to ends[1]."""
    span = max(ends[1] - ends[0], 1e-9)

    def x(value: float) -> float:
        return 8 + (WIDTH - 16) * min(max((value - ends[0]) / span, 0.0), 1.0)

    marks: list[Markup] = [el("line", x1=0, x2=WIDTH, y1=12, y2=12, class_="grid")]
    if zero is not None and ends[0] <= zero <= ends[1]:
        marks.append(el("line", x1=x(zero), x2=x(zero), y1=0, y2=24, class_="base"))
    if low is not None and high is not None:
        marks.append(el("line", x1=x(low), x2=x(high), y1=12, y2=12, class_="interval"))
    marks.append(el("circle", cx=x(mean), cy=12, r=5))
    return el("svg", marks, viewBox=f"0 0 {WIDTH:.0f} 24", role="img", aria_label=told,
              class_="dot")  # fmt: skip


def _ratings(found: Results) -> Markup:
    return join(_rating_table(result) for result in found.pairs if result.arena is not None)


def _rating_table(result: PairResult) -> Markup:
    arena = result.arena
    assert arena is not None
    ends = (min(_elo(r.low) for r in arena.ratings), max(_elo(r.high) for r in arena.ratings))
    sure = result.enough_prompts
    rows = []
    for place, rating in enumerate(arena.ratings, 1):
        low, high = _elo(rating.low), _elo(rating.high)
        span = f"{low:.0f} to {high:.0f}" if sure else "too few prompts"
        told = f"{rating.elo:.0f}, {span}"
        rows.append(
            [
                count(place),
                text(rating.system, 60),
                el("td", el("b", f"{rating.elo:.0f}"), class_="n"),
                el("td", span, class_="n quiet"),
                el(
                    "td",
                    _dot(
                        rating.elo,
                        low if sure else None,
                        high if sure else None,
                        ends,
                        told,
                        1000.0,
                    ),
                    class_="bar",
                ),
            ]
        )
    caption = (
        f"{label(result.dimension)}: {plural(arena.votes, 'vote')} over "
        f"{plural(arena.prompts, 'prompt')}; alpha {_alpha(result.alpha)}{_word(result.alpha)}"
    )
    shown = table(["", "System", "Rating", "Interval", ""], rows, class_="ratings", caption=caption)
    if result.dimension == "overall":
        return shown
    return el("details", el("summary", label(result.dimension), el("span", _leader(result),
              class_="short")), shown, class_="stage")  # fmt: skip


def _elo(strength: float) -> float:
    return float(1000 + ELO * strength)


def _word(alpha: float | None) -> str:
    if alpha is None:
        return ""
    good = "good" if alpha >= ALPHA_GOOD else "usable" if alpha >= ALPHA_USABLE else "weak"
    return f" ({good})"


def _leader(result: PairResult) -> Markup | str:
    arena = result.arena
    assert arena is not None
    if not result.enough_prompts:
        return "too few prompts"
    best, *others = arena.ratings
    if any(arena.tied(best.system, other.system) for other in others):
        return "no winner"
    return join(text(best.system, 60), " leads")


def _contests(found: Results) -> Markup:
    pairs = [(c.bars.first, c.bars.second) for c in found.pairs[0].contests] if found.pairs else []
    blocks = []
    for first, second in pairs:
        rows = [
            _contest_row(result.dimension, contest)
            for result in found.pairs
            for contest in result.contests
            if (contest.bars.first, contest.bars.second) == (first, second)
        ]
        blocks.append(
            el(
                "div",
                el("h3", text(first, 60), " against ", text(second, 60)),
                table(["", "Good, same, bad", "Score", "Interval", "Votes"], rows,
                      class_="contest", caption=f"{first} against {second}"),
                class_="block",
            )
        )  # fmt: skip
    key = el("p", el("span", "good", class_="key good"), el("span", "same", class_="key same"),
             el("span", "bad", class_="key bad"), class_="legend")  # fmt: skip
    return join(key, blocks)


def _contest_row(dimension: str, contest: Contest) -> list[Markup | str]:
    b = contest.bars
    told = f"{b.good} good, {b.same} same, {b.bad} bad"
    x, marks = 0.0, []
    for name, n in (("good", b.good), ("same", b.same), ("bad", b.bad)):
        width = WIDTH * n / b.votes
        if not n:
            continue
        marks.append(el("rect", x=x, y=0, width=width, height=18, class_=name))
        if width > 26:
            marks.append(el("text", count(n), x=x + width / 2, y=13, text_anchor="middle",
                            class_=name))  # fmt: skip
        x += width
    bar = el("svg", marks, viewBox=f"0 0 {WIDTH:.0f} 18", role="img", aria_label=told,
             class_="gsb", preserveAspectRatio="none")  # fmt: skip
    sure = contest.score is not None and contest.score.excludes_zero
    return [
        el("th", label(dimension), scope="row"),
        el("td", bar, class_="bar"),
        el("td", el("b", f"{b.score:+.2f}") if sure else f"{b.score:+.2f}", class_="n"),
        el("td", _span(contest.score, signed=True), class_="n quiet"),
        el("td", count(b.votes), class_="n"),
    ]


def _span(interval: Interval | None, *, signed: bool = False) -> str:
    if interval is None or interval.low is None or interval.high is None:
        return "too few prompts"
    sign = "+" if signed else ""
    return f"{interval.low:{sign}.2f} to {interval.high:{sign}.2f}"


def _scales(found: Results) -> Markup:
    blocks = []
    for dimension in dict.fromkeys(s.dimension for s in found.scales):
        rows = [_scale_row(s) for s in found.scales if s.dimension == dimension]
        alpha = found.scale_alphas.get(dimension)
        caption = f"{label(dimension)}: alpha {_alpha(alpha)}{_word(alpha)}"
        blocks.append(
            table(["System", "Mean", "Interval", "", "1", "2", "3", "4", "5"], rows,
                  class_="likert", caption=caption)
        )  # fmt: skip
    return join(blocks)


def _scale_row(result: ScaleResult) -> Iterable[Markup | str]:
    mean = result.mean
    assert mean is not None
    told = f"{mean.mean:.2f}, {_span(mean)}"
    return [
        el("th", text(result.system, 60), scope="row"),
        el("td", el("b", f"{mean.mean:.2f}"), class_="n"),
        el("td", _span(mean), class_="n quiet"),
        el("td", _dot(mean.mean, mean.low, mean.high, (1, 5), told, 3.0), class_="bar"),
        *(el("td", count(n), class_="n") for n in result.counts),
    ]


def _marks(found: Results) -> Markup:
    rows = [
        [text(system, 60), label(part), el("td", count(n), class_="n")]
        for system, parts in sorted(found.marks.items())
        for part, n in sorted(parts.items(), key=lambda row: (-row[1], row[0]))
    ]
    return table(["System", "Part", "Marked"], rows, caption="Parts that raters marked as wrong")


def _raters(found: Results) -> Markup:
    head = ["Rater", "Answers", "Gold", "Repeats", "Skill", "Agreement", "Left", "Drift",
            "Unwatched", "Median time", "Warnings"]  # fmt: skip
    return table(head, [_rater_row(r) for r in found.raters], class_="raters", caption="Raters")


def _rater_row(rater: Rater) -> list[Markup | str]:
    pairs = rater.pairs
    gold = pairs.gold if pairs and pairs.gold is not None else rater.gold_scales
    drift = pairs.drift if pairs and pairs.drift is not None else rater.scale_drift
    cells = [
        count(rater.questions),
        _share(gold),
        _share(pairs.repeats if pairs else None),
        "–" if rater.skill is None else f"{rater.skill:.1f}",
        _share(pairs.agreement if pairs else None),
        _share(pairs.left if pairs else None),
        "–" if drift is None else f"{drift:+.2f}",
        percent(rater.unseen, rater.questions),
        "–" if rater.seconds is None else f"{rater.seconds:.0f} s",
    ]
    told = "; ".join(rater.warnings)
    return [
        el("th", text(rater.name, 40), None if rater.counted else el("small", " left out"),
           scope="row"),
        *(el("td", cell, class_="n") for cell in cells),
        el("td", told, class_="failed") if told else el("td", "none", class_="quiet"),
    ]  # fmt: skip


def _share(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.0f} %"


def _notes(found: Results) -> Markup:
    rows = [[text(r, 40), text(clips, 120), text(note, 2000)] for r, clips, note in found.notes]
    shown = table(["Rater", "Clips", "Note"], rows[:MAX_NOTES], caption="What raters wrote")
    left = len(rows) - MAX_NOTES
    return join(shown, el("p", f"{count(left)} more are in closed.json.") if left > 0 else None)


def _provenance(found: Results) -> Markup:
    rows = [("Round", found.round), *sorted(found.digests.items())]
    cells = [(el("dt", name), el("dd", text(value, 80, mono=True))) for name, value in rows]
    return el("dl", cells,
              class_="provenance")  # fmt: skip
