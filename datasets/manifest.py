"""The manifest: which source files a run sees, and which assets they are.

A file is hashed once; size, modification time, change time and inode together tell whether its
hash is still good, so changed bytes behind the same path are seen.
"""

from __future__ import annotations

import glob
import hashlib
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from reelmill.datasets.parquet import read_parquet
from reelmill.datasets.sample import Asset
from reelmill.datasets.workspace import Workspace, commit_bytes, table_bytes
from reelmill.errors import DatasetError, SourceError

log = logging.getLogger(__name__)
PARTITION_ASSETS = 32
HASHES = "hashes.parquet"
_HASHES = pa.schema(
    [
        ("path", pa.string()),
        ("stat", pa.string()),
        ("sha256", pa.string()),
        ("bytes", pa.int64()),
        ("check", pa.int64()),
    ]
)


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A source file that could not be opened: counted as a failed asset."""

    path: str
    bytes: int
    error: str

    @property
    def id(self) -> str:
        """Stands in for a content digest in the ledger: a digest of the path, marked as such."""
        return "path-" + hashlib.sha256(self.path.encode(errors="surrogateescape")).hexdigest()[:11]


@dataclass(frozen=True)
class Manifest:
    """Assets sorted by digest. Equal bytes at several paths are one asset."""

    assets: tuple[Asset, ...]
    unreadable: tuple[Unreadable, ...]

    @property
    def files(self) -> int:
        return sum(len(asset.paths) for asset in self.assets) + len(self.unreadable)

    @property
    def digest(self) -> str:
        """sha256 over the sorted asset digests: what was curated, whatever it was called."""
        return hashlib.sha256("\n".join(a.sha256 for a in self.assets).encode()).hexdigest()

    def partitions(self, size: int = PARTITION_ASSETS) -> list[list[Asset]]:
        """Groups of assets by the leading bits of their digests.

        The number of groups is a power of two, so adding inputs changes few groups.
        """
        count = 1
        while count * size < len(self.assets):
            count *= 2
        groups: list[list[Asset]] = [[] for _ in range(count)]
        for asset in self.assets:
            groups[int(asset.sha256[:8], 16) * count >> 32].append(asset)
        return [group for group in groups if group]


def find_files(sources: Sequence[str], *, skip: Path | None = None) -> list[Path]:
    """Every regular file that the sources name: folders (recursively), files, glob patterns.

    Hidden files and folders, captions (`caption_file`) and anything below `skip` (the workspace)
    are left out. Symbolic links to folders are not followed. Raises SourceError for a source that
    names nothing, and for a folder that cannot be listed.
    """
    found: set[Path] = set()
    skipped = skip.resolve() if skip is not None else None
    for source in sources:
        path = Path(source)
        if path.is_dir():
            matches = _walk(path, skipped)
            if not matches:
                raise SourceError(f"source {source} is an empty folder: no file to curate in it.")
        elif path.is_file():
            matches = [path]
        elif os.path.lexists(path):
            raise SourceError(f"source {source} is neither a file nor a folder.")
        elif any(character in source for character in "*?["):
            found_names = glob.glob(source, recursive=True)  # noqa: PTH207 - absolute patterns too
            matches = [Path(m) for m in found_names if Path(m).is_file()]
            if not matches:
                raise SourceError(f"source pattern {source} matches no file.")
        else:
            raise SourceError(f"source {source} does not exist. Give a folder, a file or a glob.")
        found.update(matches)
    return sorted(
        found - {file for file in found if _is_caption(file, found)},
        key=lambda file: file.parts,  # the same order, compared quicker
    )


def caption_file(media: Path) -> Path:
    """Where a media file's caption would lie: `clip.txt` beside `clip.mp4`."""
    return media.with_suffix(".txt")


def _is_caption(file: Path, files: set[Path]) -> bool:
    """Whether a text file is the caption of a media file beside it, and so no source itself."""
    if file.suffix != ".txt":
        return False
    beside = (path for path in file.parent.glob(f"{glob.escape(file.stem)}.*") if path != file)
    return any(path in files for path in beside)


def _walk(folder: Path, skipped: Path | None) -> list[Path]:
    files: list[Path] = []
    folders: list[str] = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_dir():
                    if not entry.is_symlink() and Path(entry.path).resolve() != skipped:
                        folders.append(entry.name)
                elif entry.is_file():
                    files.append(folder / entry.name)
    except OSError as error:
        why = error.strerror or repr(error)
        raise SourceError(f"source folder {folder} cannot be listed: {why}.") from error
    for name in sorted(folders):
        files += _walk(folder / name, skipped)
    return files


def read_hashes(workspace: Workspace) -> dict[str, tuple[str, str, int]]:
    """What is remembered of source files by path: stat, sha256, bytes.

    Of a damaged file nothing is, and no row that is not what was written.
    """
    path = workspace.manifest / HASHES
    if not path.exists():
        return {}
    try:
        table = read_parquet(path, f"memory of hashes {path}", schema=_HASHES)
    except DatasetError as error:
        log.warning("%s Every file is hashed again.", error)
        return {}
    rows = list(zip(*(column.to_pylist() for column in table.columns), strict=True))
    whole = {row[0]: row[1:4] for row in rows if _check(row[:4]) == row[4]}
    if len(whole) < len(rows):
        lost = len(rows) - len(whole)
        log.warning(
            "memory of hashes %s: %d damaged rows. Those files are hashed again.", path, lost
        )
    return whole


def _check(row: Sequence[object]) -> int:
    """Sum of a row, to tell damage."""
    digest = hashlib.blake2b(repr(row).encode(errors="replace"), digest_size=8).digest()
    return int.from_bytes(digest, signed=True)


def save_hashes(workspace: Workspace, hashes: Mapping[str, tuple[str, str, int]]) -> None:
    """Remembers hashes for the next run."""
    rows = [(path, *hashes[path]) for path in sorted(hashes)]
    columns = [[row[i] for row in rows] for i in range(len(_HASHES) - 1)]
    table = pa.table([*columns, [_check(row) for row in rows]], schema=_HASHES)
    commit_bytes(workspace.manifest / HASHES, table_bytes(table))


def build_manifest(
    files: Sequence[Path],
    workspace: Workspace,
    advance: Callable[[int], None] = lambda n: None,
    *,
    save: bool = True,
) -> Manifest:
    """Hashes the files and groups them into assets; remembers the hashes in the workspace."""
    cache = read_hashes(workspace)
    paths: dict[str, list[str]] = {}
    sizes: dict[str, int] = {}
    unreadable: list[Unreadable] = []
    for file in files:
        name, key = str(file), printable(file)
        size = 0
        try:
            status = file.stat()
            size = status.st_size
            stat = f"{size}:{status.st_mtime_ns}:{status.st_ctime_ns}:{status.st_ino}"
            if cache.get(key, ("",))[0] != stat:
                with file.open("rb") as handle:
                    digest = hashlib.file_digest(handle, "sha256").hexdigest()
                cache[key] = (stat, digest, size)
        except OSError as error:
            unreadable.append(Unreadable(name, size, error.strerror or repr(error)))
        else:
            digest = cache[key][1]
            paths.setdefault(digest, []).append(name)
            sizes[digest] = size
        advance(1)
    if save:
        save_hashes(workspace, cache)
    assets = tuple(Asset(d, tuple(sorted(paths[d])), sizes[d]) for d in sorted(paths))
    return Manifest(assets, tuple(unreadable))


def printable(path: Path | str) -> str:
    """A path as valid UTF-8 text; undecodable bytes of a file name become backslash escapes."""
    return os.fsencode(path).decode("utf-8", errors="backslashreplace")
