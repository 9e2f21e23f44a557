"""Manifests that users give: their own columns, and places that must not be read."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from reelmill.datasets.ingest.find import find_sources
from reelmill.datasets.ingest.remote import Rules
from reelmill.datasets.ingest.table import read_rows
from reelmill.datasets.workspace import open_workspace
from reelmill.errors import SourceError


@pytest.fixture
def media(tmp_path) -> Path:
    folder = tmp_path / "media"
    (folder / "sub").mkdir(parents=True)
    for name in ("a.mp4", "sub/b c.mp4"):
        (folder / name).write_bytes(name.encode())
    return folder


def test_csv_tsv_and_parquet_carry_their_columns_as_they_are(media):
    rows = {"path": ["a.mp4", "sub/b c.mp4"], "licence": ["CC-BY", 'so "called", yes']}
    (media / "m.csv").write_text('path,licence\na.mp4,CC-BY\nsub/b c.mp4,"so ""called"", yes"\n')
    (media / "m.tsv").write_text('path\tlicence\na.mp4\tCC-BY\nsub/b c.mp4\t"so ""called"", yes"\n')
    pq.write_table(pa.table(rows), media / "m.parquet")
    read = [read_rows(media / f"m.{s}", Rules()) for s in ("csv", "tsv", "parquet")]
    assert read[0] == read[1] == read[2]
    assert [row.columns["licence"] for row in read[0]] == rows["licence"]
    assert [Path(row.place).name for row in read[0]] == ["a.mp4", "b c.mp4"]


def test_numbers_and_truth_of_parquet_stay_what_they_are(media):
    table = pa.table({"path": ["a.mp4"], "year": [1999], "ok": [True], "x": [float("nan")]})
    pq.write_table(table, media / "m.parquet")
    (row,) = read_rows(media / "m.parquet", Rules())
    assert row.columns == {"year": 1999, "ok": True, "x": None}


def test_equal_bytes_in_two_rows_keep_both_rows(media, tmp_path):
    (media / "copy.mp4").write_bytes((media / "a.mp4").read_bytes())
    (media / "m.csv").write_text("licence,path\nCC0,copy.mp4\nCC-BY,a.mp4\nCC-BY,./a.mp4\n")
    found = find_sources([str(media / "m.csv")], skip=None, rules=Rules())
    (asset,) = found.manifest(open_workspace(tmp_path / "w")).assets
    assert json.loads(asset.columns) == [{"licence": "CC-BY"}, {"licence": "CC0"}]


def test_files_of_a_folder_have_no_columns(media, tmp_path):
    found = find_sources([str(media)], skip=None, rules=Rules())
    assert {a.columns for a in found.manifest(open_workspace(tmp_path / "w")).assets} == {""}


@pytest.mark.parametrize(
    "place",
    ["../secret.mp4", "/etc/hostname", "link.mp4", "sub/../../secret.mp4", "file:///etc/hostname",
     "memory://x", "ssh://h/x", "gone.mp4", "sub", "", "a\x00b", "x" * 6000, "http://h/::file://x"],
)  # fmt: skip
def test_no_row_leads_out_of_the_manifests_folder(media, place):
    (media.parent / "secret.mp4").write_bytes(b"secret")
    (media / "link.mp4").symlink_to(media.parent / "secret.mp4")
    pq.write_table(pa.table({"path": ["a.mp4", place]}), media / "m.parquet")
    with pytest.raises(SourceError, match="row 2"):
        read_rows(media / "m.parquet", Rules())


def test_a_folder_that_the_user_allows_may_be_named(media):
    other = media.parent / "other"
    other.mkdir()
    (other / "c.mp4").write_bytes(b"c")
    (media / "m.csv").write_text(f"path\n{other / 'c.mp4'}\n../other/c.mp4\n")
    with pytest.raises(SourceError, match="--root"):
        read_rows(media / "m.csv", Rules())
    assert len(read_rows(media / "m.csv", Rules(roots=(str(other),)))) == 2


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("name\na.mp4\n", "one column 'path' or 'url'"),
        ("path,url\na.mp4,http://h/x\n", "one column 'path' or 'url'"),
        ("path,x,x\na.mp4,1,2\n", "names of their own"),
        ("path,x\na.mp4\n", "1 cells under 2 names"),
        ("path\n", "has no row"),
        ("", "one column"),
        ('path\n"a.mp4\n', "cannot be read"),
        ("path,x\na.mp4," + "y" * 9000 + "\n", "more than 8192"),
    ],
)
def test_a_manifest_that_is_none_is_told_in_words(media, text, told):
    (media / "m.csv").write_text(text)
    with pytest.raises(SourceError, match=told):
        find_sources([str(media / "m.csv")], skip=None, rules=Rules())


def test_nested_values_and_bytes_are_refused(media):
    for values in ([{"a": 1}], [[1]], [b"x"]):
        pq.write_table(pa.table({"path": ["a.mp4"], "x": values}), media / "m.parquet")
        with pytest.raises(SourceError, match="column 'x'"):
            read_rows(media / "m.parquet", Rules())


@pytest.mark.parametrize("data", [b"", b"PAR1", b"\xff\xfe\x00path", b"path\n\xff\n"])
def test_broken_manifests_are_source_errors(media, data):
    for suffix in ("csv", "parquet"):
        (media / f"m.{suffix}").write_bytes(data)
        with pytest.raises(SourceError):
            read_rows(media / f"m.{suffix}", Rules())
