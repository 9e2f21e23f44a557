"""Mutated manifests and memories of fetched files: the data, or one of our errors."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.mutations import allowed, damaged

from reelmill.datasets.ingest.cache import Cache, Record
from reelmill.datasets.ingest.remote import Rules, check_location, shown, unsecret
from reelmill.datasets.ingest.table import read_rows
from reelmill.datasets.workspace import open_workspace

EXAMPLES = [60, pytest.param(3000, marks=[pytest.mark.slow, pytest.mark.timeout(1800)])]
FUZZ = {"suppress_health_check": list(HealthCheck), "deadline": None}


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
@pytest.mark.parametrize("examples", EXAMPLES)
def test_manifests(tmp_path, suffix, examples):
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "a.mp4").write_bytes(b"a")
    (tmp_path / "b.mp4").write_bytes(b"b")
    path = folder / f"m.{suffix}"
    rows = {"path": ["a.mp4", "https://h/x?y=z"], "licence": ["CC-BY", 'a "b", c']}
    if suffix == "parquet":
        pq.write_table(pa.table(rows), path)
    else:
        path.write_text('path,licence\na.mp4,CC-BY\nhttps://h/x?y=z,"a ""b"", c"\n')
    whole = path.read_bytes()

    def read() -> None:
        for row in read_rows(path, Rules()):
            local = "://" not in row.place
            assert not local or Path(row.place).resolve().is_relative_to(folder)

    @settings(max_examples=examples, **FUZZ)
    @given(damaged(whole))
    def each(data: bytes) -> None:
        path.write_bytes(data)
        allowed(read)

    each()


@pytest.mark.parametrize("examples", EXAMPLES)
def test_memories_of_fetched_files(tmp_path, examples):
    place = open_workspace(tmp_path / "w")
    cache = Cache(place, 1)
    digest = "ab" * 32
    cache.records["k" * 64] = Record(digest, f"ab/{digest}.mp4", "if-none-match x")
    cache.save()
    path = place.manifest / "fetched.parquet"
    whole = path.read_bytes()
    inside = (place.root / "fetched").resolve()

    @settings(max_examples=examples, **FUZZ)
    @given(damaged(whole))
    def each(data: bytes) -> None:
        path.write_bytes(data)
        for record in Cache(place, 1).records.values():
            assert (inside / record.file).resolve().is_relative_to(inside)

    each()


@given(st.text(max_size=60), st.sampled_from(["http://", "https://", "s3://", "file://", ""]))
def test_any_text_can_be_shown_and_checked(text, scheme):
    location = scheme + text
    name = shown(location)
    assert unsecret(name) is not None
    if scheme:
        allowed(lambda: check_location(location, Rules(), "here"))


@given(st.text("abcXYZ019", min_size=12, max_size=20), st.sampled_from(["http", "https", "s3"]))
def test_no_secret_is_shown(secret, scheme):
    location = f"{scheme}://user:{secret}@host/path.mp4?sig={secret}&x=1"
    assert secret not in shown(location)
    assert secret not in unsecret(f"could not read '{location}' at once")
