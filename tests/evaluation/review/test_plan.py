"""Who sees what: balance, repeats, gold, and nothing that depends on names."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.evaluation.review.paper_round import clips

from reelmill.errors import UsageError
from reelmill.evaluation.review.plan import APART, LEAST_GOLD, Mode, Shares, plan
from reelmill.evaluation.vote import Choice

RATERS = ["anna", "ben", "cleo", "dan", "eva"]
PLAIN = Shares(each=3, repeats=0, gold=0)


def pair_of(slot) -> frozenset:
    return frozenset(slot.clips)


@given(
    systems=st.integers(2, 4),
    prompts=st.integers(1, 12),
    raters=st.integers(1, 5),
    data=st.data(),
    seed=st.integers(0, 2**32),
)
def test_every_pair_is_seen_by_as_many_raters_as_asked(systems, prompts, raters, data, seed):
    each = data.draw(st.integers(1, raters))
    shown = clips("abcd"[:systems], prompts)
    made = plan(shown, RATERS[:raters], seed, shares=Shares(each))
    seen: Counter = Counter()
    for row in made.slots.values():
        main = [s for s in row if s.gold is None and not s.repeat]
        assert len({pair_of(s) for s in main}) == len(main)
        seen.update(pair_of(s) for s in main)
        again = [s for s in row if s.repeat]
        assert {pair_of(s) for s in again} <= {pair_of(s) for s in main}
        for slot in again:
            (first,) = [s for s in main if pair_of(s) == pair_of(slot)]
            assert first.clips == slot.clips[::-1]
            assert row.index(first) < row.index(slot)
        for slot in row:
            left, right = slot.clips
            assert (left.prompt, left.seed) == (right.prompt, right.seed)
            if slot.gold:
                assert left.whole == right.whole
                assert (slot.gold is Choice.LEFT) == (not left.damage)
    assert set(seen.values()) == {each}
    assert len(seen) == prompts * systems * (systems - 1) // 2


def test_raters_and_pairs_of_systems_are_balanced():
    made = plan(clips("abcd", 20), RATERS, 1, shares=PLAIN)
    loads = [len(row) for row in made.slots.values()]
    assert max(loads) - min(loads) <= 1
    for row in made.slots.values():
        held = Counter(frozenset(c.system for c in slot.clips) for slot in row)
        assert len(held) == 6
        assert max(held.values()) <= 1.6 * min(held.values())
        lefts = Counter(min(c.system for c in s.clips) == s.clips[0].system for s in row)
        assert 0.3 < lefts[True] / len(row) < 0.7


def test_the_seed_alone_decides():
    shown = clips("abc", 5)
    assert plan(shown, RATERS, 7) == plan(shown[::-1], RATERS, 7)
    assert plan(shown, RATERS, 7) != plan(shown, RATERS, 8)
    row = plan(shown, RATERS, 7).slots
    assert row["anna"] != row["ben"]


def test_repeats_come_late_and_gold_on_both_sides():
    made = plan(clips("abc", 20), RATERS, 3, shares=Shares(3, repeats=0.2, gold=0.2))
    for row in made.slots.values():
        main = [s for s in row if s.gold is None and not s.repeat]
        golds = [s for s in row if s.gold]
        again = [s for s in row if s.repeat]
        assert len(again) == -(-len(main) // 5)
        assert len(golds) == max(LEAST_GOLD, len(again))
        sides = Counter(s.gold for s in golds)
        assert abs(sides[Choice.LEFT] - sides[Choice.RIGHT]) <= 1
        for slot in again:
            first = next(i for i, s in enumerate(row) if pair_of(s) == pair_of(slot))
            at = row.index(slot)
            assert at - first > APART or at >= len(row) - len(again)
    damages = {c.damage for c in made.clips if c.damage}
    assert len(damages) >= 5


def test_only_clips_with_sound_get_damage_that_is_heard():
    shown = clips("ab", 40)
    loud = set(shown[::2])
    made = plan(shown, RATERS, 5, shares=Shares(1, gold=1.0), with_sound=loud)
    heard = {"drop-outs", "sound noise", "clipping"}
    spoiled = [c for c in made.clips if c.damage in heard]
    assert spoiled
    assert {c.whole for c in spoiled} <= loud


def test_clips_that_may_not_be_damaged_are_not():
    shown = clips("ab", 6)
    made = plan(shown, RATERS, 5, shares=Shares(1, gold=1.0), damageable=shown[:2])
    assert {c.whole for c in made.clips if c.damage} == set(shown[:2])


def test_a_damaged_clip_is_scored_by_who_scores_its_whole_self():
    made = plan(clips("ab", 20), RATERS, 2, mode=Mode.SCALES, shares=Shares(2, gold=0.3))
    for row in made.slots.values():
        alone = {s.clips[0] for s in row}
        assert {c.whole for c in alone if c.damage} <= alone
        assert any(c.damage for c in alone)
        assert all(not s.paired for s in row)


def test_what_makes_no_round_is_told():
    shown = clips("ab", 3)
    with pytest.raises(UsageError, match="no two systems"):
        plan([replace(c, prompt=c.system) for c in shown], RATERS, 0)
    with pytest.raises(UsageError, match="as many raters, and there are 2"):
        plan(shown, ["x", "y"], 0, shares=Shares(3))
    with pytest.raises(UsageError, match="twice"):
        plan(shown, ["x", "X"], 0, shares=Shares(1))
    with pytest.raises(UsageError, match="at least one rater"):
        plan(shown, [], 0)
    with pytest.raises(UsageError, match="from 0 to 1"):
        plan(shown, ["x"], 0, shares=Shares(1, gold=2))
