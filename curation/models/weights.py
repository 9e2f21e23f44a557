"""Finds pretrained weights on this machine and checks that they are what they claim to be.

Nothing is fetched unless asked for, and nothing unknown is loaded: a file whose bytes differ from
the catalogue's is an error, not a substitute. Importing this file touches no network.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import urllib.request
from collections.abc import Mapping
from difflib import get_close_matches
from enum import StrEnum
from pathlib import Path

from reelmill.curation.models.catalogue import CATALOGUE, WeightsEntry, WeightsFile
from reelmill.errors import WeightsError

ENVIRONMENT = "REELMILL_WEIGHTS"
CHUNK = 1 << 20
TIMEOUT_S = 30

_hashes: dict[tuple[str, int, int, int], str] = {}


class WeightsState(StrEnum):
    BUNDLED = "bundled"
    PRESENT = "present"
    ABSENT = "absent"
    ALTERED = "altered"


def catalogue() -> Mapping[str, WeightsEntry]:
    """All known weights by name."""
    return CATALOGUE


def user_cache() -> Path:
    """`$XDG_CACHE_HOME/reelmill/weights`, or `~/.cache/reelmill/weights`."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    root = Path(base) if Path(base).is_absolute() else Path.home() / ".cache"
    return root / "reelmill" / "weights"


def sha256_of(path: Path) -> str:
    """Hex digest of a file, computed once while its size, time and inode stay the same."""
    stat = path.stat()
    key = (str(path.resolve()), stat.st_size, stat.st_mtime_ns, stat.st_ino)
    if key not in _hashes:
        with path.open("rb") as file:
            _hashes[key] = hashlib.file_digest(file, "sha256").hexdigest()
    return _hashes[key]


class Weights:
    """The weights that this machine has.

    folder: what `--weights` names; without it REELMILL_WEIGHTS; and the user's cache after either.
    Each entry lies in a folder of its name. Weights that an installed package brings are always
    read from there. shared: a folder that all workers of a run may write to, None outside of one.
    Raises WeightsError when a named folder does not exist.
    """

    shared: Path | None = None

    def __init__(self, folder: Path | None = None):
        named = os.environ.get(ENVIRONMENT, "")
        said = "--weights" if folder is not None else ENVIRONMENT
        chosen = folder if folder is not None else Path(named) if named else None
        if chosen is not None and not chosen.is_dir():
            raise WeightsError(f"{said} names {chosen}, which is no folder. Create it or unset it.")
        self.roots = (chosen, user_cache()) if chosen is not None else (user_cache(),)

    def path(self, name: str) -> Path | None:
        """The folder of an entry, its files verified; None when it is absent.

        Raises WeightsError for a name that is not in the catalogue, and for files that are
        missing from the folder or differ from the published ones.
        """
        entry = _entry(name)
        folder = self._folder(entry)
        if folder is not None:
            _verify(entry, folder)
        return folder

    def digest(self, name: str) -> str:
        """sha256 over the names and contents of an entry's files: part of a measurement's key.

        Raises WeightsError when the entry is absent, or as `path` does.
        """
        entry, folder = _entry(name), self.path(name)
        if folder is None:
            raise WeightsError(f"weights {name!r} are absent. {self.advice(name)}")
        whole = hashlib.sha256()
        for file in _files(entry, folder):
            inside = file.relative_to(folder).as_posix()
            whole.update(f"{inside}\0{sha256_of(file)}\n".encode())
        return whole.hexdigest()

    def entry(self, name: str) -> WeightsEntry:
        """What the catalogue says of an entry. Raises WeightsError for a name not in it."""
        return _entry(name)

    def state(self, name: str) -> tuple[WeightsState, str]:
        """State of an entry, and where it lies or what is wrong with it."""
        try:
            folder = self.path(name)
        except WeightsError as error:
            if name not in CATALOGUE:
                raise
            return WeightsState.ALTERED, str(error)
        if folder is None:
            return WeightsState.ABSENT, self.advice(name)
        bundled = CATALOGUE[name].bundled
        return WeightsState.BUNDLED if bundled else WeightsState.PRESENT, str(folder)

    def advice(self, name: str) -> str:
        """How to get an entry, as one sentence."""
        entry = _entry(name)
        if entry.bundled:
            return f"Install the package {entry.package}, which brings them."
        names = ", ".join(file.name for file in entry.files) or ", ".join(entry.needs)
        names = names or " or ".join(entry.either)
        return f"Put {names} from {entry.source} into {self.roots[0] / name}."

    def fetch(self, name: str) -> Path:
        """Downloads an entry into the first root and returns its folder. Does nothing if present.

        Raises WeightsError when there is no network, when what comes is not what the catalogue
        says, and for entries that a person has to choose; it then says what to put where.
        """
        found = self.path(name)
        if found is not None:
            return found
        entry = _entry(name)
        if not entry.files or entry.bundled:
            raise WeightsError(f"weights {name!r} cannot be fetched by name. {self.advice(name)}")
        try:
            return fetch(entry, self.roots[0])
        except OSError as error:
            raise WeightsError(
                f"weights {name!r} could not be fetched: {error}. {self.advice(name)}"
            ) from error

    def _folder(self, entry: WeightsEntry) -> Path | None:
        if entry.bundled:
            spec = importlib.util.find_spec(entry.package)
            if spec is None or spec.origin is None:
                return None
            return Path(spec.origin).parent / entry.folder
        return next((r / entry.name for r in self.roots if (r / entry.name).is_dir()), None)


