"""The vote log: nothing confirmed is lost, nothing strange gets in."""

from __future__ import annotations

import json
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.evaluation.review.paper_round import Mind, answers, clips, on_paper

from reelmill.errors import DatasetError, UsageError
from reelmill.evaluation.review.ballot import (
    MAX_BALLOT_BYTES,
    BallotError,
    RoundClosedError,
    VoteLog,
    read_ballot,
    read_export,
)
from reelmill.evaluation.review.close import close_round
from reelmill.evaluation.review.plan import Mode, Shares, plan
from reelmill.evaluation.review.round import RoundFolder

TRUTH = {"ace": 1.0, "bee": 0.0}
MINDS = {"r1": Mind(), "r2": Mind()}
ROUND, KEY = on_paper(plan(clips(TRUTH, 6), list(MINDS), 0, mode=Mode.BOTH, shares=Shares(2)))
BALLOTS = list(answers(ROUND, KEY, TRUTH, MINDS, 0).values())
PAIR = next(b for b in BALLOTS if "overall" in b.answers)
SCALE = next(b for b in BALLOTS if "overall" not in b.answers)


def sent(ballot, **changes) -> bytes:
    return json.dumps(json.loads(ballot.model_dump_json()) | changes).encode()


def test_ballots_come_back_as_they_went(tmp_path):
    log = VoteLog(tmp_path / "votes.jsonl", ROUND)
    assert log.read() == []
    assert log.add(BALLOTS) == len(BALLOTS)
    assert log.read() == BALLOTS
    assert VoteLog(tmp_path / "votes.jsonl", ROUND).read() == BALLOTS


def test_the_same_ballot_twice_is_kept_once_and_the_last_word_counts(tmp_path):
    log = VoteLog(tmp_path / "votes.jsonl", ROUND)
    assert [log.add([PAIR]), log.add([PAIR]), log.add([PAIR, PAIR])] == [1, 0, 0]
    other = read_ballot(sent(PAIR, answers={"overall": "same"}, at=9.0), ROUND)
    assert VoteLog(log.path, ROUND).add([other]) == 1
    assert log.add([PAIR]) == 1  # what another process wrote is seen
    assert log.add([other, PAIR]) == 0
    assert len(log.read()) == 3
    assert log.last()[PAIR.rater, PAIR.item].said == PAIR.said


@given(cut=st.integers(0, 2000), tail=st.binary(max_size=30))
def test_a_torn_last_line_costs_that_line_alone(tmp_path_factory, cut, tail):
    path = tmp_path_factory.mktemp("torn") / "votes.jsonl"
    log = VoteLog(path, ROUND)
    log.add(BALLOTS[:3])
    whole = path.read_bytes()
    ends = [i + 1 for i, byte in enumerate(whole) if byte == 10]
    kept = whole[: min(cut, len(whole))]
    path.write_bytes(kept + tail.replace(b"\n", b"").replace(b"\r", b""))
    n = sum(end <= len(kept) for end in ends)
    again = VoteLog(path, ROUND)
    assert again.read() == BALLOTS[:n]
    assert again.add([BALLOTS[3]]) == 1
    assert again.read() == [*BALLOTS[:n], BALLOTS[3]]


def test_a_damaged_line_in_the_middle_is_told(tmp_path):
    path = tmp_path / "votes.jsonl"
    log = VoteLog(path, ROUND)
    log.add(BALLOTS[:3])
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + b"{}\n" + lines[2])
    with pytest.raises(DatasetError, match="line 2"):
        VoteLog(path, ROUND).read()


