"""Reviewers' votes: kept whole, counted by card, judged by Wilson's interval."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import pytest
from scipy.stats import binomtest

from reelmill.errors import DatasetError, UsageError
from reelmill.reports.votes import FILE, Vote, VoteLog, counted, read_vote, reviewed, wilson


def vote(**changes: object) -> Vote:
    given = {
        "run": "r1", "stage": "video-Blur", "unit": "u1", "outcome": "rejected",
        "reason": "blurred", "group": "rejected", "word": "agree", "reviewer": "A",
    }  # fmt: skip
    return Vote.model_validate(given | changes)


@pytest.mark.parametrize(("good", "total"), [(0, 1), (1, 1), (6, 6), (9, 10), (50, 100)])
def test_the_interval_is_scipys(good, total):
    truth = binomtest(good, total).proportion_ci(method="wilson")
    assert wilson(good, total) == pytest.approx((truth.low, truth.high), abs=1e-6)


def test_a_card_counts_once_and_by_what_most_said():
    votes = [vote(reviewer=name, word=word) for name, word in zip("ABC", ("agree", "agree",
             "disagree"), strict=True)]  # fmt: skip
    votes += [vote(unit="u2", reviewer="A"), vote(unit="u2", reviewer="B", word="disagree")]
    votes += [vote(unit="u3", group="borderline")]
    assert counted(votes).model_dump() == {"agree": 1, "disagree": 0, "unsure": 1}


def test_votes_on_other_verdicts_do_not_count():
    votes = [vote(), vote(unit="u2"), vote(unit="u3"), vote(unit="u4", outcome="kept",
             group="kept", reason="")]  # fmt: skip
    found = reviewed(votes, {"u1": "rejected", "u2": "kept", "u4": "kept"})
    assert found["rejected"].cards == 1
    assert found["kept"].cards == 1


def test_the_last_word_of_a_reviewer_counts(tmp_path):
    log = VoteLog(tmp_path)
    for word in ("agree", "unsure", "disagree"):
        log.add(vote(word=word))
    log.add(vote(reviewer="B"))
    assert sorted((v.reviewer, v.word) for v in log.last()) == [("A", "disagree"), ("B", "agree")]


def test_many_at_once_lose_no_vote_and_a_torn_line_is_dropped(tmp_path):
    logs = [VoteLog(tmp_path) for _ in range(4)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda i: logs[i % 4].add(vote(unit=f"u{i}")), range(100)))
    path = tmp_path / FILE
    path.write_bytes(path.read_bytes() + b'{"run": "r1", "sta')
    assert len(logs[0].last()) == 100
    logs[1].add(vote(unit="after"))
    assert len(logs[2].last()) == 101
    assert all(json.loads(line) for line in path.read_bytes().splitlines())


def test_a_damaged_log_is_an_error(tmp_path):
    (tmp_path / FILE).write_bytes(b"{}\n")
    with pytest.raises(DatasetError, match="line 1"):
        VoteLog(tmp_path).last()


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"null", b"{" * 2000, b"[" * 4000, b'{"word": "maybe"}',
     vote().model_dump_json().replace('"A"', '"  "').encode(),
     vote().model_dump_json().replace('"u1"', '"' + "x" * 201 + '"').encode(),
     vote().model_dump_json().replace('"run"', '"ran"').encode()],
)  # fmt: skip
def test_what_is_no_vote_is_refused(body):
    with pytest.raises(UsageError, match="no vote"):
        read_vote(body)
