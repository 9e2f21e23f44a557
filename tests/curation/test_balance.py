"""Balance: exact quota arithmetic, the same answer in any order, off by default."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reelmill.curation import quota
from reelmill.curation.balance import Balance
from reelmill.curation.stage import FactTable
from reelmill.datasets.sample import Clip, Kind

LOOKS = [(40, 20, -30, 10), (120, 50, 20, -40), (200, 35, 0, 60)]


def table(sizes, *, order=None, motion=None) -> FactTable:
    """Clips of len(sizes) clearly different looks."""
    rng = np.random.default_rng(0)
    rows = []
    for look, size in enumerate(sizes):
        for _ in range(size):
            name = f"{len(rows):04d}".encode().hex()
            values = np.array(LOOKS[look]) + rng.normal(0, 1, 4)
            rows.append((f"{name:0<64}", look, values))
    rows = [rows[i] for i in order] if order is not None else rows
    rows.sort(key=lambda row: row[0])
    clips = [Clip(r[0], Kind.VIDEO, 0, 4000, Fraction(1, 1000), 0, 0, 96) for r in rows]
    values = np.array([r[2] for r in rows])
    columns = dict(zip(("luma", "contrast", "red_green", "yellow_blue"), values.T, strict=True))
    if motion is not None:
        columns["motion"] = np.full(len(rows), motion)
    columns["look"] = np.array([r[1] for r in rows])
    return FactTable(clips, columns)


def balance(share, clusters=3, **fields) -> Balance:
    stage = Balance(**fields).with_field("max_share", share)
    return stage.with_field("clusters", clusters)


def kept(stage, facts) -> list[int]:
    """How many clips of each look stay."""
    out = stage.select(facts)
    left = [i for i in range(len(facts)) if i not in out]
    return np.bincount(facts["look"][left], minlength=3).tolist()


def test_off_by_default():
    assert Balance().select(table((90, 5, 5))) == {}


@pytest.mark.parametrize(
    ("sizes", "share", "expected"),
    [
        ((60, 20, 20), 0.5, [40, 20, 20]),
        ((60, 20, 20), 0.6, [60, 20, 20]),
        ((60, 20, 10), 0.4, [20, 20, 10]),
        ((30, 30, 30), 1 / 3, [30, 30, 30]),
        ((80, 15, 5), 0.2, [5, 5, 5]),  # cannot be had of three: equal is the best there is
    ],
)
def test_quota_arithmetic(sizes, share, expected):
    assert kept(balance(share), table(sizes)) == expected


def test_says_what_was_asked_and_achieved():
    out = balance(0.2).select(table((80, 15, 5)))
    assert {no.reason for no in out.values()} == {"over_quota"}
    detail = next(iter(out.values())).detail
    assert "0.2 requested" in detail
    assert "0.333 achieved" in detail


def test_order_and_chance():
    straight = table((60, 20, 20))
    shuffled = table((60, 20, 20), order=np.random.default_rng(1).permutation(100))
    out = {straight.clips[i].id for i in balance(0.5).select(straight)}
    assert out == {shuffled.clips[i].id for i in balance(0.5).select(shuffled)}
    assert out != {straight.clips[i].id for i in balance(0.5, seed=1).select(straight)}


def test_clusters_are_the_planted_looks():
    facts = table((40, 30, 30), motion=0.1)
    labels = balance(0.5).labels(facts)
    assert len({(a, b) for a, b in zip(labels, facts["look"], strict=True)}) == 3


def test_clips_without_descriptors_stay_together():
    facts = table((10, 10, 10))
    columns = dict(facts.columns)
    columns["luma"] = np.where(np.arange(30) < 4, np.nan, columns["luma"])
    stage = balance(0.5)
    labels = stage.labels(FactTable(facts.clips, columns))
    assert set(labels[:4]) == {0}
    assert stage.select(FactTable(facts.clips[:1], {k: v[:1] for k, v in columns.items()})) == {}


@given(
    st.lists(st.integers(1, 60), min_size=1, max_size=8),
    st.floats(0.05, 1.0),
)
def test_quota_is_the_largest_that_keeps_the_share(sizes, share):
    sizes = np.array(sizes)
    most = quota.common_size(sizes, share)

    def holds(cap):
        left = np.minimum(sizes, cap)
        return left.max() <= share * left.sum() + 1e-9

    caps = [c for c in range(int(sizes.min()), int(sizes.max()) + 1) if holds(c)]
    assert most == (max(caps) if caps else sizes.min())


def test_inverse_sqrt_by_hand():
    """Roots 10, 5, 2 of the sizes: the small group gives all that it has."""
    stage = Balance(quota="inverse_sqrt")
    stage = stage.with_field("clusters", 3)
    facts = table([100, 25, 4])
    assert kept(stage, facts) == [20, 10, 4]
    assert kept(stage.with_field("total", 17), facts) == [10, 5, 2]


def test_proportional_keeps_the_shares():
    stage = Balance(quota="proportional").with_field("clusters", 3)
    facts = table([60, 30, 10])
    assert kept(stage, facts) == [60, 30, 10]
    assert kept(stage.with_field("total", 50), facts) == [30, 15, 5]


def test_a_quota_that_cannot_be_had_is_said_and_not_filled_up():
    stage = Balance(quota="inverse_sqrt").with_field("clusters", 3).with_field("total", 51)
    out = stage.select(facts := table([100, 25, 4]))
    assert kept(stage, facts) == [30, 15, 4]
    (said,) = {no.detail.partition("; ")[2] for no in out.values()}
    assert said.startswith("51 clips requested in all, 49 achieved; short: ")
    assert "has 4 of 6" in said


def test_explicit_quotas_by_the_camera():
    facts = table([40, 20, 10])
    moves = ["static" if i % 4 else "pan_left" for i in range(70)]
    facts.columns["camera"] = np.array(moves, object)
    wanted = ("pan_left=6", "zoom_in=9")
    stage = Balance(quota="explicit", wanted=wanted, motion_types=True).with_field("clusters", 3)
    out = stage.select(facts)
    left = [moves[i] for i in range(70) if i not in out]
    assert (left.count("pan_left"), left.count("static")) == (6, 52)
    assert all("zoom_in has none" in no.detail for no in out.values())
    assert {no.bound.split(" ", 1)[1].split(":")[0] for no in out.values()} == {"pan_left"}


@given(
    st.lists(st.integers(1, 400), min_size=1, max_size=8),
    st.sampled_from(["proportional", "inverse_sqrt"]),
    st.none() | st.integers(0, 900),
)
def test_shares_add_up_and_follow_the_weights(sizes, way, total):
    sizes = np.array(sizes)
    found = quota.shared(sizes, way, total)
    weights = np.sqrt(sizes) if way == "inverse_sqrt" else sizes
    if total is None:
        assert not len(found.short)
    else:
        assert found.asked.sum() == total
    exact = found.asked.sum() * weights / weights.sum()
    assert np.abs(found.asked - exact).max() < 1 + 1e-6
    assert (found.kept <= sizes).all()


@pytest.mark.parametrize("wanted", ["static", "=3", "static=-1", "static=x"])
def test_a_senseless_quota_is_refused(wanted):
    with pytest.raises(ValueError, match="name=count"):
        Balance(quota="explicit", wanted=(wanted,))


def test_unknown_way_is_refused():
    with pytest.raises(ValueError, match="inverse_sqrt"):
        Balance(quota="fair")
