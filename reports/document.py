"""One self-contained HTML file: style and script inside, allowed by their digests alone."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

from markupsafe import Markup

from reelmill.reports.markup import el, visible

_HERE = Path(__file__).parent
PICTURES = "img-src data:"


def report_style() -> str:
    """The style that all our pages share."""
    return (_HERE / "report.css").read_text(encoding="utf-8")


def _digest(code: str) -> str:
    return base64.b64encode(hashlib.sha256(code.encode()).digest()).decode("ascii")


def document(
    title: str,
    body: Markup,
    *,
    style: str,
    script: str = "",
    policy: str = PICTURES,
    forms: bool = False,
) -> Markup:
    """A whole page. style, script: their text. policy: what it may do besides, as directives of
    Content-Security-Policy; nothing that is not named is allowed. forms: it may ask its own
    server.
    """
    target = "'self'" if forms else "'none'"
    allowed = [
        "default-src 'none'",
        f"style-src 'sha256-{_digest(style)}'",
        *([f"script-src 'sha256-{_digest(script)}'"] if script else []),
        policy,
        "base-uri 'none'",
        f"form-action {target}",
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
        Markup(f"<style>{style}</style>"),
    )
    whole = el("body", body, Markup(f"<script>{script}</script>") if script else None)
    return Markup("<!doctype html>\n") + el("html", head, whole, lang="en") + "\n"
