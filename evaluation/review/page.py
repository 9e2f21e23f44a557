"""The blind page of one rater: offline, driven by keys, naming nothing."""

from __future__ import annotations

from markupsafe import Markup

from reelmill.evaluation.review.document import document
from reelmill.evaluation.review.round import Round, Seat
from reelmill.evaluation.taxonomy import LIKERT, dimensions
from reelmill.evaluation.vote import OVERALL
from reelmill.reports.embed import data_block
from reelmill.reports.markup import el, join, text

POLICY = "media-src 'self' file:; connect-src 'self'"
KEYS = (
    ("Space", "play and pause"),
    ("← →", "half a second back, forward"),
    (", .", "one frame back, forward"),
    ("R", "from the beginning"),
    ("A D", "hear the left, the right clip"),
    ("S", "hear the other clip"),
    ("L", "equal loudness on and off"),
    ("1 2 3", "left, same, right (1 to 5 where one clip is scored)"),
    ("↑ ↓", "another row"),
    ("Enter", "save, and the next"),
    ("P N", "the one before, the one after"),
    ("?", "this list"),
)


def label(name: str) -> str:
    """A dimension's or part's name as people read it."""
    words = name.replace("_", " ").replace("audio visual", "audio-visual")
    return words[:1].upper() + words[1:]


def render_page(round_: Round, seat: Seat) -> str:
    """The page, with all items of the seat. Same input, same bytes."""
    rows: dict[str, dict[str, object]] = {
        OVERALL: {"label": "Overall", "asks": "Which clip is better, all in all?", "parts": []}
    }
    for dimension in dimensions():
        rows[dimension.name] = {
            "label": label(dimension.name),
            "asks": dimension.asks,
            "parts": [[part.name, label(part.name), part.asks] for part in dimension.parts],
        }
    data = {
        "round": round_.id,
        "rater": seat.rater,
        "likert": LIKERT,
        "rows": rows,
        "items": [item.model_dump(mode="json") for item in seat.items],
    }
    body = join(
        el("a", "Skip to the questions", href="#answers", class_="skip"),
        _bar(round_, seat),
        el("main", _prompt(), _stage(), _form(), id="main", hidden=True),
        _done(),
        _help(),
        el("p", role="status", aria_live="polite", class_="sr", id="told"),
        el("noscript", el("p", "This page needs JavaScript, and no network.", class_="wide")),
        data_block("round", data),
    )
    return document(round_.title, body, style="review.css", script="review.js", policy=POLICY)


def _bar(round_: Round, seat: Seat) -> Markup:
    return el(
        "header",
        el("h1", text(round_.title, 80)),
        el("span", text(seat.rater, 40), class_="quiet"),
        el("progress", id="progress", max=max(1, len(seat.items)), value=0,
           aria_label="Questions answered"),
        el("span", id="count"),
        el("span", id="saved", role="status"),
        el("button", "Keys ", el("kbd", "?"), type="button", id="ask-help"),
        el("button", "Export votes", type="button", id="export"),
        class_="top",
    )  # fmt: skip


def _prompt() -> Markup:
    return el(
        "section",
        el("h2", "Prompt", class_="sr"),
        el("p", id="prompt", dir="auto"),
        class_="prompt",
    )


def _clip(side: str, name: str) -> Markup:
    return el(
        "figure",
        el("video", preload="auto", playsinline=True, muted=True, tabindex=-1, id=f"clip-{side}",
           disablepictureinpicture=True, disableremoteplayback=True, aria_label=f"{name} clip"),
        el("figcaption", el("b", name), el("span", class_="heard"), el("span", class_="fault")),
        id=f"figure-{side}",
    )  # fmt: skip


def _stage() -> Markup:
    controls = el(
        "div",
        el("button", "Play", type="button", id="play"),
        el("button", "From start", type="button", id="restart"),
        el("input", type="range", id="scrub", min=0, max=1000, step=1, value=0,
           aria_label="Position in the clips", autocomplete="off"),
        el("output", "0.0 s", id="time"),
        el(
            "fieldset",
            el("legend", "Sound", class_="sr"),
            el("label", el("input", type="radio", name="sound", value="0", id="hear-left",
                           autocomplete="off"), "Left sound"),
            el("label", el("input", type="radio", name="sound", value="1", id="hear-right",
                           autocomplete="off"), "Right sound"),
            class_="segments", id="sound",
        ),
        el("label", el("input", type="checkbox", id="equal", checked=True, autocomplete="off"),
           "Equal loudness", class_="tick"),
        el("label", el("input", type="checkbox", id="loop", checked=True, autocomplete="off"),
           "Loop", class_="tick"),
        class_="controls",
    )  # fmt: skip
    return el(
        "section",
        el("h2", "Clips", class_="sr"),
        el("div", _clip("left", "Left"), _clip("right", "Right"), class_="clips", id="clips"),
        controls,
        class_="stage-of-two",
    )


def _form() -> Markup:
    return el(
        "form",
        el("h2", "Your answers", class_="sr"),
        el("div", id="answers", tabindex=-1),
        el(
            "details",
            el("summary", "A note (if you like)", id="more-told"),
            el("div", id="marks"),
            el("label", "Note ", el("textarea", rows=2, maxlength=2000, id="note",
                                    autocomplete="off")),
            id="more",
        ),
        el(
            "p",
            el("button", "Back", type="button", id="back"),
            el("span", id="missing", role="alert"),
            el("button", "Save and next ", el("kbd", "Enter"), type="submit", id="save"),
            class_="moves",
        ),
        id="form",
        autocomplete="off",
        novalidate=True,
    )  # fmt: skip


def _done() -> Markup:
    return el(
        "section",
        el("h2", "All done. Thank you."),
        el("p", id="done-told"),
        el("p",
           el("button", "Export votes", type="button", id="export-done"),
           el("button", "Look at the last one again", type="button", id="again")),
        id="done",
        class_="wide",
        hidden=True,
        tabindex=-1,
    )  # fmt: skip


def _help() -> Markup:
    return el(
        "dialog",
        el("h2", "Keys", id="help-title"),
        el("dl", [(el("dt", el("kbd", keys)), el("dd", what)) for keys, what in KEYS]),
        el("p", "Watch both clips to the end before you answer. Both play on one clock; you hear "
           "one of them at a time. Every answer is kept at once: close the page when you like, "
           "and open the same link again to go on.", class_="small"),
        el("button", "Close", type="button", id="close-help"),
        id="help",
        aria_labelledby="help-title",
    )  # fmt: skip
