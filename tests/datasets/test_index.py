"""The row index: every byte is checked, nothing outside the set is read."""

from __future__ import annotations

import hashlib
import json
import random
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from reelmill.datasets.index import MANIFEST, ShardIndex, read_manifest
from reelmill.datasets.shards import ShardSample, write_shards
from reelmill.datasets.workspace import table_bytes
from reelmill.errors import DatasetError


def make(folder, count=7):
    samples = [
        ShardSample(
            key=f"clip{n:03d}",
            suffix=".flac",
            media=random.Random(n).randbytes(1000 + n),
            record={"kind": "audio", "cut": {"seconds": n / 2}, "tags": ["speech"]},
            caption=f"caption {n}",
        )
        for n in range(count)
    ]
    write_shards(samples, folder, prefix="audio", max_samples=3, max_bytes=1 << 30)
    return samples


def resigned(folder, change):
    """Rewrites index and manifest so that both are consistent, as an attacker would."""
    manifest = json.loads((folder / MANIFEST).read_text())
    table = change(pq.read_table(folder / manifest["index"]))
    data = table_bytes(table)
    manifest["index_sha256"] = hashlib.sha256(data).hexdigest()
    manifest["index"] = f"index-{manifest['index_sha256'][:12]}.parquet"
    (folder / manifest["index"]).write_bytes(data)
    (folder / MANIFEST).write_text(json.dumps(manifest))


def with_column(table, name, value):
    at = table.schema.get_field_index(name)
    return table.set_column(at, name, pa.array([value] * len(table), table.schema.field(name).type))


def test_every_sample_comes_back_in_any_order(tmp_path):
    samples = make(tmp_path)
    with ShardIndex.read(tmp_path) as index:
        assert index.keys == [s.key for s in samples]
        for sample in reversed(samples):
            found = index.sample(sample.key)
            assert list(found) == ["flac", "json", "txt"]
            assert found["flac"] == sample.media
            assert json.loads(found["json"]) == sample.record
            assert found["txt"].decode() == sample.caption
        assert index.rows["seconds"].to_pylist()[-1] == 3.0
        assert index.rows["tags"].to_pylist()[0] == ["speech"]


def test_threads_may_share_an_index(tmp_path):
    samples = make(tmp_path, 30)
    with ShardIndex.read(tmp_path) as index, ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda s: index.sample(s.key)["flac"], samples * 5))
    assert found == [s.media for s in samples] * 5


def test_one_flipped_byte_is_named(tmp_path):
    make(tmp_path)
    index = ShardIndex.read(tmp_path)
    row = 6
    shard, offset = index.rows["shard"][row].as_py(), index.rows["offset"][row].as_py()
    data = bytearray((tmp_path / shard).read_bytes())
    data[offset + 5] ^= 1
    (tmp_path / shard).write_bytes(bytes(data))
    with pytest.raises(DatasetError, match=rf"{shard}, sample clip002, member flac.*damaged"):
        index.sample("clip002")
    assert index.sample("clip001")


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("offset", 1 << 50),
        ("offset", -1),
        ("size", -5),
        ("size", 1 << 60),
        ("shard", "../../etc/passwd"),
        ("shard", "/etc/passwd"),
    ],
)
def test_an_index_that_points_elsewhere_is_refused(tmp_path, column, value):
    make(tmp_path)
    resigned(tmp_path, lambda table: with_column(table, column, value))
    with pytest.raises(DatasetError, match="outside the shard"):
        ShardIndex.read(tmp_path).read_member(0)


def test_a_shard_swapped_for_a_link_is_not_followed(tmp_path):
    make(tmp_path / "set")
    manifest = read_manifest(tmp_path / "set")
    shard = tmp_path / "set" / manifest.shards[0].file
    elsewhere = tmp_path / "elsewhere"
    shard.replace(elsewhere)
    shard.symlink_to(elsewhere)
    with pytest.raises(DatasetError, match="cannot be read"):
        ShardIndex.read(tmp_path / "set").read_member(0)


def test_damaged_manifests_and_indices_are_refused(tmp_path):
    with pytest.raises(DatasetError, match="no shards"):
        ShardIndex.read(tmp_path)
    make(tmp_path)
    good = (tmp_path / MANIFEST).read_text()
    for text in ("", "[]", "null", "{", '{"schema": 1}', "[" * 100_000, good[:-40]):
        (tmp_path / MANIFEST).write_text(text)
        with pytest.raises(DatasetError, match="cannot be read"):
            ShardIndex.read(tmp_path)
    (tmp_path / MANIFEST).write_text(good.replace('"schema": 1', '"schema": 2'))
    with pytest.raises(DatasetError, match="schema version 2"):
        ShardIndex.read(tmp_path)
    (tmp_path / MANIFEST).write_text(good.replace('"file": "audio-000000', '"file": "../000000'))
    with pytest.raises(DatasetError, match="names"):
        ShardIndex.read(tmp_path)
    (tmp_path / MANIFEST).write_text(good)
    index = tmp_path / read_manifest(tmp_path).index
    index.write_bytes(index.read_bytes()[:-1])
    with pytest.raises(DatasetError, match="damaged"):
        ShardIndex.read(tmp_path)
    resigned_index = b"PAR1 this is no parquet"
    manifest = json.loads(good)
    manifest["index_sha256"] = hashlib.sha256(resigned_index).hexdigest()
    index.write_bytes(resigned_index)
    (tmp_path / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(DatasetError, match="cannot be read"):
        ShardIndex.read(tmp_path)
