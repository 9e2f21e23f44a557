"""Writing WebDataset shards: same samples, same bytes; whole or not at all.

A sample is its media file, its record as JSON and its caption as text, under one key and in that
order. Tars are ustar with fixed owner, mode and time. A shard's name holds the digest of its
bytes, so a new set never overwrites the old one: the manifest, written last and renamed into
place, decides which shards count, and only then do the others go.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import tarfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from reelmill.datasets.index import (
    INDEX_COLUMNS,
    INDEX_FILE,
    KEY,
    MANIFEST,
    MAX_MEMBER_BYTES,
    SHARD_FILE,
    SUFFIX,
    ShardIndex,
    ShardInfo,
    ShardManifest,
    read_manifest,
)
from reelmill.datasets.workspace import commit_bytes, table_bytes, writing
from reelmill.errors import DatasetError

__all__ = [
    "ShardInfo",
    "ShardManifest",
    "ShardSample",
    "find_existing",
    "iter_shard",
    "read_manifest",
    "write_shards",
]

MAX_MEMBERS = 1_000_000
_PARTIAL = ".part"


@dataclass(frozen=True, slots=True)
class ShardSample:
    """One sample. suffix: of the media member, `.mp4`, `.jpg` or `.flac`; media: its bytes.

    record: plain JSON. Of it the index keeps `kind`, `cut_key`, `tags`, `manifest` (the user's own
    columns, a JSON list of rows) and, from the mapping `cut`, seconds, width, height and fps.
    caption: the txt member, None for none.
    """

    key: str
    suffix: str
    media: bytes
    record: Mapping[str, Any]
    caption: str | None = None

    def members(self) -> list[tuple[str, bytes]]:
        """(suffix, bytes) in the order in which they are written. Raises DatasetError."""
        media = self.suffix.removeprefix(".")
        if not KEY.fullmatch(self.key):
            raise DatasetError(
                f"shard key {self.key!r} must be 1 to 95 letters, digits, '_' or '-'."
            )
        if not SUFFIX.fullmatch(media) or media in ("json", "txt"):
            raise DatasetError(f"sample {self.key}: {self.suffix!r} is no suffix of a media file.")
        try:
            text = json.dumps(
                self.record,
                sort_keys=True,
                separators=(",", ":"),
                ensure_ascii=False,
                allow_nan=False,
            ).encode()
        except (TypeError, ValueError) as error:
            raise DatasetError(
                f"sample {self.key}: its record is no plain JSON: {error}"
            ) from error
        found = [(media, self.media), ("json", text)]
        if self.caption is not None:
            found.append(("txt", self.caption.encode()))
        return found


def write_shards(
    samples: Iterable[ShardSample],
    folder: Path,
    *,
    prefix: str,
    max_samples: int,
    max_bytes: int,
) -> ShardManifest:
    """Writes a shard set in place of the one in `folder`, and returns its manifest.

    samples: in rising order of their keys; taken one at a time. A shard is full at `max_samples`
    samples or before it would pass `max_bytes` of media. Until the manifest is renamed into place
    the old set stays whole, whatever happens. Raises DatasetError for a sample that cannot be
    written, WorkspaceError when the disk is full or read-only.
    """
    if max_samples < 1 or max_bytes < 1:
        raise ValueError(f"shards of {max_samples} samples and {max_bytes} bytes hold nothing")
    if not SHARD_FILE.fullmatch(f"{prefix}-000000-{'0' * 12}.tar"):
        raise ValueError(f"prefix {prefix!r} must be letters, digits, '_' or '-'")
    shards: list[ShardInfo] = []
    rows: dict[str, list[Any]] = {name: [] for name in INDEX_COLUMNS.names}
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    try:
        with contextlib.ExitStack() as open_shard:
            tar: _Tar | None = None
            last: str | None = None
            for sample in samples:
                if last is not None and sample.key <= last:
                    raise DatasetError(f"shard keys must rise: {sample.key} after {last}.")
                last, members = sample.key, sample.members()
                size = sum(len(data) for _, data in members)
                if tar and (tar.samples >= max_samples or tar.media_bytes + size > max_bytes):
                    shards.append(tar.finish())
                    tar = None
                if tar is None:
                    tar = open_shard.enter_context(_Tar(folder, prefix, len(shards)))
                tar.add(sample, members, rows)
            if tar is not None:
                shards.append(tar.finish())
        rows["shard"] = [shards[number].file for number in rows["shard"]]
        data = table_bytes(pa.table(rows, schema=INDEX_COLUMNS))
        digest = hashlib.sha256(data).hexdigest()
        index = f"index-{digest[:12]}.parquet"
        manifest = ShardManifest(tuple(shards), index, digest)
        commit_bytes(folder / index, data)
        _sync(folder)
        commit_bytes(folder / MANIFEST, manifest.to_json())
        _sync(folder)
    finally:
        _clean(folder)
    return manifest


class _Tar(contextlib.AbstractContextManager):
    """One shard on its way: a temporary file until `finish` gives it its name."""

    def __init__(self, folder: Path, prefix: str, number: int):
        self._folder, self._stem, self._number = folder, f"{prefix}-{number:06d}", number
        self._path = folder / f"{self._stem}{_PARTIAL}"
        self.samples = self.media_bytes = 0
        with writing(self._path):
            self._file = self._path.open("wb")
        self._hashed = _Hashed(self._file)
        self._tar = tarfile.TarFile(
            fileobj=self._hashed,  # type: ignore[arg-type]
            mode="w",
            format=tarfile.USTAR_FORMAT,
            encoding="ascii",
        )

    def add(
        self,
        sample: ShardSample,
        members: list[tuple[str, bytes]],
        rows: Mapping[str, list[Any]],
    ) -> None:
        cut = sample.record.get("cut")
        cut = cut if isinstance(cut, Mapping) else {}
        about = {
            "key": sample.key,
            "shard": self._number,
            "cut_key": str(sample.record.get("cut_key", "")),
            "kind": str(sample.record.get("kind", "")),
            "seconds": cut.get("seconds"),
            "width": cut.get("width"),
            "height": cut.get("height"),
            "fps": cut.get("fps"),
            "bucket": "x".join(str(cut.get(name, 0)) for name in ("frames", "height", "width")),
            "tags": [str(tag) for tag in sample.record.get("tags", ())],
            "manifest": _own(sample.record),
        }
        for suffix, data in members:
            info = tarfile.TarInfo(f"{sample.key}.{suffix}")
            info.size, info.mode = len(data), 0o644
            offset = self._tar.offset + tarfile.BLOCKSIZE
            with writing(self._path):
                self._tar.addfile(info, io.BytesIO(data))
            place = {"member": suffix, "offset": offset, "size": len(data)}
            for name, value in (about | place | {"crc32": zlib.crc32(data)}).items():
                rows[name].append(value)
            self.media_bytes += len(data)
        self.samples += 1

    def finish(self) -> ShardInfo:
        with writing(self._path):
            self._tar.close()
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            digest = self._hashed.digest.hexdigest()
            name = f"{self._stem}-{digest[:12]}.tar"
            self._path.replace(self._folder / name)
        return ShardInfo(name, digest, self._hashed.count, self.samples)

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):  # a full disk, again, of a file that goes anyway
            self._file.close()


class _Hashed:
    """A file that is hashed while it is written."""

    def __init__(self, file: io.BufferedWriter):
        self._file, self.digest, self.count = file, hashlib.sha256(), 0

    def write(self, data: bytes) -> int:
        self.digest.update(data)
        self.count += len(data)
        return self._file.write(data)

    def tell(self) -> int:
        return self.count


def _own(record: Mapping[str, Any]) -> str | None:
    """What manifests say of a sample, as canonical JSON; None for nothing."""
    rows = record.get("manifest")
    return json.dumps(rows, sort_keys=True, ensure_ascii=False) if rows else None


def _sync(folder: Path) -> None:
    with writing(folder):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _clean(folder: Path) -> None:
    """Removes partial files and everything of ours that the manifest does not name."""
    try:
        manifest = read_manifest(folder)
    except DatasetError:
        return  # damaged: nothing is thrown away
    named = {shard.file for shard in manifest} | {manifest.index}
    for entry in folder.iterdir():
        ours = SHARD_FILE.fullmatch(entry.name) or INDEX_FILE.fullmatch(entry.name)
        if (ours and entry.name not in named) or entry.suffix == _PARTIAL:
            with contextlib.suppress(OSError):
                entry.unlink()


def find_existing(folder: Path) -> Mapping[tuple[str, str], Callable[[], bytes]]:
    """Media that a committed shard set already holds: (key, cut key) -> function that reads them.

    Shards that are missing or of another size are left out, so their clips count as not cut. The
    functions are good until the set is replaced; they raise DatasetError for damaged bytes.
    """
    manifest = read_manifest(folder)
    if not manifest.index:
        return {}
    index = ShardIndex.read(folder)
    whole = {s.file for s in manifest if _size(folder / s.file) == s.bytes}
    rows = index.rows
    texts = pc.is_in(rows["member"], value_set=pa.array(["json", "txt"]))
    there = pc.is_in(rows["shard"], value_set=pa.array(sorted(whole), pa.string()))
    cut = pc.greater(pc.binary_length(rows["cut_key"]), 0)
    wanted = pc.and_(pc.and_not(there, texts), pc.fill_null(cut, False))
    places = pc.indices_nonzero(wanted)
    keys, cut_keys = (rows[name].take(places).to_pylist() for name in ("key", "cut_key"))
    return {
        name: partial(index.read_member, row)
        for name, row in zip(zip(keys, cut_keys, strict=True), places.to_pylist(), strict=True)
    }


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1


def iter_shard(path: Path) -> Iterator[tuple[str, dict[str, bytes]]]:
    """(key, members by suffix) of any WebDataset tar, in order, without trusting it.

    Raises DatasetError for members that are links, devices or folders, for names with paths, for
    sizes beyond the file, keys that come twice, and damaged headers.
    """
    key, members, seen, end = "", {}, set(), 0  # type: ignore[var-annotated]
    try:
        size = path.stat().st_size
        with tarfile.open(path, "r:") as tar:  # "r:" refuses compression, so no bombs
            for number, info in enumerate(tar):
                stem, _, suffix = info.name.partition(".")
                if not info.isreg() or info.issparse():
                    raise DatasetError(f"shard {path}: member {info.name!r} is no regular file.")
                if not KEY.fullmatch(stem) or not SUFFIX.fullmatch(suffix):
                    raise DatasetError(f"shard {path}: member name {info.name!r} is refused.")
                if not 0 <= info.size <= min(size, MAX_MEMBER_BYTES) or number > MAX_MEMBERS:
                    raise DatasetError(f"shard {path}: member {info.name!r} has {info.size} bytes.")
                if stem != key:
                    if key:
                        yield key, members
                    if stem in seen:
                        raise DatasetError(f"shard {path}: key {stem} comes twice.")
                    seen.add(stem)
                    key, members = stem, {}
                file = tar.extractfile(info)
                data = file.read() if file is not None else b""
                if len(data) != info.size or suffix in members:
                    raise DatasetError(f"shard {path}: member {info.name!r} is cut off or double.")
                members[suffix] = data
                end = info.offset_data + -(-info.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
            if key:
                yield key, members
        with path.open("rb") as raw:  # tarfile takes a header that is cut off for the end
            raw.seek(end)
            tail = raw.read(2 * tarfile.BLOCKSIZE)
        if tail != bytes(2 * tarfile.BLOCKSIZE):
            raise DatasetError(f"shard {path} is cut off or damaged after byte {end}.")
    except (tarfile.TarError, OSError, ValueError, EOFError) as error:
        raise DatasetError(f"shard {path} cannot be read: {error}.") from error
