"""The server of reports: runs listed and found, votes kept, strangers kept out."""

from __future__ import annotations

import http.client
import json
import shutil
import threading

import pytest
from tests.reports.planted_run import plant
from tests.reports.test_page import TAGS, Page

from reelmill.errors import DatasetError, UsageError
from reelmill.reports.serve import ReportServer
from reelmill.reports.votes import VoteLog


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A workspace of three runs: two good ones and one that cannot be read."""
    root = tmp_path_factory.mktemp("work")
    first = root / "runs" / "20260301-120000-a1b2"
    plant(first, previews=2)
    second = root / "runs" / "20260302-120000-c3d4"
    shutil.copytree(first, second)
    text = (second / "run.json").read_text()
    (second / "run.json").write_text(text.replace("footage", "holidays"))
    (root / "runs" / "20260303-broken").mkdir()
    (root / "runs" / "20260303-broken" / "run.json").write_text("{}")
    (root / "secret.txt").write_text("secret")
    return root


@pytest.fixture
def server(place):
    (place / "votes.jsonl").unlink(missing_ok=True)
    with ReportServer([place]) as made:
        thread = threading.Thread(target=made.serve_forever, daemon=True)
        thread.start()
        yield made
        made.shutdown()
        thread.join()


RUN = "0/20260301-120000-a1b2/"


def ask(server, method, path, body=None, **headers):
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=20)
    told = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, path, body, told)
    answer = connection.getresponse()
    found = answer.status, answer.read()
    connection.close()
    return found


def get(server, path):
    return ask(server, "GET", f"/{server.token}/{path}")


def post(server, vote, path=f"{RUN}votes", **headers):
    body = json.dumps(vote) if isinstance(vote, dict) else vote
    told = {"Content_Type": "application/json"} | headers
    status, reply = ask(server, "POST", f"/{server.token}/{path}", body, **told)
    return status, json.loads(reply)


def card(server, group="rejected"):
    """A vote on a card that the page shows."""
    page = Page(get(server, RUN)[1].decode())
    stage = ""
    for name, attributes in page.elements:
        if name == "details" and attributes.get("class") == "stage":
            stage = attributes["id"]
        if attributes.get("data-group") == group and stage.endswith("Blur"):
            return {
                "run": "20260301-120000-a1b2", "stage": stage, "unit": attributes["data-unit"],
                "outcome": attributes["data-outcome"], "group": group,
                "reason": attributes.get("data-reason") or "", "word": "agree", "reviewer": "Ada",
            }  # fmt: skip
    raise AssertionError("no card")


def test_the_list_has_all_runs_and_is_searched(server):
    status, body = get(server, "")
    page = Page(body.decode())
    assert status == 200
    assert {name for name, _ in page.elements} <= TAGS | {"form"}
    assert "3 runs" in page.text
    assert "is not a run report" in page.text
    assert "1 run" in Page(get(server, "?q=footage+blur")[1].decode()).text
    assert "2 runs" in Page(get(server, "?q=blur+20260")[1].decode()).text
    assert "1 run" in Page(get(server, "?q=HOLIDAYS")[1].decode()).text
    assert "No run has all" in Page(get(server, "?q=nothing-like-it")[1].decode()).text
    hostile = Page(get(server, "?q=%22%3E%3Cscript%3Ealert(1)%3C/script%3E&page=9x")[1].decode())
    assert hostile.all("script") == []
    assert any(a.get("value") == '"><script>alert(1)</script>' for a in hostile.all("input"))


def test_a_vote_is_kept_and_comes_back_as_precision(server, place):
    vote = card(server)
    assert post(server, vote) == (200, {"kept": 1})
    assert post(server, vote | {"reviewer": "Ben", "word": "disagree"}) == (200, {"kept": 1})
    assert post(server, vote | {"reviewer": "Eve", "word": "disagree"}) == (200, {"kept": 1})
    assert len(VoteLog(place).last()) == 3
    page = Page(get(server, RUN)[1].decode())
    (ballot,) = [a for a in page.all("div") if a.get("id") == "ballot"]
    assert len(json.loads(ballot["data-votes"])) == 3
    assert "rejected, reviewed0 % right (0 to 79 %), of 1 card" in page.text
    # The other run has the same cards: the votes hold there too.
    other = Page(get(server, "0/20260302-120000-c3d4/")[1].decode())
    assert "of 1 card" in other.text


@pytest.mark.parametrize(
    "change",
    [{"unit": "no such"}, {"stage": "video-None"}, {"outcome": "kept"}, {"reason": "other"},
     {"group": "kept"}, {"run": "another"}, {"word": "maybe"}, {"reviewer": ""}, {"more": 1}],
)  # fmt: skip
def test_votes_on_what_is_not_shown_are_refused(server, place, change):
    status, told = post(server, card(server) | change)
    assert status == 422
    assert told["error"]
    assert VoteLog(place).last() == []


def test_hostile_requests_are_refused(server, place):
    vote = card(server)
    assert post(server, vote, Content_Type="text/plain")[0] == 415
    assert post(server, vote, Origin="http://evil.example")[0] == 403
    assert post(server, vote, Host="evil.example")[0] == 403
    assert post(server, "x" * 5000)[0] == 413
    assert post(server, vote, path=RUN)[0] == 405
    assert post(server, vote, path="")[0] == 405
    assert ask(server, "GET", f"/{server.token}/{RUN}votes")[0] == 405
    assert VoteLog(place).last() == []


@pytest.mark.parametrize(
    "path",
    ["0/../secret.txt", "0/..%2f../", "0/20260301-120000-a1b2/../../secret.txt",
     "0/20260301-120000-a1b2/%2e%2e/%2e%2e/secret.txt", "1/20260301-120000-a1b2/",
     "0/20260301-120000-a1b2/run.json", "0/20260301-120000-a1b2/diff/..%2f..", "0/none/", "x",
     "0/20260301-120000-a1b2/media/../run.json", "9999/../", "0/20260301-120000-a1b2"],
)  # fmt: skip
def test_nothing_but_pages_and_their_previews_is_there(server, path):
    status, body = get(server, path)
    assert status == 404
    assert b"secret" not in body
    assert ask(server, "GET", f"/{'0' * 32}/")[0] == 404
    assert ask(server, "GET", "/")[0] == 404


def test_previews_and_differences_are_there(server, place):
    run = json.loads((place / "runs/20260301-120000-a1b2/run.json").read_bytes())
    path = next(e["preview"]["player"] for s in run["stages"] for e in s["examples"]
                if e["preview"]["player"])  # fmt: skip
    status, body = get(server, RUN + path)
    assert (status, body) == (200, (place / "runs/20260301-120000-a1b2" / path).read_bytes())
    status, body = get(server, "0/20260302-120000-c3d4/diff/20260301-120000-a1b2")
    assert status == 200
    assert "Difference from" in Page(body.decode()).text


def test_a_report_that_cannot_be_read_is_told(server):
    status, body = get(server, "0/20260303-broken/")
    assert status == 500
    assert b"is not a run report" in body


def test_a_damaged_log_or_no_workspace_is_told_at_the_start(tmp_path):
    (tmp_path / "votes.jsonl").write_text("[]\n")
    with pytest.raises(DatasetError):
        ReportServer([tmp_path])
    with pytest.raises(UsageError):
        ReportServer([])
