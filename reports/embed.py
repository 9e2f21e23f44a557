"""Previews inside the page: each file once, as a data URI, within a budget of bytes.

Cards name a file by a key; the page's script gives it its data. Files beyond the budget stay
links into the run's folder.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import quote

from markupsafe import Markup

MIME = {
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".png": "image/png",
    ".webp": "image/webp",
    ".mp4": "video/mp4",
    ".webm": "video/webm",
    ".m4a": "audio/mp4",
    ".mp3": "audio/mpeg",
    ".ogg": "audio/ogg",
    ".flac": "audio/flac",
    ".wav": "audio/wav",
}


def data_block(key: str, data: object) -> Markup:
    """JSON in a script element that browsers do not run. `<` and `&` cannot end it."""
    dumped = json.dumps(data, separators=(",", ":"), ensure_ascii=True)
    safe = dumped.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
    return Markup(f'<script type="application/json" id="{key}">{safe}</script>')


class Previews:
    """Preview files of one run.

    wanted: relative paths, the most wanted first. They are read until `budget` bytes of page are
    spent; a file that does not fit is passed over for smaller ones.
    """

    def __init__(self, run_dir: Path, wanted: Iterable[str], budget: int):
        self.root = run_dir.resolve()
        self.data: dict[str, str] = {}
        self.keys: dict[str, str] = {}
        self.linked: set[str] = set()
        self.missing: set[str] = set()
        for path in dict.fromkeys(wanted):
            file = self._inside(path)
            if file is None:
                self.missing.add(path)
                continue
            mime = MIME[file.suffix.lower()]
            key = f"f{len(self.keys)}"
            cost = (file.stat().st_size + 2) // 3 * 4 + len(mime) + len(key) + 24
            if cost > budget:
                self.linked.add(path)
                continue
            budget -= cost
            self.keys[path] = key
            self.data[key] = (
                f"data:{mime};base64,{base64.b64encode(file.read_bytes()).decode('ascii')}"
            )

    def _inside(self, path: str) -> Path | None:
        """The file, or None when it is absent, of no known sort, or outside the run's folder."""
        try:
            file = (self.root / path).resolve()
            if not file.is_relative_to(self.root) or not file.is_file():
                return None
        except (OSError, ValueError):
            return None
        return file if file.suffix.lower() in MIME else None

    def source(self, path: str | None, attribute: str) -> dict[str, str]:
        """Attributes that give an element the file: `data-src` for embedded, `src` for linked."""
        if path is None or path in self.missing:
            return {}
        if path in self.keys:
            return {f"data_{attribute}": self.keys[path]}
        return {attribute: quote(path)}

    def block(self) -> Markup:
        return data_block("files", self.data)
