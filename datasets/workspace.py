"""The workspace: one folder that holds everything a pipeline knows and makes (DESIGN section 3).

workspace.json   schema version                ledger/    facts, verdicts, commits (truth)
manifest/        source files and their hashes tracks/    arrays per frame or window
shards/<kind>/   curated shards                previews/  pictures and players for reports
latents/         latent shards                 runs/<id>/ run.json, report.html
cuts/            encoded clips on their way into shards
joined/<kind>/   shards of which short clips are joined
asked/           what models were asked, until a run ends well; which captions they gave
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from reelmill.errors import WorkspaceError

SCHEMA = 1
NOT_ANYONES = frozenset({"lost+found", ".prefect"})


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns the operating system's refusals to write into a WorkspaceError with the remedy."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise WorkspaceError(
                f"disk full while writing {path}. What is committed is safe: free some space or "
                "choose another --workspace, then run the same command again."
            ) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise WorkspaceError(
                f"cannot write {path}: {error.strerror}. Make the folder writable or choose "
                "another --workspace."
            ) from error
        raise


def commit_bytes(path: Path, data: bytes) -> None:
    """Writes a file so that it is there whole or not at all, also after a power cut."""
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.tmp-{os.getpid()}")
        try:
            with temporary.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def aside(path: Path) -> Path:
    """A name beside `path`, of the same suffix, for a file that will take its place once whole.

    What a writer leaves under such a name when it is killed, the next one to lock the workspace
    removes.
    """
    return path.with_name(f".{secrets.token_hex(4)}.tmp-{path.name}")


def table_bytes(table: pa.Table) -> bytes:
    """Parquet bytes of a table; equal tables give equal bytes."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", store_schema=False)
    return sink.getvalue().to_pybytes()


@dataclass(frozen=True)
class Workspace:
    """Paths of a workspace. Use `open_workspace` to create or check one."""

    root: Path

    @property
    def manifest(self) -> Path:
        return self.root / "manifest"

    @property
    def ledger(self) -> Path:
        return self.root / "ledger"

    @property
    def tracks(self) -> Path:
        return self.root / "tracks"

    @property
    def previews(self) -> Path:
        return self.root / "previews"

    @property
    def cuts(self) -> Path:
        return self.root / "cuts"

    @property
    def runs(self) -> Path:
        return self.root / "runs"

    @property
    def latents(self) -> Path:
        return self.root / "latents"

    @property
    def checkpoints(self) -> Path:
        return self.root / "checkpoints"

    @property
    def asked(self) -> Path:
        """What models were asked, until a run ends well, and which captions they gave."""
        return self.root / "asked"

    def forget_questions(self) -> None:
        """Removes what runs noted of their questions; captions stay known to later runs."""
        for folder in self.asked.glob("*/"):
            shutil.rmtree(folder, ignore_errors=True)

    def shards(self, kind: str) -> Path:
        return self.root / "shards" / kind

    def joined(self, kind: str) -> Path:
        """Shards of which short clips are joined (datasets/joining.py)."""
        return self.root / "joined" / kind

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Held while a run writes. Raises WorkspaceError, naming the holder, when it is taken."""
        path = self.root / ".lock"
        with writing(path):
            file = path.open("a+")
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.seek(0)
                holder = file.read().strip() or "another process"
                raise WorkspaceError(
                    f"workspace {self.root} is in use by {holder}. Wait for it, stop it, or give "
                    "this run a --workspace of its own."
                ) from None
            file.seek(0)
            file.truncate()
            file.write(f"process {os.getpid()}\n")
            file.flush()
            self._remove_leftovers()
            try:
                yield
            finally:
                file.seek(0)
                file.truncate()

    def _remove_leftovers(self) -> None:
        """Removes half-written files of runs that were killed: who holds the lock has no rival."""
        sets = (self.root / "shards", self.root / "joined")
        for folder in (self.manifest, self.ledger, self.tracks, self.previews, self.cuts, *sets):
            for leftover in folder.rglob(".*.tmp-*"):
                if leftover.is_file():
                    leftover.unlink(missing_ok=True)


def may_hold(root: Path) -> bool:
    """Whether a folder is a workspace, or could become one: not there, or nothing of anyone's."""
    if not root.is_dir():
        return not root.exists()
    if (root / "workspace.json").exists():
        return True
    return all(entry.name in NOT_ANYONES for entry in root.iterdir())


def open_workspace(root: Path, *, create: bool = True) -> Workspace:
    """The workspace at `root`, created when absent.

    Raises WorkspaceError when it is of another schema version, is no workspace, or cannot be made.
    """
    marker = root / "workspace.json"
    if not marker.exists():
        if not create:
            raise WorkspaceError(f"{root} is no workspace: it has no workspace.json.")
        if root.exists() and not root.is_dir():
            raise WorkspaceError(f"--workspace {root} is a file; name a folder.")
        if not may_hold(root):
            raise WorkspaceError(
                f"--workspace {root} holds other files and no workspace.json. Name an empty or a "
                "new folder, so that nothing of yours is touched."
            )
        commit_bytes(marker, json.dumps({"schema": SCHEMA}).encode())
        return Workspace(root)
    try:
        schema = json.loads(marker.read_text())["schema"]
    except (ValueError, KeyError, TypeError, UnicodeDecodeError) as error:
        raise WorkspaceError(f"{marker} cannot be read: {error!r}.") from error
    if schema != SCHEMA:
        raise WorkspaceError(
            f"workspace {root} has schema version {schema!r}; this Reelmill reads version "
            f"{SCHEMA}. Use the Reelmill version that made it, or curate into a new --workspace."
        )
    return Workspace(root)