def fetch(entry: WeightsEntry, root: Path) -> Path:
    """Downloads the files of one entry into `root`/<name> and returns that folder.

    A file gets its name only after its size and sha256 are right. Raises OSError when it cannot be
    read or written, WeightsError when it differs from what the entry says.
    """
    folder = root / entry.name
    folder.mkdir(parents=True, exist_ok=True)
    for file in entry.files:
        target = folder / file.name
        if not target.is_file():
            _download(file, target)
    _verify(entry, folder)
    return folder


def _download(file: WeightsFile, target: Path) -> None:
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        digest, size = hashlib.sha256(), 0
        with urllib.request.urlopen(file.url, timeout=TIMEOUT_S) as source, part.open("wb") as out:
            while size <= file.bytes and (chunk := source.read(CHUNK)):
                digest.update(chunk)
                size += len(chunk)
                out.write(chunk)
        if size != file.bytes or digest.hexdigest() != file.sha256:
            raise WeightsError(
                f"{file.url} is not the published {file.name}: expected {file.bytes} bytes with "
                f"sha256 {file.sha256}, got {'more' if size > file.bytes else size} with "
                f"{digest.hexdigest()}. Nothing was kept of it."
            )
        shutil.move(part, target)
    finally:
        part.unlink(missing_ok=True)


def _entry(name: str) -> WeightsEntry:
    if name not in CATALOGUE:
        close = get_close_matches(name, CATALOGUE, 1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise WeightsError(
            f"no weights are called {name!r}.{hint} Known: {', '.join(sorted(CATALOGUE))}."
        )
    return CATALOGUE[name]


def _files(entry: WeightsEntry, folder: Path) -> list[Path]:
    """Files that make an entry what it is, in a fixed order."""
    if entry.files:
        return [folder / file.name for file in sorted(entry.files, key=lambda f: f.name)]
    inside = ((p.relative_to(folder).as_posix(), p) for p in folder.rglob("*") if p.is_file())
    return [path for name, path in sorted(inside) if not any(n[0] == "." for n in name.split("/"))]


def _verify(entry: WeightsEntry, folder: Path) -> None:
    wanted = [file.name for file in entry.files] or list(entry.needs)
    missing = [name for name in wanted if not (folder / name).is_file()]
    if entry.either and not any((folder / name).is_file() for name in entry.either):
        missing.append(" or ".join(entry.either))
    if missing:
        raise WeightsError(
            f"weights {entry.name!r} in {folder} lack {', '.join(missing)}. Get them from "
            f"{entry.source}, or remove the folder."
        )
    for file in entry.files:
        path = folder / file.name
        size = path.stat().st_size
        found = sha256_of(path) if size == file.bytes else ""
        if found != file.sha256:
            have = f"sha256 {found}" if found else f"{size} bytes"
            want = f"sha256 {file.sha256}" if found else f"{file.bytes} bytes"
            raise WeightsError(
                f"{path} is not the published file of weights {entry.name!r}: it has {have}, "
                f"expected {want}. Get it again from {entry.source}, or remove it."
            )
