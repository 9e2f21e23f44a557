"""Pages of this folder: the report's style and their own, and a script beside them."""

from __future__ import annotations

from pathlib import Path

from markupsafe import Markup

from reelmill.reports import document as pages

_HERE = Path(__file__).parent


def document(title: str, body: Markup, *, style: str, script: str = "", policy: str = "") -> str:
    """A whole page. style, script: names of files beside this one; the report's style comes first.

    policy: what the page may do besides, as Content-Security-Policy directives.
    """
    return pages.document(
        title,
        body,
        style=pages.report_style() + (_HERE / style).read_text("utf-8"),
        script=(_HERE / script).read_text("utf-8") if script else "",
        policy="; ".join(part for part in (pages.PICTURES, policy) if part),
    )
