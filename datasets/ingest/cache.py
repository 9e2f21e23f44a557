"""Fetched files in the workspace: named by their sha256, bounded together, remembered by location.

    fetched/<first two digits>/<sha256><suffix>    a file, there whole or not at all
    manifest/fetched.parquet                       which location gave which file, by its digest

What does not fit pushes out files that this run does not name, the longest unused first.
"""

from __future__ import annotations

import hashlib
import logging
import os
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from reelmill.datasets.ingest.outcome import Refused
from reelmill.datasets.parquet import read_parquet
from reelmill.datasets.workspace import Workspace, commit_bytes, table_bytes, writing
from reelmill.errors import DatasetError

log = logging.getLogger(__name__)
RECORDS = "fetched.parquet"
STEP = 8 << 20  # room is taken in steps of so many bytes
_SCHEMA = pa.schema(
    [("key", pa.string()), ("sha256", pa.string()), ("file", pa.string()), ("tag", pa.string())]
)


@dataclass(frozen=True, slots=True)
class Record:
    """What a location gave. file: below `fetched/`. tag: of the version, as its server tells."""

    sha256: str
    file: str
    tag: str


class Cache:
    """Holds fetched files of one workspace. Safe to use from several threads."""

    def __init__(self, workspace: Workspace, limit: int):
        self.workspace, self.limit = workspace, limit
        self.root = workspace.root / "fetched"
        self.records = self._read()
        self._lock = threading.Lock()
        self._sizes: dict[Path, int] | None = None
        self._held: set[Path] = set()
        self._taken = 0

    def _read(self) -> dict[str, Record]:
        path = self.workspace.manifest / RECORDS
        if not path.exists():
            return {}
        try:
            table = read_parquet(path, f"memory of fetched files {path}", schema=_SCHEMA)
        except DatasetError as error:
            log.warning("%s Every file is fetched again.", error)
            return {}
        columns = [table[name].to_pylist() for name in _SCHEMA.names]
        rows = zip(*columns, strict=True)
        return {key: Record(*rest) for key, *rest in rows if _sound(*rest)}

    def save(self) -> None:
        """Remembers the records for the next run."""
        rows = [(k, r.sha256, r.file, r.tag) for k, r in sorted(self.records.items())]
        columns = [list(c) for c in zip(*rows, strict=True)] if rows else [[], [], [], []]
        commit_bytes(
            self.workspace.manifest / RECORDS, table_bytes(pa.table(columns, schema=_SCHEMA))
        )

    def file(self, key: str) -> Path | None:
        """The file of a location, when it was fetched and is still there."""
        record = self.records.get(key)
        path = self.root / record.file if record is not None else None
        return path if path is not None and path.is_file() else None

    def open(self, keys: Collection[str]) -> None:
        """Looks at what is there, and holds on to the files of these locations."""
        files = [p for p in self.root.glob("*/*") if p.is_file()]
        for part in [p for p in files if p.name.startswith("part-")]:  # of a run that died
            part.unlink()
            files.remove(part)
        files.sort(key=lambda p: p.stat().st_mtime_ns)
        self._sizes = {path: path.stat().st_size for path in files}
        self._held = {self.root / self.records[key].file for key in keys if key in self.records}
        self._taken = 0

    @contextmanager
    def writing(self, number: int) -> Iterator[Incoming]:
        """A file on its way in. Raises Refused when there is no room, WorkspaceError."""
        path = self.root / "part" / f"part-{number}"
        incoming = Incoming(self, path)
        try:
            yield incoming
        finally:
            incoming.close()

    def take(self, count: int) -> None:
        """Makes room for so many bytes more. Raises Refused."""
        with self._lock:
            assert self._sizes is not None, "open() comes first"
            used = sum(self._sizes.values()) + self._taken
            for path in [p for p in self._sizes if p not in self._held]:
                if used + count <= self.limit:
                    break
                used -= self._sizes.pop(path)
                path.unlink(missing_ok=True)
            if used + count > self.limit:
                raise Refused(
                    f"the cache of fetched files is full ({self.limit} bytes); give it more with "
                    "--cache-gb"
                )
            self._taken += count

    def settle(self, taken: int, path: Path | None, size: int) -> None:
        """Room that was taken is now a file's, or nobody's."""
        with self._lock:
            assert self._sizes is not None
            self._taken -= taken
            if path is not None:
                self._sizes[path] = size
                self._held.add(path)


class Incoming:
    """A file that is being fetched."""

    def __init__(self, cache: Cache, path: Path):
        self._cache, self._path = cache, path
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("wb")
        self._digest = hashlib.sha256()
        self._taken = self.count = 0

    def write(self, data: bytes) -> None:
        if self.count + len(data) > self._taken:
            step = max(STEP, len(data))
            self._cache.take(step)
            self._taken += step
        with writing(self._path):
            self._file.write(data)
        self._digest.update(data)
        self.count += len(data)

    def keep(self, key: str, suffix: str, tag: str) -> Path:
        """The file is whole: gives it its name and remembers its location."""
        sha256 = self._digest.hexdigest()
        name = f"{sha256[:2]}/{sha256}{suffix}"
        final = self._cache.root / name
        with writing(final):
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            final.parent.mkdir(parents=True, exist_ok=True)
            self._path.replace(final)
        self._cache.records[key] = Record(sha256, name, tag)
        self._cache.settle(self._taken, final, self.count)
        self._taken = 0
        return final

    def close(self) -> None:
        self._file.close()
        self._path.unlink(missing_ok=True)
        if self._taken:
            self._cache.settle(self._taken, None, 0)
            self._taken = 0


def forget_fetched(workspace: Workspace, sha256: str) -> int:
    """Deletes what was fetched of an asset, and where from. Returns how many files went."""
    if not (workspace.root / "fetched").is_dir():
        return 0
    cache = Cache(workspace, 0)
    files = list((cache.root / sha256[:2]).glob(f"{sha256}*"))
    for file in files:
        file.unlink()
    cache.records = {k: r for k, r in cache.records.items() if r.sha256 != sha256}
    cache.save()
    return len(files)


def _sound(sha256: object, file: object, tag: object) -> bool:
    """Whether a record names a file of the cache, and nothing outside it."""
    if not (isinstance(sha256, str) and isinstance(file, str) and isinstance(tag, str)):
        return False
    name, _, suffix = file.partition(".")
    plain = suffix.isalnum() and suffix.isascii() if "." in file else True
    digits = set(sha256) <= set("0123456789abcdef") and len(sha256) == 64
    return digits and plain and name == f"{sha256[:2]}/{sha256}"
