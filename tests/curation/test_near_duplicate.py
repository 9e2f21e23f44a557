"""NearDuplicate: edits of one clip are found, other clips are not, and the best one stays."""

from __future__ import annotations

import itertools
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.frames import measured
from tests.media import smooth_noise

from reelmill.curation import near_duplicate
from reelmill.curation.near_duplicate import NearDuplicate, distance, distances
from reelmill.curation.stage import FactTable
from reelmill.curation.video.phash import PHash
from reelmill.datasets.corpus import defects
from reelmill.datasets.media.encode import write_video
from reelmill.datasets.sample import Clip, Kind

pytestmark = pytest.mark.long


def clip(name: str, seconds: float = 4.0) -> Clip:
    asset = f"{name:0<64}"
    return Clip(asset, Kind.VIDEO, 0, round(seconds * 1000), Fraction(1, 1000), 0, 0, 1)


def table(rows) -> FactTable:
    """rows: (clip, hashes, mirrored, pixels, bytes[, inner]), in any order. Four hashes a second.

    The inner pictures' hashes are noise where none are given.
    """
    rows = sorted(rows, key=lambda row: row[0].id)

    def texts(of_row, form="{:016x}") -> np.ndarray:
        hashes = [of_row(i, r) if r[1] is not None else None for i, r in enumerate(rows)]
        each = [None if h is None else "".join(form.format(int(x)) for x in h) for h in hashes]
        return np.array(each, object)

    def inner(i, row) -> np.ndarray:
        return row[5] if len(row) > 5 else random_hashes(10**6 + i, len(row[1]))

    return FactTable(
        [r[0] for r in rows],
        {
            "phash": texts(lambda i, r: r[1]),
            "phash_mirrored": texts(lambda i, r: r[2]),
            "phash_inner": texts(inner),
            "phash_ms": texts(lambda i, r: np.arange(len(r[1])) * 250, "{:06x}"),
            "source_pixels": np.array([r[3] for r in rows], float),
            "source_bytes": np.array([r[4] for r in rows], float),
        },
    )


def random_hashes(seed: int, count: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 2**64, count, dtype=np.uint64)


