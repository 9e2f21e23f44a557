"""Joined sound: nothing is lost, and every sample is found again in its source."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.media import read_plain

from reelmill.datasets.index import ShardIndex
from reelmill.datasets.joining import JoinOptions, join_again, join_shards, pack
from reelmill.datasets.media.encode import write_audio
from reelmill.datasets.shards import ShardSample, write_shards
from reelmill.errors import DatasetError, UsageError

RATE = 8000


@given(st.lists(st.integers(1, 40), max_size=40), st.integers(1, 60))
def test_each_is_packed_once_and_no_bin_is_too_full(lengths, most):
    bins = pack(lengths, most)
    assert sorted(place for places in bins for place in places) == list(range(len(lengths)))
    for places in bins:
        assert places == sorted(places)
        assert len(places) == 1 or sum(lengths[i] for i in places) <= most
    fits = [places for places in bins if sum(lengths[i] for i in places) <= most]
    half_empty = [p for p in fits if 2 * sum(lengths[i] for i in p) <= most]
    assert len(half_empty) <= 1  # else two of them would be one


@given(st.lists(st.integers(1, 40), max_size=60), st.integers(1, 60))
def test_each_goes_to_the_first_list_with_room(lengths, most):
    """Against the plain way, that looks through all of them."""
    bins: list[list[int]] = []
    for place in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        for places in bins:
            if sum(lengths[i] for i in places) + lengths[place] <= most:
                places.append(place)
                break
        else:
            bins.append([place])
    assert pack(lengths, most) == sorted(sorted(places) for places in bins)


@pytest.fixture
def shards(tmp_path):
    """(folder, sound of each source): clips of three sources, several classes and rates."""
    rng = np.random.default_rng(0)
    sources = {name: rng.integers(-9000, 9000, (1, 40 * RATE), np.int16) for name in "abc"}
    samples = []
    spans = [  # source, start, seconds, class, rate
        ("a", 0.0, 6.0, "speech", RATE),
        ("a", 6.0, 4.0, "speech", RATE),
        ("b", 1.125, 5.0, "speech", RATE),
        ("b", 9.0, 3.0, "music", RATE),
        ("c", 0.5, 15.0, "speech", RATE),
        ("c", 20.0, 2.0, "music", RATE),
        ("c", 30.0, 1.0, None, RATE),
        ("c", 32.0, 1.0, None, RATE),
        ("a", 2.0, 2.0, "speech", 16_000),
    ]
    for name, start, seconds, kind, rate in spans:
        first = round(start * rate)
        sound = sources[name][:, first : first + round(seconds * rate)]
        path = tmp_path / "x.flac"
        write_audio(path, sound, rate, codec="flac")
        digest = hashlib.sha256(name.encode()).hexdigest()[:16]
        key = f"{digest}_{round(start * 1e6)}_{round((start + seconds) * 1e6)}_{rate}"
        cut = {"sample_rate": rate, "channels": 1, "samples": sound.shape[1], "seconds": seconds}
        record = {
            "id": key,
            "kind": "audio",
            "asset": name,
            "file": f"{name}.wav",
            "start_us": round(start * 1e6),
            "facts": {"sound_class": kind if kind else {"no_value": "not measured"}},
            "cut": cut,
        }
        samples.append(ShardSample(key, ".flac", path.read_bytes(), record, f"of {name}"))
    samples.sort(key=lambda sample: sample.key)
    write_shards(samples, tmp_path / "in", prefix="audio", max_samples=3, max_bytes=1 << 30)
    return tmp_path / "in", sources


def decoded(data: bytes, path) -> np.ndarray:
    path.write_bytes(data)
    return np.rint(read_plain(path).samples * 32768).astype(np.int16)


def test_every_sample_leads_back_to_its_source(tmp_path, shards):
    folder, sources = shards
    result = join_shards(folder, tmp_path / "out")
    assert (result.clips, result.joined, result.parts, result.alone) == (9, 2, 5, 4)
    assert result.longest == 15.0
    with ShardIndex.read(folder) as before, ShardIndex.read(tmp_path / "out") as after:
        seen = []
        for key in after.keys:
            members = after.sample(key)
            record = json.loads(members["json"])
            if "joined" not in record:
                assert members == before.sample(key)
                seen.append(key)
                continue
            sound = decoded(members["flac"], tmp_path / "x.flac")
            assert sound.shape[1] == record["cut"]["samples"] <= 15 * RATE
            assert record["cut"]["sha256"] == hashlib.sha256(members["flac"]).hexdigest()
            assert record["joined"][0]["first"] == 0
            assert record["joined"][-1]["last"] == sound.shape[1]
            ends = [part["last"] for part in record["joined"][:-1]]
            assert ends == [part["first"] for part in record["joined"][1:]]
            for part in record["joined"]:
                seen.append(part["clip"])
                source = sources[part["asset"]][:, part["source_first"] : part["source_last"]]
                assert np.array_equal(sound[:, part["first"] : part["last"]], source)
                assert part["facts"]["sound_class"] == record["facts"]["sound_class"]
            assert members["txt"].decode().count("of ") == len(record["joined"])
        assert sorted(seen) == sorted(before.keys)


def test_the_same_shards_give_the_same_bytes(tmp_path, shards):
    for name in ("one", "two"):
        join_shards(shards[0], tmp_path / name)
    one, two = ({p.name: p.read_bytes() for p in (tmp_path / n).iterdir()} for n in ("one", "two"))
    assert one == two


def test_the_bound_is_kept_to_the_sample(tmp_path, shards):
    at = join_shards(shards[0], tmp_path / "at", JoinOptions(15.0))
    below = join_shards(shards[0], tmp_path / "below", JoinOptions(15.0 - 1 / RATE))
    assert (at.joined, at.parts) == (2, 5)  # 6 + 4 + 5 s fill 15 s; 15 s alone
    assert (below.joined, below.parts) == (2, 4)
    assert below.longest == 15.0  # what is longer to begin with stays whole


def test_what_cannot_be_joined_is_refused(tmp_path, shards):
    with pytest.raises(UsageError, match="another folder"):
        join_shards(shards[0], shards[0])
    with pytest.raises(UsageError, match="max-seconds"):
        join_shards(shards[0], tmp_path / "out", JoinOptions(float("nan")))
    broken = ShardSample("a", ".flac", b"fLaC", {"kind": "audio", "cut": {}, "facts": {}})
    write_shards([broken], tmp_path / "bad", prefix="audio", max_samples=9, max_bytes=9999)
    with pytest.raises(DatasetError, match="damaged"):
        join_shards(tmp_path / "bad", tmp_path / "out")
    still = ShardSample("a", ".jpg", b"x", {"kind": "image"})
    write_shards([still], tmp_path / "stills", prefix="image", max_samples=9, max_bytes=9999)
    with pytest.raises(DatasetError, match="no clips of sound"):
        join_shards(tmp_path / "stills", tmp_path / "out")


def test_joined_again_without_a_clip_only_what_held_it_is_made(tmp_path, shards):
    folder, _ = shards
    first = join_shards(folder, tmp_path / "out")
    assert first.made == first.joined == 2
    with ShardIndex.read(folder) as index:
        samples = [(key, index.sample(key)) for key in sorted(index.keys)]
    music = next(
        key for key, m in samples if json.loads(m["json"])["facts"]["sound_class"] == "music"
    )
    rest = [
        ShardSample(key, ".flac", m["flac"], json.loads(m["json"]), m["txt"].decode())
        for key, m in samples
        if key != music
    ]
    write_shards(rest, folder, prefix="audio", max_samples=3, max_bytes=1 << 30)
    second = join_again(tmp_path / "out", folder)
    assert (second.clips, second.joined, second.made) == (8, 1, 0)
    join_shards(folder, tmp_path / "fresh")
    one, two = (
        {p.name: p.read_bytes() for p in (tmp_path / n).iterdir()} for n in ("out", "fresh")
    )
    assert one == two
