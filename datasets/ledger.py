"""The ledger: what was measured and decided, in append-only Parquet (DESIGN sections 3 and 4).

    ledger/commits/<name>.json                 lists the files of one commit with their sha256
    ledger/facts/<Stage>/<key>/<digest>.parquet   one row per unit: its facts
    ledger/segments/<key>/<digest>.parquet        one row per clip of an asset
    ledger/spans/<key>/<digest>.parquet           one row per asset: its whole span
    ledger/verdicts/<run>.parquet                 what a run decided, one row per unit
    tracks/<Stage>/<key>/<digest>.parquet         one row per asset and array

A commit file is written last, so a file that no commit lists does not exist: kill -9 at any point
loses at most the work in flight. `<key>` is a stage's measurement key; a unit is an asset or a
clip. Files are named by the digest of their rows, so equal work gives equal names and bytes.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from reelmill.datasets.arrow import texts
from reelmill.datasets.parquet import column_names, read_parquet
from reelmill.datasets.read_ahead import ReadAhead
from reelmill.datasets.workspace import Workspace, commit_bytes, table_bytes
from reelmill.errors import DatasetError

MAX_TRACK_BYTES = 1 << 31
_UNITS = pa.schema([("unit", pa.string())])
_TRACKS = pa.schema(
    [
        ("unit", pa.string()),
        ("name", pa.string()),
        ("dtype", pa.string()),
        ("shape", pa.list_(pa.int64())),
        ("data", pa.large_binary()),
    ]
)
_TRACK_DTYPES = frozenset(
    f"{order}{kind}{size}"
    for order in "<|"
    for kind, sizes in {"b": (1,), "i": (1, 2, 4, 8), "u": (1, 2, 4, 8), "f": (2, 4, 8)}.items()
    for size in sizes
)

Names: TypeAlias = Sequence[str] | pa.Array  # of units; who asks twice gives the same object


@dataclass
class Batch:
    """Tables gathered for one commit. Paths are relative to the workspace."""

    tables: dict[str, list[pa.Table]] = field(default_factory=dict)

    def add(self, folder: str, table: pa.Table) -> None:
        if table.num_rows:
            self.tables.setdefault(folder, []).append(table)


class Ledger:
    """Reads committed tables by folder and commits new ones."""

    def __init__(self, workspace: Workspace):
        self.workspace = workspace
        self._checked: set[str] = set()
        self._held: tuple[str, pa.Table | None] = ("", None)  # the folder that was read last
        # What was looked for last, among which names, and where they stand.
        self._found: tuple[str, Names, pa.ChunkedArray, np.ndarray] | None = None
        self._ahead: ReadAhead[pa.Table | None] = ReadAhead(self._read_folder)
        self._read_commits()

    def _read_commits(self) -> None:
        self._ahead.stop()
        self._held, self._found = ("", None), None
        self._committed: dict[str, dict[str, str]] = {}
        for path in sorted((self.workspace.ledger / "commits").glob("*.json")):
            self._note(self._read_commit(path))

    def _read_commit(self, path: Path) -> Mapping[str, str]:
        try:
            files = json.loads(path.read_text())["files"]
            if not all(isinstance(k, str) and isinstance(v, str) for k, v in files.items()):
                raise ValueError("not a table of names and digests")
        except (ValueError, KeyError, TypeError, AttributeError, UnicodeDecodeError) as error:
            raise DatasetError(
                f"ledger commit {path} is damaged ({error}). Delete it to measure its part again."
            ) from error
        return files

    def _note(self, files: Mapping[str, str]) -> None:
        self._held, self._found = ("", None), None
        for name, digest in files.items():
            folder, _, file = name.rpartition("/")
            self._ahead.forget(folder)
            self._committed.setdefault(folder, {})[file] = digest

    def commit(self, batch: Batch) -> None:
        """Writes the batch's tables, then the commit that makes them count."""
        files: dict[str, str] = {}
        for folder, tables in sorted(batch.tables.items()):
            data = table_bytes(pa.concat_tables(tables).sort_by("unit"))
            digest = hashlib.sha256(data).hexdigest()
            name = f"{folder}/{digest[:24]}.parquet"
            commit_bytes(self.workspace.root / name, data)
            files[name] = digest
        self._write_commit(files)
        self._note(files)

    def _write_commit(self, files: Mapping[str, str]) -> None:
        if not files:
            return
        text = json.dumps({"files": files}, indent=1, sort_keys=True)
        name = hashlib.sha256(text.encode()).hexdigest()[:24]
        commit_bytes(self.workspace.ledger / "commits" / f"{name}.json", text.encode())

    def drop(self, lost: Callable[[str, pa.Table], np.ndarray]) -> int:
        """Takes rows out of the ledger for good, and returns how many.

        lost: of a folder and a table with the columns `unit` and, where there is one, `cause` of a
        committed file, which rows go (bool [rows]). Every commit is replaced by one without them
        before it is removed: kill -9 leaves each row there whole, or gone.
        """
        count = 0
        for path in sorted((self.workspace.ledger / "commits").glob("*.json")):
            before = self._read_commit(path)
            after = dict(before)
            for name in before:
                folder, _, file = name.rpartition("/")
                where = next(p for p in self.files(folder) if p.name == file)
                columns = [c for c in column_names(where) if c in ("unit", "cause")]
                gone = lost(folder, _read(where, columns=columns))
                if not gone.any():
                    continue
                count += int(gone.sum())
                del after[name]
                rest = _read(where).filter(pa.array(~gone))
                if rest.num_rows:
                    data = table_bytes(rest)
                    digest = hashlib.sha256(data).hexdigest()
                    kept = f"{folder}/{digest[:24]}.parquet"
                    commit_bytes(self.workspace.root / kept, data)
                    after[kept] = digest
            if after != before:
                self._write_commit(after)
                path.unlink()
        self._read_commits()
        self._sweep()
        return count

    def _sweep(self) -> None:
        """Deletes files that no commit lists: rows that went, and what kill -9 left behind."""
        root = self.workspace.root
        for path in [*root.glob("ledger/*/**/*.parquet*"), *root.glob("tracks/**/*.parquet*")]:
            folder = str(path.parent.relative_to(root))
            if folder != "ledger/verdicts" and path.name not in self._committed.get(folder, {}):
                path.unlink()

    def _listed(self, folder: str) -> list[Path]:
        return [self.workspace.root / folder / name for name in sorted(self._in(folder))]

    def _in(self, folder: str) -> Mapping[str, str]:
        """Digests of the committed files of a folder, by name."""
        return self._committed.get(folder, {})

    def files(self, folder: str) -> list[Path]:
        """Committed files of a folder, each checked once against its sha256."""
        paths = self._listed(folder)
        for path in paths:
            digest = self._in(folder)[path.name]
            if str(path) not in self._checked:
                try:
                    with path.open("rb") as file:
                        found = hashlib.file_digest(file, "sha256").hexdigest()
                except FileNotFoundError:
                    found = "missing"
                if found != digest:
                    raise DatasetError(
                        f"ledger file {path} is {'missing' if found == 'missing' else 'altered'}: "
                        f"its commit names sha256 {digest[:16]}. Restore it, or delete the commits "
                        f"that list it in {self.workspace.ledger / 'commits'} to measure again."
                    )
                self._checked.add(str(path))
        return paths

    def read_ahead(self, folders: Iterable[str]) -> None:
        """These folders will be asked for next, in this order: a thread begins to read them."""
        self._ahead.want(folders)

    def table(self, folder: str) -> pa.Table | None:
        """All committed rows of a folder, or None. The last folder's are held in memory."""
        if self._held[0] != folder:
            self._held = (folder, self._ahead.take(folder))
        return self._held[1]

    def _read_folder(self, folder: str) -> pa.Table | None:
        """Rows of a folder. Of tracks, their units: TrackReader checks a file that it reads."""
        tracks = not folder.startswith("ledger/")
        files = self._listed(folder) if tracks else self.files(folder)
        if not files:
            return None
        schema = _UNITS if tracks else None
        try:
            tables = [_read(file, schema=schema) for file in files]
            tables.sort(key=lambda table: str(table["unit"][0]) if len(table) else "")
            table = pa.concat_tables(tables)
            if table.schema.field("unit").type != pa.string():
                raise TypeError("their units are no text")
            return table
        except (pa.ArrowException, LookupError, TypeError) as error:
            raise DatasetError(f"ledger files of {folder} do not fit together: {error}") from error

    def unit_names(self, folder: str) -> pa.ChunkedArray:
        """The unit of every row of a folder. Of tracks, other columns are not read."""
        ours = folder.startswith("ledger/")  # who asks which are there wants the rest of it next
        table = Ledger.table(self, folder) if ours else self._ahead.take(folder)
        return _UNITS.empty_table()["unit"] if table is None else table["unit"]

    def units(self, folder: str) -> set[str]:
        """Units that have a row in a folder."""
        return set(self.unit_names(folder).to_pylist())

    def rows(self, folder: str, units: Names) -> np.ndarray:
        """Row of a folder's table for each unit, int64 [units]: the first, or -1 for none."""
        if self._found is None or self._found[0] != folder or self._found[1] is not units:
            names = self.unit_names(folder)
            last = self._found
            if last is not None and last[1] is units and last[2].equals(names):
                found = last[3]  # folders of one run's measurements often list the same units
            else:
                found = _places(units, names)
            self._found = (folder, units, names, found)
        return self._found[3]

    def has(self, folder: str, units: Names) -> np.ndarray:
        """Which of these units have a row in a folder: bool [units]."""
        return self.rows(folder, units) >= 0


