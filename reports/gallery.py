"""Cards of examples with players, in groups: kept, rejected, borderline on both sides, failed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import PurePosixPath

from markupsafe import Markup

from reelmill.reports.embed import MIME, Previews
from reelmill.reports.markup import SIGNS, duration, el, number, path_text, tabs, text
from reelmill.reports.schema import BoundReport, Example, Group, RunReport, StageReport

GROUPS: tuple[tuple[Group, str], ...] = (
    ("rejected", "Rejected"),
    ("borderline", "Borderline"),
    ("kept", "Kept"),
    ("failed", "Failed"),
)
CARDS = 12
FACTS = 14


def trimmed(report: RunReport, cards: int) -> RunReport:
    """With at most `cards` examples in each group of each stage."""

    def some(stage: StageReport) -> list[Example]:
        groups = [[e for e in stage.examples if e.group == group] for group, _ in GROUPS]
        return [example for group in groups for example in group[:cards]]

    stages = [stage.model_copy(update={"examples": some(stage)}) for stage in report.stages]
    return report.model_copy(update={"stages": stages})


def grouped(stage: StageReport) -> list[tuple[str, list[Example]]]:
    found = []
    for group, title in GROUPS:
        examples = [e for e in stage.examples if e.group == group]
        if examples:
            found.append((f"{title} {len(examples)}", examples))
    return found


def wanted(report: RunReport) -> Iterator[str]:
    """Preview files, the most wanted first: posters before players, first cards before later."""
    groups = [examples for stage in report.stages for _, examples in grouped(stage)]
    for role in ("poster", "player"):
        for rank in range(CARDS):
            for examples in groups:
                if rank < len(examples):
                    path = getattr(examples[rank].preview, role)
                    if path is not None:
                        yield path


def gallery(stage: StageReport, previews: Previews) -> Markup | None:
    groups = grouped(stage)
    if not groups:
        return None
    bounds = {b.fact: b for b in stage.bounds if b.op}
    panels = [
        (title, el("ul", [_card(e, bounds, previews) for e in examples], class_="cards"))
        for title, examples in groups
    ]
    return el("div", tabs(f"g-{stage.slug}", panels, "Examples"), class_="gallery")


def _card(example: Example, bounds: dict[str, BoundReport], previews: Previews) -> Markup:
    return el(
        "li",
        _media(example, previews),
        el(
            "div",
            el(
                "p",
                el("span", example.outcome, class_=f"outcome {example.outcome}"),
                text(example.reason.replace("_", " "), 60) if example.reason else None,
                class_="verdict",
            ),
            _against(example),
            el("p", text(example.detail, 220), class_="detail") if example.detail else None,
            el("p", path_text(example.path, 26), _span(example), class_="source"),
            el("p", text(example.id, 60, mono=True), class_="id"),
            _facts(example, bounds),
            class_="about",
        ),
        class_="card",
        data_unit=example.id,
        data_group=example.group,
        data_outcome=example.outcome,
        data_reason=example.reason or None,
    )


def _against(example: Example) -> Markup | None:
    if example.value is None and not example.bound:
        return None
    value = example.value
    return el(
        "p",
        text(number(value), 60, class_="value") if value is not None else None,
        el("span", "needs ", text(example.bound, 80)) if example.bound else None,
        class_="against",
    )


def _span(example: Example) -> Markup | None:
    if example.start is None or example.end is None:
        return None
    length = duration(example.end - example.start)
    return el("span", f"{example.start:.2f} s + {length}", class_="span")


def _facts(example: Example, bounds: dict[str, BoundReport]) -> Markup | None:
    if not example.facts:
        return None
    shown = list(example.facts.items())[:FACTS]
    return el(
        "details",
        el("summary", "Facts"),
        el("dl", [_fact(name, value, bounds.get(name)) for name, value in shown]),
        el("p", f"and {len(example.facts) - FACTS} more") if len(example.facts) > FACTS else None,
        class_="facts",
    )


def _fact(name: str, value: object, bound: BoundReport | None) -> Iterable[Markup]:
    against = (
        f" ({SIGNS[bound.op]} {number(bound.value)})" if bound and bound.value is not None else ""
    )
    yield el("dt", text(name, 40))
    yield el("dd", text("no value" if value is None else number(value), 160), against)


def _media(example: Example, previews: Previews) -> Markup:
    """The player or picture. Media load when they are played; posters come from the page."""
    preview = example.preview
    poster = previews.source(preview.poster, "poster")
    player = previews.source(preview.player, "src")
    label = f"{example.outcome} {example.id}"[:120]
    if player and preview.player is not None:
        suffix = PurePosixPath(preview.player).suffix.lower()
        if MIME[suffix].startswith("audio/"):
            body = el("audio", controls=True, preload="none", aria_label=label, **player)
            return el("div", el("span", "♪", aria_hidden="true"), body, class_="media sound")
        return el(
            "div",
            el("video", controls=True, preload="none", playsinline=True, aria_label=label,
               **player, **poster),
            class_="media",
        )  # fmt: skip
    picture = previews.source(preview.poster, "src")
    if picture:
        return el(
            "div", el("img", alt=label, loading="lazy", decoding="async", **picture), class_="media"
        )
    return el("div", el("span", "no preview"), class_="media none")