def flip_bits(hashes: np.ndarray, bits: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    masks = [sum(1 << int(b) for b in rng.choice(64, bits, replace=False)) for _ in hashes]
    return hashes ^ np.array(masks, np.uint64)


def lost(stage: NearDuplicate, facts: FactTable) -> dict[str, str]:
    """Asset names of losers, with the asset that each names."""
    return {
        facts.clips[row].asset.rstrip("0"): no.detail.split()[1].split("_")[0].rstrip("0")
        for row, no in stage.select(facts).items()
    }


def test_threshold_on_both_sides():
    base = random_hashes(1, 8)
    for bits, found in ((10, {"b": "a"}), (11, {})):
        rows = [
            (clip("a"), base, random_hashes(2, 8), 100, 10),
            (clip("b"), flip_bits(base, bits), random_hashes(3, 8), 100, 10),
        ]
        assert lost(NearDuplicate(), table(rows)) == found
    off = NearDuplicate().with_field("max_distance", None)
    assert off.select(table([(clip(n), base, base, 1, 1) for n in "ab"])) == {}


def test_mirrored_copies_are_found_and_said_so():
    base, mirror = random_hashes(1, 8), random_hashes(2, 8)
    facts = table([(clip("a"), base, mirror, 100, 10), (clip("b"), mirror, base, 100, 10)])
    (no,) = NearDuplicate().select(facts).values()
    assert "mirrored" in no.detail
    assert no.reason == "near_duplicate"
    assert no.value == 0


def test_crops_are_found_and_said_so_whichever_is_longer():
    whole, inner = random_hashes(1, 8), random_hashes(2, 8)
    for seconds in (3.0, 5.0):
        rows = [
            (clip("a"), whole, random_hashes(3, 8), 100, 10, inner),
            (clip("b", seconds), flip_bits(inner, 3), random_hashes(4, 8), 100, 10),
        ]
        facts = table(rows)
        ((row, no),) = NearDuplicate().select(facts).items()
        assert facts.clips[row].seconds == min(4.0, seconds)
        assert "cropped" in no.detail
        assert no.value == 3


def test_a_loser_says_which_part_of_the_other_it_shows():
    """12 s at four hashes a second; the copy begins at 5 s of it, after 1 s of its own."""
    long_ = random_hashes(1, 48)
    part = np.concatenate([random_hashes(2, 4), flip_bits(long_[20:36], 2)])
    rows = [
        (clip("a", 12.0), long_, random_hashes(3, 48), 1, 1),
        (clip("b", 5.0), part, random_hashes(4, 20), 1, 1),
    ]
    (no,) = NearDuplicate().select(table(rows)).values()
    assert no.detail.endswith("; its 1.00-4.75 s shows what 5.00-8.75 s there shows")


def test_keep_best_rule():
    base, mirror = random_hashes(1, 8), random_hashes(2, 8)
    rows = {
        "a": (clip("a", 4.0), base, mirror, 100, 10),
        "b": (clip("b", 5.0), base, mirror, 50, 5),
        "c": (clip("c", 5.0), base, mirror, 80, 5),
        "d": (clip("d", 5.0), base, mirror, 80, 9),
        "e": (clip("e", 5.0), base, mirror, 80, 9),
    }
    assert lost(NearDuplicate(), table(rows.values())) == dict.fromkeys("abce", "d")
    for order in itertools.islice(itertools.permutations(rows.values()), 20):
        assert set(lost(NearDuplicate(), table(order))) == set("abce")


def test_a_loser_matches_the_clip_it_names():
    """a ~ b ~ c but a and c differ: b loses to a, and c, which b alone matches, stays."""
    base = random_hashes(1, 8)
    middle = flip_bits(base, 8, seed=1)
    far = flip_bits(middle, 8, seed=2)
    assert distance(base, far) > 10
    rows = [
        (clip("a", 6.0), base, random_hashes(7, 8), 1, 1),
        (clip("b", 5.0), middle, random_hashes(8, 8), 1, 1),
        (clip("c", 4.0), far, random_hashes(9, 8), 1, 1),
    ]
    assert lost(NearDuplicate(), table(rows)) == {"b": "a"}


def test_parts_of_one_asset_are_not_compared_unless_asked():
    base, mirror = random_hashes(1, 8), random_hashes(2, 8)
    parts = [
        Clip("f" * 64, Kind.VIDEO, s, s + 4000, Fraction(1, 1000), 0, s, s + 1) for s in (0, 4000)
    ]
    facts = table([(part, base, mirror, 1, 1) for part in parts])
    assert NearDuplicate().select(facts) == {}
    assert len(NearDuplicate(same_asset=True).select(facts)) == 1


def test_clips_without_hashes_match_nothing():
    facts = table([(clip(n), None, None, 1, 1) for n in "abc"])
    assert NearDuplicate().select(facts) == {}


def test_the_median_bears_a_partial_overlap():
    long_ = random_hashes(1, 24)
    tail = np.concatenate([long_[-6:], random_hashes(5, 4)])
    assert distance(long_, tail) == distance(tail, long_) == 0
    assert distance(long_, np.concatenate([long_[-4:], random_hashes(5, 6)])) > 12


@given(st.integers(0, 10_000), st.integers(1, 6), st.integers(1, 6))
def test_distance_against_plain_python(seed, m, n):
    a, b = random_hashes(seed, m), random_hashes(seed + 1, n)
    short, long_ = (a, b) if m <= n else (b, a)

    def median(x, y):
        return float(np.median([min(bin(int(p) ^ int(q)).count("1") for q in y) for p in x]))

    expected = min(median(a, b), median(b, a)) if m == n else median(short, long_)
    assert distance(a, b) == distance(b, a) == expected
    c = random_hashes(seed + 2, n)
    several = distances([a, b], [b, c, a], np.array([0, 0, 1, 0]), np.array([0, 2, 1, 0]))
    assert several.tolist() == [expected, 0.0, distance(b, c), expected]


@pytest.mark.parametrize("most", [0, 1e12], ids=["multi-index", "close pairs"])
def test_every_search_finds_the_same_losers(monkeypatch, most):
    rows = []
    for i in range(150):
        base, mirror = random_hashes(1000 + i, 10), random_hashes(5000 + i, 10)
        rows.append((clip(f"{i:03d}a", 5.0), base, mirror, 1, 1))
        if i % 3 == 0:
            rows.append((clip(f"{i:03d}b"), flip_bits(base, 6, i), mirror, 1, 1))
    facts = table(rows)
    exact = NearDuplicate().select(facts)
    assert len(exact) == 50
    monkeypatch.setattr(near_duplicate, "EXACT_COMPARISONS", 0)
    monkeypatch.setattr(near_duplicate, "MOST_COMPARISONS", most)
    assert NearDuplicate().select(facts) == exact


def test_edits_of_real_files(tmp_path):
    """Every edit of a clip is found; clips of other content are not."""
    stage, rows, names = PHash(), [], {}

    def add(name, frames, **options):
        path = tmp_path / f"{name}.mp4"
        write_video(path, frames, fps=24, preset="ultrafast", **options)
        phash = measured(stage, path)
        clip_ = Clip(f"{name.encode().hex():0<64}", *_span(phash.whole))
        plain, mirrored, inner = (
            np.frombuffer(bytes.fromhex(phash.facts[k]), ">u8")
            for k in ("phash", "phash_mirrored", "phash_inner")
        )
        pixels, size = phash.facts["source_pixels"], phash.facts["source_bytes"]
        names[clip_.asset] = name
        rows.append((clip_, plain, mirrored, pixels, size, inner))

    for seed in range(3):
        frames = smooth_noise(72, (128, 192), seed=seed, drift=1)
        add(f"{seed}orig", frames, crf=12)
        add(f"{seed}crf", frames, crf=34)
        add(f"{seed}half", defects.resized(frames, 96, 64))
        add(f"{seed}bars", defects.letterboxed(frames, 16))
        add(f"{seed}trim", frames[17:])
        add(f"{seed}crop", frames[:, 6:122, 10:182])
        add(f"{seed}flip", defects.mirrored(frames))
    facts = table(rows)
    rejected = NearDuplicate().select(facts)
    losers = {names[facts.clips[i].asset] for i in rejected}
    assert losers == {n for n in names.values() if not n.endswith("orig")}
    ids = {c.id: names[c.asset] for c in facts.clips}
    for row, no in rejected.items():
        winner = ids[no.detail.split()[1].rstrip(":,")]
        assert winner == f"{names[facts.clips[row].asset][0]}orig"


def _span(whole: Clip):
    return (
        whole.kind,
        whole.start_pts,
        whole.end_pts,
        whole.time_base,
        whole.origin_pts,
        whole.start_frame,
        whole.end_frame,
    )


def test_unknown_embedding_is_refused():
    with pytest.raises(ValueError, match="phash"):
        NearDuplicate(embedding="clip")
