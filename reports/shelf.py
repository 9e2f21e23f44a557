"""All runs of some workspaces: their summaries, a search over them, the page that lists them."""

from __future__ import annotations

import re
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from urllib.parse import urlencode

from reelmill.errors import DatasetError, ReelmillError
from reelmill.reports.document import document, report_style
from reelmill.reports.markup import Child, count, duration, el, join, percent, plural, table, text
from reelmill.reports.page import load
from reelmill.reports.schema import RunReport

PAGE = 50
MAX_RUNS = 100_000
RUN = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")


@dataclass(frozen=True)
class Summary:
    """One run for the list. words: everything that a search looks through, in lower case. error:
    why its report cannot be read; then nothing else is known."""

    place: int
    run: str
    when: datetime | None = None
    state: str = ""
    kept: int = 0
    into: int = 0
    failed: int = 0
    seconds: float = 0.0
    notes: int = 0
    words: str = ""
    error: str = ""


class Shelf:
    """The runs of workspaces, the newest first. A summary is read again when run.json changed."""

    def __init__(self, workspaces: Sequence[Path]):
        self.workspaces = tuple(workspaces)
        self._known: dict[Path, tuple[tuple[int, int], Summary]] = {}
        self._inside = threading.Lock()

    def folder(self, place: int, run: str) -> Path | None:
        """The folder of a run that is there; None for anything else, `..` included."""
        if not 0 <= place < len(self.workspaces) or not RUN.match(run):
            return None
        folder = self.workspaces[place] / "runs" / run
        return folder if (folder / "run.json").is_file() else None

    def runs(self) -> list[tuple[int, str]]:
        found = [
            (place, path.parent.name)
            for place, workspace in enumerate(self.workspaces)
            for path in (workspace / "runs").glob("*/run.json")
            if RUN.match(path.parent.name)
        ]
        return sorted(found, key=lambda item: (item[1], -item[0]), reverse=True)[:MAX_RUNS]

    def before(self, place: int, run: str) -> str | None:
        """The run of the same workspace that came before."""
        earlier = [name for where, name in self.runs() if where == place and name < run]
        return earlier[0] if earlier else None

    def find(self, query: str) -> list[tuple[int, str]]:
        """Runs that have every word of the query somewhere in what they report."""
        wanted = query.lower().split()
        if not wanted:
            return self.runs()
        return [
            item for item in self.runs() if all(word in self.of(*item).words for word in wanted)
        ]

    def of(self, place: int, run: str) -> Summary:
        path = self.workspaces[place] / "runs" / run / "run.json"
        try:
            found = path.stat()
        except OSError as error:
            return Summary(place, run, error=str(error.strerror), words=run.lower())
        state = (found.st_mtime_ns, found.st_size)
        with self._inside:
            known = self._known.get(path)
        if known is not None and known[0] == state:
            return known[1]
        try:
            summary = _summary(place, run, load(path.parent))
        except (ReelmillError, DatasetError) as error:
            summary = Summary(place, run, error=str(error), words=f"{run} {error}".lower())
        with self._inside:
            self._known[path] = (state, summary)
        return summary


def _summary(place: int, run: str, report: RunReport) -> Summary:
    clips = report.totals.clips
    said: list[str] = [run, report.run, *report.sources, *report.notes, report.over_budget]
    said += [report.provenance.command, report.provenance.version, report.provenance.commit]
    said += [recipe.yaml for recipe in report.recipes.values()]
    for stage in report.stages:
        said += [stage.slug, *(reason.reason for reason in stage.reasons)]
    said += [f"{f.path} {f.stage} {f.message}" for f in report.failures]
    state = "over budget" if report.over_budget else "finished" if report.finished else "unfinished"
    return Summary(
        place=place,
        run=run,
        when=report.when,
        state=state,
        kept=clips.kept.count,
        into=clips.into.count,
        failed=clips.failed.count,
        seconds=clips.kept.seconds,
        notes=len(report.notes),
        words="\n".join([*said, state]).lower(),
    )


def shelf_page(shelf: Shelf, query: str = "", page: int = 0) -> str:
    """One page of the list, PAGE runs long."""
    found = shelf.find(query)
    shown = found[page * PAGE : (page + 1) * PAGE]
    rows = [_row(shelf, shelf.of(*item)) for item in shown]
    several = len(shelf.workspaces) > 1
    head = [*(["Workspace"] if several else []), "Run", "When", "", "Clips kept", "", "Media kept",
            "Failed", "Notes", ""]  # fmt: skip
    links = []
    for step, name in ((-1, "Newer"), (1, "Older")):
        if page + step >= 0 and (page + step) * PAGE < len(found):
            at = urlencode({"q": query, "page": page + step})
            links.append(el("a", name, href=f"?{at}", rel="prev" if step < 0 else "next"))
    form = el(
        "form",
        el("label", "Search", for_="q"),
        el("input", type="search", id="q", name="q", value=query, maxlength=200,
           placeholder="run, source, stage, reason, note, version"),
        el("button", "Find"),
        class_="search",
        method="get",
        role="search",
    )  # fmt: skip
    body = el(
        "main",
        el("header", el("p", "Reelmill", class_="over"), el("h1", plural(len(found), "run"))),
        form,
        table(head, rows, class_="runs", caption="Runs, the newest first")
        if rows
        else el("p", "No run has all of these words.", class_="quiet"),
        el("p", [join(link, " ") for link in links]),
        class_="alone",
    )
    return document("Reelmill runs", body, style=report_style(), forms=True)


def _row(shelf: Shelf, one: Summary) -> list[Child]:
    here = f"{one.place}/{one.run}/"
    cells: list[Child] = []
    if len(shelf.workspaces) > 1:
        cells.append(text(shelf.workspaces[one.place].name, 40))
    if one.error:
        return [*cells, text(one.run, 60, mono=True), el("td", text(one.error, 200), colspan=8)]
    earlier = shelf.before(one.place, one.run)
    tone = {"finished": "good", "over budget": "bad"}.get(one.state, "warn")
    return [
        *cells,
        el("th", el("a", text(one.run, 60, mono=True), href=here), scope="row"),
        f"{one.when:%Y-%m-%d %H:%M}" if one.when else "",
        el("span", one.state, class_=f"state {tone}"),
        el("td", f"{count(one.kept)} of {count(one.into)}", class_="n"),
        el("td", percent(one.kept, one.into), class_="n"),
        el("td", duration(one.seconds), class_="n"),
        el("td", count(one.failed) if one.failed else "", class_="n failed"),
        el("td", count(one.notes) if one.notes else "", class_="n"),
        el("a", "difference", href=f"{here}diff/{earlier}") if earlier else "",
    ]