def tracks_table(unit: str, tracks: Mapping[str, np.ndarray]) -> pa.Table:
    """Arrays of one asset as rows; dtype must be a plain number or bool."""
    names = sorted(tracks)
    arrays = [np.ascontiguousarray(tracks[name]) for name in names]
    for name, array in zip(names, arrays, strict=True):
        if array.dtype.str not in _TRACK_DTYPES:
            raise TypeError(f"track {name} has dtype {array.dtype}, which a track cannot hold")
    return pa.table(
        [
            [unit] * len(names),
            names,
            [array.dtype.str for array in arrays],
            [list(array.shape) for array in arrays],
            [array.tobytes() for array in arrays],
        ],
        schema=_TRACKS,
    )


class TrackReader:
    """Random access to the tracks of one stage's folder, by unit.

    One file is held at a time: ask for units in the order that `sorted_by_file` gives.
    """

    def __init__(self, ledger: Ledger, folder: str):
        self._file_of: dict[str, Path] = {}
        for file in ledger.files(folder):
            units = _read(file, columns=["unit"])[0].to_pylist()
            self._file_of.update(dict.fromkeys(units, file))
        self._open: tuple[Path | None, dict[str, dict[str, np.ndarray]]] = (None, {})

    def sorted_by_file(self, units: Sequence[str]) -> list[int]:
        """Places of the units, those of one file together; units without tracks come first."""
        files = {file: i for i, file in enumerate(dict.fromkeys(self._file_of.values()))}
        place = [files[self._file_of[u]] if u in self._file_of else -1 for u in units]
        return sorted(range(len(units)), key=place.__getitem__)

    def __contains__(self, unit: str) -> bool:
        return unit in self._file_of

    def __getitem__(self, unit: str) -> dict[str, np.ndarray]:
        file = self._file_of[unit]
        if self._open[0] != file:
            found: dict[str, dict[str, np.ndarray]] = {}
            for row in _read(file, schema=_TRACKS).to_pylist():
                found.setdefault(row["unit"], {})[row["name"]] = _array(row, file)
            self._open = (file, found)
        return self._open[1][unit]


