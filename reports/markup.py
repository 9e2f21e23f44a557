"""HTML that is escaped by construction, and figures as people read them.

A `str` is always text and gets escaped; only a `Markup`, which these functions return, is HTML.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

from markupsafe import Markup, escape

MAX_TEXT = 300
SIGNS = {">=": "≥", "<=": "≤", ">": ">", "<": "<"}
_VOID = frozenset({"input", "img", "br", "meta", "link", "col"})
Child = str | Markup | None | Iterable["Child"]


def visible(text: str, limit: int = MAX_TEXT) -> str:
    """`text` cut to `limit` characters; control and direction-changing ones made visible."""
    if len(text) > limit:
        text = text[: limit - 1] + "…"
    if text.isprintable():
        return text
    return "".join(
        f"\\u{ord(c):04x}" if unicodedata.category(c) in ("Cc", "Cf", "Cs") and c != "\n" else c
        for c in text
    )


def _flat(children: Iterable[Child]) -> Iterable[str | Markup]:
    for child in children:
        if child is None:
            continue
        if isinstance(child, str):
            yield child
        else:
            yield from _flat(child)


def _escaped(children: Iterable[Child]) -> list[str]:
    return [c if isinstance(c, Markup) else escape(c) for c in _flat(children)]


def join(*children: Child) -> Markup:
    return Markup("".join(_escaped(children)))


def el(tag: str, /, *children: Child, **attributes: str | int | float | bool | None) -> Markup:
    """An element. Attribute names: `_` for `-`, a trailing `_` drops; None and False leave out."""
    parts = [f"<{tag}"]
    for name, value in attributes.items():
        if value is None or value is False:
            continue
        key = name.rstrip("_").replace("_", "-")
        if value is True:
            parts.append(f" {key}")
        else:
            text = coordinate(value) if isinstance(value, float) else str(value)
            parts.append(f' {key}="{escape(text)}"')
    parts.append(">")
    if tag not in _VOID:
        parts += [*_escaped(children), f"</{tag}>"]
    return Markup("".join(parts))


def text(value: object, limit: int = MAX_TEXT, *, mono: bool = False, class_: str = "") -> Markup:
    """User text on one line, isolated in its direction, whole in its title when cut."""
    whole = str(value)
    cut = len(whole) > limit
    title = visible(whole, MAX_TEXT) if cut else None
    classes = " ".join(c for c in ("mono" if mono else "", class_) if c) or None
    return el("bdi", visible(whole, limit), class_=classes, title=title)


def path_text(path: str, limit: int = 60) -> Markup:
    """A path with its end in sight: `…/folder/name.mp4`."""
    shown = path if len(path) <= limit else "…" + path[-(limit - 1) :]
    title = visible(path, MAX_TEXT) if shown != path else None
    return el("bdi", visible(shown), class_="mono", title=title)


def coordinate(value: float) -> str:
    """A number for SVG: two decimals at most, the same on every machine."""
    shown = f"{value:.2f}".rstrip("0").rstrip(".")
    return "0" if shown == "-0" else shown


def number(value: object) -> str:
    """A measured value, five significant digits; booleans as yes and no."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return count(value)
    if isinstance(value, float):
        return f"{value:.5g}".replace("-", "−") if abs(value) < 1e5 else f"{value:,.0f}"
    return str(value)


def count(value: int) -> str:
    return f"{value:,}".replace("-", "−")


def percent(part: float, whole: float) -> str:
    """Never rounded up to all or down to nothing."""
    if not whole:
        return "–"
    share = 100 * part / whole
    if 0 < share < 0.1:
        return "<0.1 %"
    if 99.9 < share < 100:
        return ">99.9 %"
    return f"{share:.1f} %".replace(".0 %", " %")


def duration(seconds: float) -> str:
    if seconds >= 3600:
        return f"{seconds / 3600:,.1f} h"
    if seconds >= 120:
        return f"{seconds / 60:.1f} min"
    return f"{seconds:.1f} s" if seconds else "0 s"


def size(bytes_: float) -> str:
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if bytes_ < 1000 or unit == "TB":
            return f"{bytes_:.0f} {unit}" if unit == "B" else f"{bytes_:,.1f} {unit}"
        bytes_ /= 1000
    raise AssertionError


def plural(n: int, noun: str) -> str:
    return f"{count(n)} {noun}{'' if n == 1 else 's'}"


def table(
    head: Iterable[Child], rows: Iterable[Iterable[Child]], *, class_: str = "", caption: str = ""
) -> Markup:
    """A table in a box that scrolls sideways. Cells are children of td, or whole td's and th's."""

    def cell(child: Child, tag: str) -> Markup:
        if isinstance(child, Markup) and child.startswith(("<td", "<th")):
            return child
        return el(tag, child, scope="col" if tag == "th" else None)

    return el(
        "div",
        el(
            "table",
            el("caption", caption) if caption else None,
            el("thead", el("tr", [cell(c, "th") for c in head])),
            el("tbody", [el("tr", [cell(c, "td") for c in row]) for row in rows]),
            class_=class_ or None,
        ),
        class_="scroll",
        tabindex=0,
        role="region",
        aria_label=caption or "table",
    )


def tabs(name: str, panels: Iterable[tuple[str, Markup]], label: str) -> Markup:
    """Panels of which one shows. Radio buttons: arrow keys work and no script is needed."""
    panels = list(panels)
    radios, labels, bodies = [], [], []
    for i, (title, body) in enumerate(panels):
        key = f"{name}-{i}"
        radios.append(el("input", type="radio", name=name, id=key, checked=i == 0))
        labels.append(el("label", title, for_=key))
        bodies.append(el("div", el("p", title, class_="panel-title"), body, class_="panel"))
    controls = [part for pair in zip(radios, labels, strict=True) for part in pair]
    return el("fieldset", el("legend", label, class_="sr"), controls, bodies, class_="tabs")
