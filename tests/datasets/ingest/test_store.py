"""Object stores: against a real S3 server process on loopback."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import s3fs
from tests.s3_server import point_to, s3_server

from reelmill.datasets.ingest.find import find_sources, with_captions
from reelmill.datasets.ingest.outcome import Refused
from reelmill.datasets.ingest.remote import Remote, Rules
from reelmill.datasets.ingest.select import Selection, choose
from reelmill.datasets.ingest.store import RANGE, list_store, open_store, read_object
from reelmill.datasets.workspace import open_workspace
from reelmill.errors import SourceError

RULES = Rules(attempts=4, backoff=0.001, patience=5.0)


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with s3_server() as address:
        yield address


@pytest.fixture
def bucket(server, monkeypatch) -> Iterator[s3fs.S3FileSystem]:
    """A bucket with a few objects; credentials and place come from the environment, as a user's."""
    point_to(server, monkeypatch)
    s3fs.S3FileSystem.clear_instance_cache()
    store = s3fs.S3FileSystem(use_listings_cache=False)
    store.mkdir("footage")
    for name, data in OBJECTS.items():
        store.pipe_file(f"footage/{name}", data)
    yield store
    store.rm("footage", recursive=True)
    s3fs.S3FileSystem.clear_instance_cache()


OBJECTS = {
    "a/one.mp4": b"one" * 1000,
    "a/one.txt": b"a red ball",
    "a/two.mp4": os.urandom(RANGE + 12345),
    "b/three.flac": b"three",
    "b/.hidden": b"no",
    "b/empty.wav": b"",
}


def names(url: str) -> list[str]:
    return [remote.name for remote in with_captions(list_store(url, RULES))]


def test_prefixes_patterns_and_single_objects_are_listed(bucket):
    assert names("s3://footage/a") == ["s3://footage/a/one.mp4", "s3://footage/a/two.mp4"]
    assert names("s3://footage/*/t*") == ["s3://footage/a/two.mp4", "s3://footage/b/three.flac"]
    assert names("s3://footage/a/two.mp4") == ["s3://footage/a/two.mp4"]
    assert len(names("s3://footage")) == 4


def test_a_backfill_chooses_objects_by_location_and_day(bucket, tmp_path):
    found = find_sources(["s3://footage"], skip=None, rules=RULES)
    today = datetime.now(UTC).date()
    days = {remote.written for remote in found.remotes}
    assert days <= {today, today - timedelta(days=1)}  # midnight may pass
    for selection, fits in (
        (Selection(("s3://footage/a/",)), ["a/one.mp4", "a/two.mp4"]),
        (Selection(("s3://footage/*/t*",)), ["a/two.mp4", "b/three.flac"]),
        (Selection(("s3://footage/b",), min(days), today), ["b/empty.wav", "b/three.flac"]),
    ):
        made = choose(found, selection, tmp_path, RULES)
        assert [r.name for r in made.found.remotes] == [f"s3://footage/{name}" for name in fits]
        assert (made.waiting, made.undated) == (2, 0)
    with pytest.raises(SourceError, match="none of 4 files"):
        choose(found, Selection((), today + timedelta(days=1)), tmp_path, RULES)


def test_what_is_not_there_is_a_source_error_that_names_it(bucket):
    with pytest.raises(SourceError, match="s3://nowhere"):
        list_store("s3://nowhere/x", RULES, pause=lambda s: None)
    with pytest.raises(SourceError, match="s3://footage/zzz"):
        list_store("s3://footage/zzz", RULES, pause=lambda s: None)


def test_objects_come_with_their_bytes_and_captions_and_once(bucket, tmp_path):
    place = open_workspace(tmp_path / "w")
    found = find_sources(["s3://footage"], skip=None, rules=RULES)
    assert found.fetch(place, lambda n: None) == 5  # a caption among them
    made = found.manifest(place)
    digests = {asset.name: asset.sha256 for asset in made.assets}
    media = {n: d for n, d in OBJECTS.items() if not n.endswith((".txt", ".hidden"))}
    assert digests == {f"s3://footage/{n}": hashlib.sha256(d).hexdigest() for n, d in media.items()}
    (one,) = [asset for asset in made.assets if asset.name.endswith("one.mp4")]
    assert Path(one.caption).read_text() == "a red ball"
    again = find_sources(["s3://footage"], skip=None, rules=RULES)
    assert again.fetch(place, lambda n: None) == 0
    bucket.pipe_file("footage/b/three.flac", b"changed")
    changed = find_sources(["s3://footage"], skip=None, rules=RULES)
    assert changed.fetch(place, lambda n: None) == 1


class _Flaky:
    """A store of which every n-th call fails."""

    def __init__(self, store: s3fs.S3FileSystem, every: int):
        self.store, self.every, self.calls = store, every, 0

    def __getattr__(self, name: str):
        real = getattr(self.store, name)

        def call(*args, **more):
            self.calls += 1
            if self.calls % self.every == 0:
                raise OSError(5, "Reduce your request rate. (SlowDown)")
            return real(*args, **more)

        return call


def test_all_objects_come_from_a_store_that_fails_every_third_call(bucket, tmp_path, monkeypatch):
    import reelmill.datasets.ingest.fetch as fetching
    import reelmill.datasets.ingest.find as finding
    import reelmill.datasets.ingest.store as storing

    flaky = _Flaky(bucket, 3)
    for module in (fetching, storing):
        monkeypatch.setattr(module, "open_store", lambda scheme, rules: flaky)
    place = open_workspace(tmp_path / "w")
    rules = replace(RULES, attempts=12)
    found = finding.find_sources(["s3://footage"], skip=None, rules=rules)
    found.fetch(place, lambda n: None)
    made = found.manifest(place)
    assert not made.unreadable
    assert {a.name: a.bytes for a in made.assets} == {
        f"s3://footage/{n}": len(d)
        for n, d in OBJECTS.items()
        if not n.endswith((".txt", ".hidden"))
    }
    assert flaky.calls > 15


def test_what_is_too_large_or_gone_or_short_is_told_apart(bucket):
    store = open_store("s3", RULES)
    two = Remote("two", "s3://footage/a/two.mp4")
    with pytest.raises(Refused, match="more than the 1000 allowed"):
        read_object(store, two, replace(RULES, max_bytes=1000), lambda d: None)
    with pytest.raises(Refused, match="FileNotFound"):
        read_object(store, Remote("x", "s3://footage/x"), RULES, lambda d: None)

    class Short:
        def __getattr__(self, name):
            return getattr(store, name)

        def cat_file(self, *args, **more):
            return store.cat_file(*args, **more)[:-1]

    with pytest.raises(Refused, match=r"bytes came of .*4 attempts"):
        read_object(Short(), two, RULES, lambda d: None)


def test_a_store_that_does_not_answer_is_a_source_error_without_secrets(monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://user:hunter2@127.0.0.1:1/?sig=SECRET")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(SourceError, match="attempts") as told:
        list_store("s3://footage/a", replace(RULES, attempts=2), pause=lambda s: None)
    assert "hunter2" not in str(told.value)
    assert "SECRET" not in str(told.value)
    s3fs.S3FileSystem.clear_instance_cache()