def _array(row: Mapping[str, Any], file: Path) -> np.ndarray:
    dtype, shape, data = row["dtype"], row["shape"], row["data"]
    try:
        expected = math.prod(shape) * int(dtype[2:]) if dtype in _TRACK_DTYPES else -1
        if expected != len(data) or expected > MAX_TRACK_BYTES or any(n < 0 for n in shape):
            raise ValueError(f"dtype {dtype!r}, shape {shape}, {len(data)} bytes")
        return np.frombuffer(data, dtype=dtype).reshape(shape)
    except (TypeError, ValueError) as error:
        raise DatasetError(
            f"track {row['name']!r} of {row['unit']} in {file} is damaged: {error}."
        ) from error


def _read(
    file: Path, *, columns: Sequence[str] | None = None, schema: pa.Schema | None = None
) -> pa.Table:
    return read_parquet(file, f"ledger file {file}", columns=columns, schema=schema)


def latest_rows(table: pa.Table, units: Names) -> np.ndarray:
    """Row number in `table` for each unit, -1 where it has none; the first of equal units."""
    return _places(units, table["unit"])


def _places(units: Names, among: pa.ChunkedArray) -> np.ndarray:
    names = units if isinstance(units, pa.Array) else texts(units)
    places = pc.index_in(names, value_set=among)
    return places.fill_null(-1).to_numpy().astype(np.int64)


def rows_table(rows: Iterable[Mapping[str, Any]], schema: pa.Schema) -> pa.Table:
    return pa.Table.from_pylist(list(rows), schema=schema)
