"""Every reader of files meets mutated ones: what comes out is the data, or one of our errors.

Where a digest guards a file, it is made to fit the mutation, so that the reader behind it is met.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.mutations import allowed, damaged, every_twist, twisted

from reelmill.datasets.index import ShardIndex, read_manifest
from reelmill.datasets.latents import LatentDataset, LatentSample, PartWriter, finish
from reelmill.datasets.ledger import Batch, Ledger, TrackReader, tracks_table
from reelmill.datasets.manifest import build_manifest, read_hashes
from reelmill.datasets.shards import ShardSample, find_existing, iter_shard, write_shards
from reelmill.datasets.workspace import Workspace, open_workspace

pytestmark = pytest.mark.long

FOLDER = "ledger/facts/Blur/0123456789abcdef"
TRACKS = "tracks/Blur/0123456789abcdef"
EXAMPLES = [60, pytest.param(3000, marks=[pytest.mark.slow, pytest.mark.timeout(1800)])]


def fuzz(examples: int, files: st.SearchStrategy[bytes], read: Callable[[bytes], None]) -> None:
    """Runs `read` on that many mutated files."""

    @settings(max_examples=examples, suppress_health_check=list(HealthCheck))
    @given(files)
    def each(data: bytes) -> None:
        read(data)

    each()


def both(path: Path) -> st.SearchStrategy[bytes]:
    """Mutations of a JSON file: of its bytes and of its values."""
    return st.one_of(damaged(path.read_bytes()), twisted(path.read_bytes()))


def twist(path: Path, *reads: Callable[[], object]) -> None:
    """Reads a JSON file with each of its values replaced by each odd one."""
    whole = path.read_bytes()
    try:
        for data in every_twist(whole):
            path.write_bytes(data)
            for read in reads:
                allowed(read)
    finally:
        path.write_bytes(whole)


def test_every_value_of_a_ledger_commit(place, ledger):
    (commit,) = (place.ledger / "commits").glob("*.json")
    twist(commit, lambda: read_all(place))


def test_every_value_of_a_shard_manifest(shards):
    reads = (lambda: read_manifest(shards), lambda: read_shards(shards))
    twist(shards / "manifest.json", *reads, lambda: find_existing(shards))


def test_every_value_of_a_latent_manifest(latents):
    twist(latents / "manifest.json", lambda: read_latents(latents))


# The ledger -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Workspace:
    return open_workspace(tmp_path_factory.mktemp("fuzz") / "w")


@pytest.fixture(scope="module")
def ledger(place) -> Ledger:
    """One commit with facts and tracks of five units."""
    units = [f"{i:064x}" for i in range(5)]
    columns = {"unit": units, "sharpness": [0.1, 0.2, None, 0.4, 0.5], "cause": [None] * 5}
    batch = Batch()
    batch.add(FOLDER, pa.table(columns))
    for unit in units:
        batch.add(TRACKS, tracks_table(unit, {"a": np.arange(9.0), "b": np.ones((2, 3), np.int8)}))
    made = Ledger(place)
    made.commit(batch)
    return made


def read_all(place: Workspace) -> None:
    found = Ledger(place)
    found.units(FOLDER)
    table = found.table(FOLDER)
    assert table is None or table.num_rows >= 0
    tracks = TrackReader(found, TRACKS)
    for i in range(5):
        if f"{i:064x}" in tracks:
            tracks[f"{i:064x}"]


@pytest.mark.parametrize("examples", EXAMPLES)
def test_ledger_commits(place, ledger, examples):
    (commit,) = (place.ledger / "commits").glob("*.json")
    whole = commit.read_bytes()

    def read(data: bytes) -> None:
        commit.write_bytes(data)
        allowed(lambda: read_all(place))

    try:
        fuzz(examples, both(commit), read)
    finally:
        commit.write_bytes(whole)
    read_all(place)


@pytest.mark.parametrize("folder", [FOLDER, TRACKS])
@pytest.mark.parametrize("examples", EXAMPLES)
def test_ledger_tables_whose_digest_fits(place, ledger, folder, examples):
    (commit,) = (place.ledger / "commits").glob("*.json")
    (table,) = (place.root / folder).glob("*.parquet")
    whole, listed = table.read_bytes(), commit.read_bytes()
    name = str(table.relative_to(place.root))

    def read(data: bytes) -> None:
        table.write_bytes(data)
        files = json.loads(listed)
        files["files"][name] = hashlib.sha256(data).hexdigest()
        commit.write_text(json.dumps(files))
        allowed(lambda: read_all(place))

    try:
        fuzz(examples, damaged(whole), read)
    finally:
        table.write_bytes(whole)
        commit.write_bytes(listed)


@pytest.mark.parametrize("examples", EXAMPLES)
def test_remembered_hashes(place, tmp_path, examples):
    source = tmp_path / "a.bin"
    source.write_bytes(b"abc")
    build_manifest([source], place)
    path = place.manifest / "hashes.parquet"
    whole = path.read_bytes()

    def read(data: bytes) -> None:
        path.write_bytes(data)
        read_hashes(place)  # a lost memory is no error
        (asset,) = build_manifest([source], place).assets
        assert asset.sha256 == hashlib.sha256(b"abc").hexdigest() or data == whole

    fuzz(examples, damaged(whole), read)


# Shards ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("fuzz") / "video"
    samples = [
        ShardSample(f"{i:016x}_0_1", ".mp4", bytes([i]) * 700, {"cut_key": f"k{i}"}, "a caption")
        for i in range(4)
    ]
    write_shards(samples, folder, prefix="video", max_samples=3, max_bytes=1 << 20)
    return folder


def read_shards(folder: Path) -> None:
    with ShardIndex.read(folder) as index:
        for key in index.keys:
            index.sample(key)


@pytest.mark.parametrize("examples", EXAMPLES)
def test_shard_manifests(shards, examples):
    path = shards / "manifest.json"
    whole = path.read_bytes()

    def read(data: bytes) -> None:
        path.write_bytes(data)
        allowed(lambda: read_manifest(shards))
        allowed(lambda: read_shards(shards))
        allowed(lambda: find_existing(shards))

    try:
        fuzz(examples, both(path), read)
    finally:
        path.write_bytes(whole)


@pytest.mark.parametrize("examples", EXAMPLES)
def test_shard_indices_whose_digest_fits(shards, examples):
    manifest = shards / "manifest.json"
    listed = manifest.read_bytes()
    index = shards / json.loads(listed)["index"]
    whole = index.read_bytes()

    def read(data: bytes) -> None:
        index.write_bytes(data)
        digest = hashlib.sha256(data).hexdigest()
        manifest.write_text(json.dumps(json.loads(listed) | {"index_sha256": digest}))
        allowed(lambda: read_shards(shards))
        allowed(lambda: [read() for read in find_existing(shards).values()])

    try:
        fuzz(examples, damaged(whole), read)
    finally:
        index.write_bytes(whole)
        manifest.write_bytes(listed)


ROWS = st.fixed_dictionaries(
    {
        "offset": st.integers(-(2**63), 2**63 - 1),
        "size": st.integers(-(2**63), 2**63 - 1) | st.integers(0, 4096),
        "shard": st.sampled_from(("../w", "/etc/passwd", "", "video-000000-000000000000.tar")),
        "member": st.sampled_from(("mp4", "../x", "")),
    }
)


@settings(max_examples=60)
@given(ROWS)
def test_index_rows_that_point_anywhere(row):
    from reelmill.datasets.index import INDEX_COLUMNS, ShardInfo, ShardManifest

    base = dict.fromkeys(INDEX_COLUMNS.names) | {"key": "a", "crc32": 0} | row
    table = pa.Table.from_pylist([base], schema=INDEX_COLUMNS)
    shard = ShardInfo("video-000000-000000000000.tar", "", 4096, 1)
    index = ShardIndex(Path("/nowhere"), ShardManifest((shard,)), table)
    allowed(lambda: index.sample("a"))


@pytest.mark.parametrize("examples", EXAMPLES)
def test_shard_tars(shards, tmp_path, examples):
    tar = min(shards.glob("*.tar"))
    path = tmp_path / "x.tar"

    def read(data: bytes) -> None:
        path.write_bytes(data)
        allowed(lambda: list(iter_shard(path)))

    fuzz(examples, damaged(tar.read_bytes()), read)


# Latents --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def latents(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("fuzz") / "latents"
    folder.mkdir()
    part = PartWriter(folder, "part-0", "key")
    for i in range(3):
        meta = {"frames": 1, "height": 8, "width": 8, "caption": "x"}
        video = np.full((2, 1, 2, 2), i, np.float32)
        part.add(LatentSample(f"k{i}", f"{i:064x}", video, None, None, meta))
    part.commit()
    finish(
        folder, ["part-0"], video="v", audio="a", text="", sources={}, options={},
        constants={"null_text": np.zeros((1, 1), np.float32)},
    )  # fmt: skip
    return folder


def read_latents(folder: Path) -> None:
    with LatentDataset(folder) as data:
        for row in range(len(data)):
            data.read(row)


@pytest.mark.parametrize("name", ["manifest.json", "part-0.tar"])
@pytest.mark.parametrize("examples", EXAMPLES)
def test_latent_files(latents, name, examples):
    path = latents / name
    whole = path.read_bytes()

    def read(data: bytes) -> None:
        path.write_bytes(data)
        allowed(lambda: read_latents(latents))

    try:
        fuzz(examples, both(path) if name.endswith("json") else damaged(whole), read)
    finally:
        path.write_bytes(whole)


@pytest.mark.parametrize(
    ("name", "field"), [("index.parquet", "index"), ("constants.safetensors", "constants")]
)
@pytest.mark.parametrize("examples", EXAMPLES)
def test_latent_files_whose_digest_fits(latents, name, field, examples):
    path, manifest = latents / name, latents / "manifest.json"
    whole, listed = path.read_bytes(), manifest.read_bytes()

    def read(data: bytes) -> None:
        path.write_bytes(data)
        digest = hashlib.sha256(data).hexdigest()
        manifest.write_text(json.dumps(json.loads(listed) | {field: digest}))
        allowed(lambda: read_latents(latents))

    try:
        fuzz(examples, damaged(whole), read)
    finally:
        path.write_bytes(whole)
        manifest.write_bytes(listed)
