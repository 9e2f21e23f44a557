"""The loopback server: ranges, tokens, and what it refuses."""

from __future__ import annotations

import http.client
import json
import re
import shutil
import socket
import threading

import pytest
from tests.evaluation.review.studio import PROMPTS, clips_of, names_in, round_of

from reelmill.errors import UsageError
from reelmill.evaluation.review.ballot import MAX_BALLOT_BYTES, VoteLog
from reelmill.evaluation.review.close import close_round
from reelmill.evaluation.review.plan import Shares
from reelmill.evaluation.review.round import RoundFolder
from reelmill.evaluation.review.server import ReviewServer


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("built")
    clips_of(folder / "clips", PROMPTS[:1], seconds=0.4)
    return round_of(folder, shares=Shares(2, 0, 0))


@pytest.fixture
def server(tmp_path, built):
    shutil.copytree(built.folder.root, tmp_path / "round")
    with ReviewServer(RoundFolder(tmp_path / "round")) as running:
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def ask(server, method: str, path: str, body: bytes | None = None, **headers):
    """(status, headers, body) of one request."""
    line = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=10)
    try:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        line.request(method, path, body, named)
        reply = line.getresponse()
        return reply.status, dict(reply.getheaders()), reply.read()
    finally:
        line.close()


def seat_of(server, rater="anna"):
    return server.round.seat(rater)


def vote(server, rater="anna", number=0, **changes) -> bytes:
    seat = seat_of(server, rater)
    item = seat.items[number]
    answer = "left" if item.paired else 3
    fields = {"round": server.round.id, "rater": rater, "item": item.id,
              "answers": dict.fromkeys(item.rows, answer)}  # fmt: skip
    return json.dumps(fields | changes).encode()


def post(server, body: bytes, rater="anna", **headers):
    told = {"Content_Type": "application/json"} | headers
    status, _, reply = ask(server, "POST", f"/{seat_of(server, rater).token}/votes", body, **told)
    return status, json.loads(reply)


def test_every_byte_range_is_the_files(server):
    seat = seat_of(server)
    name = seat.items[0].media[0]
    whole = (server.folder.media / name).read_bytes()
    path = f"/{seat.token}/media/{name}"
    size = len(whole)
    status, headers, body = ask(server, "GET", path)
    assert (status, body, headers["Accept-Ranges"]) == (200, whole, "bytes")
    for asked, first, last in (
        ("bytes=0-0", 0, 0), ("bytes=5-99", 5, 99), (f"bytes={size - 7}-", size - 7, size - 1),
        ("bytes=-10", size - 10, size - 1), (f"bytes=3-{size * 2}", 3, size - 1),
    ):  # fmt: skip
        status, headers, body = ask(server, "GET", path, Range=asked)
        assert (status, body) == (206, whole[first : last + 1]), asked
        assert headers["Content-Range"] == f"bytes {first}-{last}/{size}"
    for asked in (f"bytes={size}-", "bytes=9-3", "bytes=-0"):
        assert ask(server, "GET", path, Range=asked)[0] == 416
    for asked in ("bytes=0-1,4-5", "lines=1-2", "bytes=a-b", "bytes=-"):
        assert ask(server, "GET", path, Range=asked)[2] == whole
    status, headers, body = ask(server, "HEAD", path)
    assert (status, headers["Content-Length"], body) == (200, str(size), b"")


def test_headers_give_nothing_away(server):
    seat = seat_of(server)
    for path in ("", "votes", f"media/{seat.items[0].media[0]}"):
        status, headers, body = ask(server, "GET", f"/{seat.token}/{path}")
        assert status == 200
        assert not {"Last-Modified", "ETag", "Server", "Date"} & set(headers)
        assert names_in(json.dumps(headers).encode() + body) == []
        assert headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize(
    "path",
    ["/", "/{other}/../../round.json", "/{token}/round.json", "/{token}/../round.json",
     "/{token}/media/../../key.json", "/{token}/media/%2e%2e/key.json", "/{token}",
     "/{token}/media/", "/{token}/media/00000000000000000000000000000000.mp4", "/0123456789abcdef/",
     "/{token}/media/{foreign}"],
)  # fmt: skip
def test_only_the_raters_own_files_are_there(server, path):
    foreign = "f" * 32 + ".mp4"
    (server.folder.media / foreign).write_bytes(b"secret")
    token, other = seat_of(server).token, seat_of(server, "ben").token
    status, _, body = ask(server, "GET", path.format(token=token, other=other, foreign=foreign))
    assert status == 404
    assert b"error" in body
    assert b"secret" not in body