def test_many_threads_lose_and_double_nothing(tmp_path):
    log = VoteLog(tmp_path / "votes.jsonl", ROUND)
    other = VoteLog(tmp_path / "votes.jsonl", ROUND)
    threads = [
        threading.Thread(target=lambda part=part, to=to: [to.add([b]) for b in part])
        for part in (BALLOTS, BALLOTS[::-1], BALLOTS[::2])
        for to in (log, other)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = log.read()
    assert len(found) == len(BALLOTS)
    assert {b.item for b in found} == {b.item for b in BALLOTS}


HOSTILE = {
    "not json": b"\xff\xfe{",
    "a list": b"[]",
    "deep": b"[" * 20_000,
    "huge": b"x" * (MAX_BALLOT_BYTES + 1),
    "another round": sent(PAIR, round="0" * 32),
    "no rater": sent(PAIR, rater="mallory"),
    "a path for a rater": sent(PAIR, rater="../../etc"),
    "an item of nobody": sent(PAIR, item="0" * 32),
    "a strange field": sent(PAIR, admin=True),
    "a strange row": sent(PAIR, answers={"overall": "left", "__proto__": "left"}),
    "no row": sent(PAIR, answers={}),
    "another row": sent(PAIR, answers={"motion_quality": "left"}),
    "a strange choice": sent(PAIR, answers={"overall": "<script>"}),
    "a number for a side": sent(PAIR, answers={"overall": 1}),
    "six": sent(SCALE, answers=dict.fromkeys(SCALE.answers, 6)),
    "zero": sent(SCALE, answers=dict.fromkeys(SCALE.answers, 0)),
    "true": sent(SCALE, answers=dict.fromkeys(SCALE.answers, True)),
    "half": sent(SCALE, answers=dict.fromkeys(SCALE.answers, 3.5)),
    "a word for a score": sent(SCALE, answers=dict.fromkeys(SCALE.answers, "left")),
    "one row left out": sent(SCALE, answers=dict(list(SCALE.answers.items())[1:])),
    "a mark on a pair": sent(PAIR, marks=["clarity"]),
    "a strange mark": sent(SCALE, marks=["everything"]),
    "many marks": sent(SCALE, marks=["clarity"] * 65),
    "a long note": sent(PAIR, note="x" * 2001),
    "a time before time": sent(PAIR, seconds=-1),
    "no time": sent(PAIR).replace(b'"seconds": 5.0', b'"seconds": NaN'),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_ballots_are_refused_with_a_reason(name):
    with pytest.raises(BallotError) as refused:
        read_ballot(HOSTILE[name], ROUND)
    assert len(str(refused.value)) < 500


@given(st.binary(max_size=300))
def test_noise_is_refused(noise):
    with pytest.raises(BallotError):
        read_ballot(noise, ROUND)


def test_exports_are_read_and_told_where_they_are_wrong(tmp_path):
    path = tmp_path / "votes-r1.jsonl"
    path.write_bytes(b"\n".join(sent(b) for b in BALLOTS[:4]))
    assert read_export(path, ROUND) == BALLOTS[:4]
    path.write_bytes(sent(PAIR) + b"\n\n" + HOSTILE["six"] + b"\n")
    with pytest.raises(UsageError, match="line 3"):
        read_export(path, ROUND)
    path.write_bytes(b"\n")
    with pytest.raises(UsageError, match="no vote"):
        read_export(path, ROUND)
    with pytest.raises(UsageError, match="cannot be read"):
        read_export(tmp_path / "none", ROUND)


@pytest.fixture
def folder(tmp_path):
    found = RoundFolder(tmp_path)
    found.write("round.json", ROUND.model_copy(update={"sealed": found.seal(KEY)}))
    return found


def test_a_round_closes_once_when_all_have_voted(folder):
    log = VoteLog(folder.votes, ROUND)
    with pytest.raises(UsageError, match="nobody has voted"):
        close_round(folder, early=True)
    log.add(BALLOTS[:-2])
    with pytest.raises(UsageError, match="r2 2"):
        close_round(folder)
    with pytest.raises(UsageError, match="still open"):
        folder.closing()
    log.add(BALLOTS[-2:])
    closed = close_round(folder)
    assert close_round(folder) == closed == folder.closing()
    assert len(closed.pairs) + len(closed.scales) + len(closed.gold_scales) + len(
        closed.again_scales
    ) == len(BALLOTS)
    assert {v.left for v in closed.pairs} == set(TRUTH)
    assert closed.digests["votes.jsonl"] == folder.digest("votes.jsonl")
    with pytest.raises(RoundClosedError):
        log.add([read_ballot(sent(PAIR, note="late"), ROUND)])


def test_names_are_joined_to_the_side_they_were_shown_on(folder):
    VoteLog(folder.votes, ROUND).add(BALLOTS)
    closed = close_round(folder)
    asked = [(seat.rater, item) for seat in ROUND.seats for item in seat.items if item.paired]
    by_item = {(b.rater, b.item): b for b in BALLOTS}
    assert len(asked) == len(closed.pairs)
    for (rater, item), vote in zip(asked, closed.pairs, strict=True):
        left, right = (KEY.clips[name] for name in item.media)
        assert (vote.rater, vote.left, vote.right) == (rater, left.system, right.system)
        assert vote.choices["overall"] == by_item[rater, item.id].answers["overall"]
        if vote.gold:
            assert (vote.gold == "left") == bool(right.damage)
