"""Serves the reports of workspaces on this machine, and takes reviewers' votes on their cards.

/<token>/                          all runs, with a search
/<token>/<workspace>/<run>/        a report; its cards can be voted on
/<token>/<workspace>/<run>/votes   POST: one vote
/<token>/<workspace>/<run>/diff/<run>
/<token>/<workspace>/<run>/<file>  a preview that the report names; one byte range at a time

Without the token, which is new for each server, there is nothing.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Callable, Sequence
from http import HTTPStatus
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from markupsafe import Markup

from reelmill.errors import ReelmillError, UsageError
from reelmill.reports.diff import Moved, render_diff
from reelmill.reports.embed import MIME
from reelmill.reports.local_http import LocalHandler, LocalServer, Refused
from reelmill.reports.markup import el
from reelmill.reports.page import load, rendered
from reelmill.reports.schema import RunReport
from reelmill.reports.shelf import Shelf, shelf_page
from reelmill.reports.votes import MAX_VOTE_BYTES, VoteLog, read_vote, reviewed

Moves = Callable[[Path, str, str], Sequence[Moved] | None]
_PATH = re.compile(r"^/([0-9a-f]{32})/(?:([0-9]{1,4})/([^/]{1,100})/(.{0,600}))?$")


class ReportServer(LocalServer):
    """The runs of workspaces behind one address. Raises UsageError when it cannot be had.

    moves: which units went elsewhere between two runs of a workspace; None where it is not known.
    """

    def __init__(
        self,
        workspaces: Sequence[Path],
        host: str = "127.0.0.1",
        port: int = 0,
        moves: Moves = lambda workspace, before, after: None,
    ):
        if not workspaces:
            raise UsageError("no workspace given: there is nothing to serve.")
        self.shelf = Shelf(workspaces)
        self.moves = moves
        self.logs = [VoteLog(workspace) for workspace in workspaces]
        for log in self.logs:
            log.last()  # a damaged log is told before the first reviewer comes
        self.token = secrets.token_hex(16)
        super().__init__(_Handler, host, port)

    @property
    def link(self) -> str:
        return f"{self.address}/{self.token}/"


class _Handler(LocalHandler):
    server: ReportServer

    def status_of(self, error: ReelmillError) -> HTTPStatus:
        if isinstance(error, UsageError):
            return HTTPStatus.UNPROCESSABLE_ENTITY
        return super().status_of(error)

    def reply(self) -> None:
        parts = urlsplit(self.path)
        found = _PATH.match(parts.path)
        if found is None or not secrets.compare_digest(found[1], self.server.token):
            raise Refused(HTTPStatus.NOT_FOUND, "there is no such page. Use the link as given.")
        if found[2] is None:
            self._read_only()
            self.send_text(shelf_page(self.server.shelf, *_asked(parts.query)))
            return
        place, run, rest = int(found[2]), unquote(found[3]), unquote(found[4])
        folder = self.server.shelf.folder(place, run)
        if folder is None:
            raise Refused(HTTPStatus.NOT_FOUND, "there is no such run.")
        if rest == "votes":
            self._vote(place, folder)
        else:
            self._read_only()
            self._page(place, folder, rest)

    def _read_only(self) -> None:
        if self.command == "POST":
            raise Refused(HTTPStatus.METHOD_NOT_ALLOWED, "votes are posted to votes.")

    def _page(self, place: int, folder: Path, rest: str) -> None:
        report = load(folder)
        if not rest:
            self.send_text(_with_ballot(report, folder, self.server.logs[place]))
        elif rest.startswith("diff/"):
            before = self.server.shelf.folder(place, rest.removeprefix("diff/"))
            if before is None:
                raise Refused(HTTPStatus.NOT_FOUND, "there is no such run.")
            moves = self.server.moves(folder.parents[1], before.name, folder.name)
            self.send_text(render_diff(load(before), report, moves))
        elif rest in _previews(report):
            kind = MIME.get(Path(rest).suffix.lower(), "application/octet-stream")
            whole = (folder / rest).resolve()
            if not whole.is_relative_to(folder.resolve()):
                raise Refused(HTTPStatus.NOT_FOUND, "there is no such file.")
            self.send_file(whole, kind)
        else:
            raise Refused(HTTPStatus.NOT_FOUND, "there is no such page.")

    def _vote(self, place: int, folder: Path) -> None:
        if self.command != "POST":
            raise Refused(HTTPStatus.METHOD_NOT_ALLOWED, "votes are posted.")
        vote = read_vote(self.read_json_body(MAX_VOTE_BYTES))
        report = load(folder)
        if vote.run != report.run:
            raise UsageError(f"the vote is on run {vote.run!r}, this is {report.run!r}.")
        shown = {
            (s.slug, e.id, e.outcome, e.reason, e.group) for s in report.stages for e in s.examples
        }
        if (*vote.card, vote.group) not in shown:
            raise UsageError("the report has no such card.")
        self.server.logs[place].add(vote)
        self.send_json({"kept": 1})


def _asked(query: str) -> tuple[str, int]:
    """Words and page of a search."""
    try:
        given = parse_qs(query, max_num_fields=8, errors="replace")
    except ValueError:
        return "", 0
    page = given.get("page", ["0"])[0]
    return given.get("q", [""])[0][:200], int(page) if re.fullmatch(r"[0-9]{1,6}", page) else 0


def _previews(report: RunReport) -> set[str]:
    return {
        path
        for stage in report.stages
        for example in stage.examples
        for path in (example.preview.poster, example.preview.player)
        if path is not None
    }


def _with_ballot(report: RunReport, folder: Path, log: VoteLog) -> str:
    """The report with the votes of now, and a place to vote."""
    votes = log.last()
    on_cards = {(s.slug, e.id, e.outcome, e.reason) for s in report.stages for e in s.examples}
    given = [
        {"reviewer": v.reviewer, "stage": v.stage, "unit": v.unit, "outcome": v.outcome,
         "reason": v.reason, "word": v.word}
        for v in votes if v.card in on_cards
    ]  # fmt: skip
    stages = []
    for stage in report.stages:
        own = [v for v in votes if v.stage == stage.slug]
        said = reviewed(own, {e.id: e.outcome for e in stage.examples})
        merged = {**stage.reviewed}
        for name, word in said.items():
            # The report counts what was said before it was made; the cards, what is said now.
            if word.cards >= (merged[name].cards if name in merged else 0):
                merged[name] = word
        stages.append(stage.model_copy(update={"reviewed": merged}))
    shown = report.model_copy(update={"stages": stages})
    ballot: Markup = el(
        "div",
        el("a", "All runs", href="../../"),
        el("label", "You are ", el("input", type="text", id="reviewer", maxlength=100,
                                   autocomplete="name")),
        el("output"),
        id="ballot",
        class_="ballot",
        data_run=report.run,
        data_votes=json.dumps(given, separators=(",", ":")),
    )  # fmt: skip
    return rendered(shown, folder, ballot)