def test_votes_are_kept_and_the_same_vote_once(server):
    assert post(server, vote(server)) == (200, {"kept": 1})
    assert post(server, vote(server)) == (200, {"kept": 0})
    assert post(server, vote(server, "ben"), "ben") == (200, {"kept": 1})
    path = f"/{seat_of(server).token}/votes"
    told = json.loads(ask(server, "GET", path)[2])
    assert [v["rater"] for v in told["votes"]] == ["anna"]
    assert told["closed"] is False
    assert len(VoteLog(server.folder.votes, server.round).read()) == 2


def test_hostile_posts_are_refused_and_leave_no_trace(server):
    good = vote(server)
    token = seat_of(server).token
    assert post(server, good, Content_Type="text/plain")[0] == 415
    assert post(server, good, Origin="http://evil.example")[0] == 403
    assert post(server, good, Host="evil.example")[0] == 403
    assert post(server, good, Origin="null")[0] == 403
    status, told = post(server, vote(server, "ben"))
    assert (status, "anna's" in told["error"]) == (422, True)
    assert post(server, b"{")[0] == 422
    status, told = post(server, vote(server, answers={"overall": "best"}))
    assert status == 422
    assert "no answer" in told["error"]
    assert post(server, b"x" * (MAX_BALLOT_BYTES + 1))[0] == 413
    assert ask(server, "POST", f"/{token}/", good, Content_Type="application/json")[0] == 405
    assert ask(server, "PUT", f"/{token}/votes", good)[0] == 501
    assert ask(server, "POST", f"/{token}/votes", None, Content_Type="application/json",
               Content_Length="-5")[0] == 411  # fmt: skip
    assert not server.folder.votes.exists()
    origin = f"http://127.0.0.1:{server.server_port}"
    assert post(server, good, Origin=origin)[0] == 200


def test_broken_requests_harm_nobody(server):
    for noise in (
        b"\r\n\r\n",
        b"GET\r\n\r\n",
        b"\x16\x03\x01" * 50,
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\n\r\n",
        b"POST / HTTP/1.1\r\nX: ",
    ):
        with socket.create_connection(("127.0.0.1", server.server_port), timeout=5) as line:
            line.sendall(noise)
            line.shutdown(socket.SHUT_WR)
            while line.recv(65_536):
                pass
    assert post(server, vote(server))[0] == 200


def test_a_closed_round_takes_no_vote(server):
    for rater in ("anna", "ben"):
        for number in range(len(seat_of(server, rater).items)):
            assert post(server, vote(server, rater, number), rater)[0] == 200
    close_round(server.folder)
    status, told = post(server, vote(server, note="late"))
    assert status == 409
    assert "closed" in told["error"]
    path = f"/{seat_of(server).token}/votes"
    assert json.loads(ask(server, "GET", path)[2])["closed"] is True


def test_the_link_is_secret_and_the_page_holds_no_other(server):
    page = (server.folder.pages / "anna.html").read_text()
    tokens = [seat.token for seat in server.round.seats]
    assert not any(token in page for token in tokens)
    assert len(set(tokens)) == 2
    assert server.link(seat_of(server)).endswith(f"/{tokens[0]}/")
    assert re.search(r"default-src 'none'", page)


def test_a_port_in_use_is_told(server):
    with pytest.raises(UsageError, match="Choose another --port"):
        ReviewServer(server.folder, port=server.server_port)
