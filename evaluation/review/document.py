"""One self-contained HTML file: style and script inside, allowed by their digests alone."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

from markupsafe import Markup

from reelmill import reports
from reelmill.reports.markup import el, visible

_REPORTS = Path(next(iter(reports.__path__)))
_HERE = Path(__file__).parent


def _digest(code: str) -> str:
    return base64.b64encode(hashlib.sha256(code.encode()).digest()).decode("ascii")


def document(title: str, body: Markup, *, style: str, script: str = "", policy: str = "") -> str:
    """A whole page. style, script: names of files beside this one; the report's style comes first.

    policy: what the page may do besides, as Content-Security-Policy directives.
    """
    css = (_REPORTS / "report.css").read_text("utf-8") + (_HERE / style).read_text("utf-8")
    code = (_HERE / script).read_text("utf-8") if script else ""
    allowed = [
        "default-src 'none'",
        f"style-src 'sha256-{_digest(css)}'",
        *([f"script-src 'sha256-{_digest(code)}'"] if code else []),
        "img-src data:",
        "base-uri 'none'",
        "form-action 'none'",
        *([policy] if policy else []),
    ]
    head = el(
        "head",
        el("meta", charset="utf-8"),
        Markup(f'<meta http-equiv="Content-Security-Policy" content="{"; ".join(allowed)}">'),
        el("meta", name="viewport", content="width=device-width, initial-scale=1"),
        el("meta", name="color-scheme", content="light dark"),
        el("meta", name="referrer", content="no-referrer"),
        el("meta", name="robots", content="noindex"),
        el("link", rel="icon", href="data:,"),
        el("title", visible(title, 100)),
        Markup(f"<style>{css}</style>"),
    )
    whole = el(
        "html",
        head,
        el("body", body, Markup(f"<script>{code}</script>") if code else None),
        lang="en",
    )
    return Markup("<!doctype html>\n") + whole + "\n"
