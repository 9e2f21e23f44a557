"""Which clips are measured: a folder, or a manifest, of one or several systems."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from reelmill.errors import SourceError

PICTURES = frozenset({".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi"})
SOUNDS = frozenset({".flac", ".wav", ".m4a", ".mp3", ".ogg", ".opus", ".aac"})
MAX_CLIPS = 100_000
MAX_MANIFEST_BYTES = 1 << 30
_NAME = re.compile(r"^(?P<prompt>.+)_(?P<seed>\d{1,9})$")


class ClipEntry(BaseModel):
    """One clip to measure. path: absolute, or below the manifest's folder.

    model: the system that made it. prompt: id of a prompt of the bench, "" if of none. transcript:
    what a speech recogniser heard; text: what a reader of text saw; None: nobody listened, looked.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    path: str = Field(min_length=1, max_length=4096)
    model: str = Field(min_length=1, max_length=200)
    prompt: str = Field(default="", max_length=200)
    seed: int = Field(default=0, ge=0)
    transcript: str | None = Field(default=None, max_length=100_000)
    text: tuple[str, ...] | None = None

    @property
    def key(self) -> str:
        """Names the clip within one evaluation."""
        return f"{self.model}/{self.prompt}/{self.seed}/{self.path}"


def find_clips(source: Path) -> tuple[ClipEntry, ...]:
    """Clips of a folder or of a manifest (.jsonl or .parquet, one ClipEntry a row), sorted.

    In a folder, `<model>/<prompt>_<seed>.mp4`; without sub-folders, the folder's own name is the
    model. Names of another shape are clips of no prompt.
    Raises SourceError for a source that is missing, empty, damaged, or names a clip twice.
    """
    if source.is_dir():
        entries = list(_folder(source))
    elif source.is_file():
        entries = [_entry(source, i, row) for i, row in enumerate(_rows(source))]
    else:
        raise SourceError(f"{source}: there is no such folder or manifest.")
    if not entries:
        raise SourceError(
            f"{source} names no clip. Put clips as <model>/<prompt>_<seed>.mp4 in a folder, or "
            "write a manifest (.jsonl) with path, model, prompt and seed."
        )
    if len(entries) > MAX_CLIPS:
        raise SourceError(f"{source} names {len(entries)} clips, at most {MAX_CLIPS} are measured.")
    pairs = Counter((e.model, e.prompt, e.seed) for e in entries if e.prompt)
    twice = [pair for pair, n in pairs.items() if n > 1]
    if twice:
        model, prompt, seed = twice[0]
        raise SourceError(
            f"{source}: model {model!r}, prompt {prompt!r} and seed {seed} stand for more than one "
            "clip, so clips cannot be paired. Give each its own seed."
        )
    return tuple(sorted(entries, key=lambda e: e.key))


def _folder(source: Path) -> Iterator[ClipEntry]:
    for path in sorted(source.rglob("*")):
        below = path.relative_to(source)
        if path.suffix.lower() not in PICTURES | SOUNDS or any(
            p.startswith(".") for p in below.parts
        ):
            continue
        if not path.is_file():
            continue
        named = _NAME.match(path.stem)
        yield ClipEntry(
            path=str(path.resolve()),
            model=below.parts[0] if len(below.parts) > 1 else source.resolve().name or "clips",
            prompt=named["prompt"] if named else "",
            seed=int(named["seed"]) if named else 0,
        )


def _rows(source: Path) -> Iterator[Any]:
    if source.stat().st_size > MAX_MANIFEST_BYTES:
        raise SourceError(f"{source} is larger than {MAX_MANIFEST_BYTES >> 20} MiB: no manifest.")
    if source.suffix == ".parquet":
        try:
            yield from pq.read_table(source, partitioning=None).to_pylist()
        except (pa.ArrowException, OSError) as error:
            raise SourceError(f"{source} is no Parquet file: {str(error)[:200]}.") from error
        return
    if source.suffix != ".jsonl":
        raise SourceError(f"{source}: a manifest is a .jsonl or a .parquet file.")
    try:
        lines = source.read_text("utf-8").splitlines()
        yield from (json.loads(line) for line in lines if line.strip())
    except (ValueError, RecursionError) as error:
        raise SourceError(f"{source} is no list of JSON lines: {str(error)[:200]}.") from error


def _entry(source: Path, index: int, row: Any) -> ClipEntry:
    try:
        entry = ClipEntry.model_validate(row)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"])) or "row"
        raise SourceError(f"{source}, row {index + 1}: {where}: {first['msg']}.") from error
    path = Path(entry.path)
    if not path.is_absolute():
        home = source.resolve().parent
        path = (home / path).resolve()
        if not path.is_relative_to(home):
            raise SourceError(
                f"{source}, row {index + 1}: {entry.path} leads out of the manifest's folder. "
                "Write it as an absolute path."
            )
    return entry.model_copy(update={"path": str(path)})


def digest(path: Path) -> str:
    """sha256 of a clip's bytes. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
