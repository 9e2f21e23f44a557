"""The row index of a shard set: where each member lies, checked on every read.

A shard set is a folder with `manifest.json`, the shards and the index that it names, and nothing
else that counts. Each index row is one member of one tar: its bytes are read by offset, so a
sample costs one `pread`, and compared with the crc32 that was taken when they were written.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa

from reelmill.datasets.parquet import read_parquet
from reelmill.errors import DatasetError

SCHEMA = 1
MANIFEST = "manifest.json"
MAX_MEMBER_BYTES = 8 << 30
MAX_MANIFEST_BYTES = 64 << 20
KEY = re.compile(r"[A-Za-z0-9_-]{1,95}")
SUFFIX = re.compile(r"[a-z0-9]{1,8}")
SHARD_FILE = re.compile(r"[A-Za-z0-9_-]{1,64}-\d{6}-[0-9a-f]{12}\.tar")
INDEX_FILE = re.compile(r"index-[0-9a-f]{12}\.parquet")
INDEX_COLUMNS = pa.schema(
    [
        ("key", pa.string()),
        ("shard", pa.string()),
        ("member", pa.string()),
        ("offset", pa.int64()),
        ("size", pa.int64()),
        ("crc32", pa.int64()),
        ("cut_key", pa.string()),
        ("kind", pa.string()),
        ("seconds", pa.float64()),
        ("width", pa.int64()),
        ("height", pa.int64()),
        ("fps", pa.float64()),
        ("bucket", pa.string()),
        ("tags", pa.list_(pa.string())),
        ("manifest", pa.string()),
    ]
)

_NEEDED = ("key", "shard", "member", "offset", "size", "crc32")


@dataclass(frozen=True, slots=True)
class ShardInfo:
    """One shard as the manifest vouches for it."""

    file: str
    sha256: str
    bytes: int
    samples: int


@dataclass(frozen=True)
class ShardManifest:
    """What a shard set consists of, in order. index, index_sha256: its row index."""

    shards: tuple[ShardInfo, ...]
    index: str = ""
    index_sha256: str = ""

    def __iter__(self) -> Iterator[ShardInfo]:
        return iter(self.shards)

    def __len__(self) -> int:
        return len(self.shards)

    @property
    def samples(self) -> int:
        return sum(shard.samples for shard in self.shards)

    def to_json(self) -> bytes:
        shards = [asdict(shard) for shard in self.shards]
        data = {
            "schema": SCHEMA,
            "index": self.index,
            "index_sha256": self.index_sha256,
            "shards": shards,
        }
        return json.dumps(data, indent=1, sort_keys=True).encode() + b"\n"


def read_manifest(folder: Path) -> ShardManifest:
    """The manifest of a shard set; an empty one where there is none yet.

    Raises DatasetError for one that is damaged, hostile, or of another schema version.
    """
    path = folder / MANIFEST
    try:
        if path.stat().st_size > MAX_MANIFEST_BYTES:
            raise DatasetError(f"{path} is larger than {MAX_MANIFEST_BYTES} bytes.")
        data = json.loads(path.read_bytes())
        schema = data["schema"]
        shards = tuple(
            ShardInfo(str(s["file"]), str(s["sha256"]), int(s["bytes"]), int(s["samples"]))
            for s in data["shards"]
        )
        manifest = ShardManifest(shards, str(data["index"]), str(data["index_sha256"]))
    except (FileNotFoundError, NotADirectoryError):
        return ShardManifest(())
    except (OSError, ValueError, ArithmeticError, LookupError, TypeError, RecursionError) as error:
        raise DatasetError(f"shard manifest {path} cannot be read: {error!r}.") from error
    if schema != SCHEMA:
        raise DatasetError(
            f"shards in {folder} have schema version {schema!r}; this Reelmill reads {SCHEMA}."
        )
    bad = [s.file for s in manifest if not SHARD_FILE.fullmatch(s.file) or s.bytes < 0]
    if bad or not INDEX_FILE.fullmatch(manifest.index):
        raise DatasetError(f"shard manifest {path} names {(bad or [manifest.index])[0]!r}.")
    return manifest


class ShardIndex:
    """Random access to a shard set. Safe to share between threads.

    rows: the index as an Arrow table (INDEX_COLUMNS), one row per member, in shard order.
    """

    def __init__(self, folder: Path, manifest: ShardManifest, rows: pa.Table):
        self.folder, self.manifest, self.rows = folder, manifest, rows
        self._bytes = {shard.file: shard.bytes for shard in manifest}
        self._open: dict[str, int] = {}

    @cached_property
    def _columns(self) -> dict[str, list[Any]]:
        names = ("key", "shard", "member", "offset", "size", "crc32", "cut_key")
        return {name: self.rows[name].to_pylist() for name in names}

    @cached_property
    def _rows_of(self) -> dict[str, list[int]]:
        found: dict[str, list[int]] = {}
        for row, key in enumerate(self._columns["key"]):
            found.setdefault(key, []).append(row)
        return found

    @classmethod
    def read(cls, folder: Path) -> ShardIndex:
        """Opens a shard set. Raises DatasetError when it is not what its manifest says."""
        manifest = read_manifest(folder)
        if not manifest.index:
            raise DatasetError(f"{folder} holds no shards: it has no {MANIFEST}.")
        path = folder / manifest.index
        try:
            data = path.read_bytes()
        except OSError as error:
            raise DatasetError(f"shard index {path} cannot be read: {error.strerror}.") from error
        if hashlib.sha256(data).hexdigest() != manifest.index_sha256:
            raise DatasetError(f"shard index {path} is damaged: its sha256 is not the manifest's.")
        optional = set(INDEX_COLUMNS.names) - set(_NEEDED)
        what = f"shard index {path}"
        rows = read_parquet(data, what, schema=INDEX_COLUMNS, optional=optional)
        lacking = [n for n in _NEEDED if rows[n].null_count]
        if lacking:
            raise DatasetError(f"shard index {path} has a row without {lacking[0]}.")
        return cls(folder, manifest, rows)

    @property
    def keys(self) -> list[str]:
        """Keys of all samples, in shard order."""
        return list(self._rows_of)

    def keys_of(self, shard: str) -> list[str]:
        """Keys of the samples of one shard, in order."""
        rows = zip(self._columns["key"], self._columns["shard"], strict=True)
        return list(dict.fromkeys(key for key, file in rows if file == shard))

    def __len__(self) -> int:
        return len(self._rows_of)

    def __contains__(self, key: str) -> bool:
        return key in self._rows_of

    def sample(self, key: str) -> dict[str, bytes]:
        """All members of a sample by suffix: `mp4`, `json`, ... Raises DatasetError."""
        if key not in self._rows_of:
            raise DatasetError(f"no sample {key!r} in {self.folder}.")
        return {self._columns["member"][row]: self.read_member(row) for row in self._rows_of[key]}

    def has(self, key: str, suffix: str) -> bool:
        """Whether a sample has that member."""
        return any(self._columns["member"][row] == suffix for row in self._rows_of.get(key, ()))

    def member(self, key: str, suffix: str) -> bytes:
        """One member of a sample: `json`, ... Raises DatasetError."""
        for row in self._rows_of.get(key, ()):
            if self._columns["member"][row] == suffix:
                return self.read_member(row)
        raise DatasetError(f"no {suffix} of sample {key!r} in {self.folder}.")

    def read_member(self, row: int) -> bytes:
        """The bytes of one row. Raises DatasetError when they are not those that were written."""
        columns = self._columns
        shard, size, offset = columns["shard"][row], columns["size"][row], columns["offset"][row]
        where = f"shard {self.folder / str(shard)}, sample {columns['key'][row]}, "
        where += f"member {columns['member'][row]}"
        if (
            shard not in self._bytes
            or not 0 <= size <= MAX_MEMBER_BYTES
            or not 0 <= offset <= self._bytes[shard] - size
        ):
            raise DatasetError(f"{where}: the index points outside the shard ({offset}, {size}).")
        try:
            data = os.pread(self._descriptor(shard), size, offset)
        except OSError as error:
            raise DatasetError(f"{where}: cannot be read: {error.strerror}.") from error
        if len(data) != size or zlib.crc32(data) != columns["crc32"][row]:
            raise DatasetError(
                f"{where}: damaged ({len(data)} of {size} bytes, crc32 differs). Delete that shard "
                "and run the same command again: only its clips are cut anew."
            )
        return data

    def _descriptor(self, shard: str) -> int:
        if shard not in self._open:
            descriptor = os.open(self.folder / shard, os.O_RDONLY | os.O_NOFOLLOW)
            if self._open.setdefault(shard, descriptor) != descriptor:
                os.close(descriptor)  # another thread was first
        return self._open[shard]

    def close(self) -> None:
        while self._open:
            os.close(self._open.popitem()[1])

    def __del__(self) -> None:
        self.close()

    def __enter__(self) -> ShardIndex:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
