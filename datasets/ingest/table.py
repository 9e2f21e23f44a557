"""A manifest that a user gives: CSV, TSV or Parquet, a row a file, with columns of their own.

One column says where the file is: `path` or `url`. All others (licence, source, ...) are carried
to the shard as they are. Paths are relative to the manifest, and stay in its folder or in one of
the folders that the user allows by name.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from reelmill.datasets.ingest.remote import (
    Rules,
    check_location,
    describe,
    scheme_of,
)
from reelmill.datasets.parquet import read_parquet
from reelmill.errors import DatasetError, SourceError

SUFFIXES = frozenset({".csv", ".tsv", ".parquet"})
PLACES = ("path", "url")
MAX_BYTES = 2 << 30
MAX_ROWS = 10_000_000
MAX_COLUMNS = 64
MAX_NAME = 64
MAX_VALUE = 8192
Value = str | int | float | bool | None


@dataclass(frozen=True)
class Row:
    """One row. place: an absolute local path, or a location. columns: the user's own."""

    place: str
    columns: Mapping[str, Value]


def is_manifest(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES


def read_rows(path: Path, rules: Rules) -> list[Row]:
    """All rows. Raises SourceError with the row's number for one that cannot be used."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise SourceError(f"manifest {path} is larger than {MAX_BYTES} bytes.")
        found = _parquet(path) if path.suffix.lower() == ".parquet" else _text(path)
        roots = [path.parent.resolve(), *(Path(root).resolve() for root in rules.roots)]
        rows: list[Row] = []
        for number, columns in found:
            if number > MAX_ROWS:
                raise SourceError(f"manifest {path} has more than {MAX_ROWS} rows.")
            rows.append(_row(columns, f"manifest {path}, row {number}", path, roots, rules))
    except (OSError, UnicodeDecodeError, csv.Error, DatasetError) as error:
        raise SourceError(f"manifest {path} cannot be read: {error}") from None
    if not rows:
        raise SourceError(f"manifest {path} has no row.")
    return rows


def _text(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    dialect = csv.excel_tab if path.suffix.lower() == ".tsv" else csv.excel
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, dialect, strict=True)
        names = next(reader, [])
        _check_names(names, path)
        for number, cells in enumerate(reader, 1):
            if not cells:
                continue
            if len(cells) != len(names):
                raise SourceError(
                    f"manifest {path}, row {number}: {len(cells)} cells under {len(names)} names."
                )
            yield number, dict(zip(names, cells, strict=True))


def _parquet(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    table = read_parquet(path, f"manifest {path}")
    _check_names(table.column_names, path)
    for field in table.schema:
        plain = (pa.types.is_string, pa.types.is_large_string, pa.types.is_integer,
                 pa.types.is_floating, pa.types.is_boolean, pa.types.is_null,
                 pa.types.is_dictionary)  # fmt: skip
        if not any(check(field.type) for check in plain):
            raise SourceError(
                f"manifest {path}: column {field.name!r} is {field.type}; text, numbers and truth "
                "values can be carried. Leave it out or write it as text."
            )
    number = 0
    for batch in table.to_batches(max_chunksize=10_000):
        for row in batch.to_pylist():
            number += 1
            yield number, row


def _check_names(names: list[str], path: Path) -> None:
    places = [name for name in names if name in PLACES]
    if len(places) != 1:
        raise SourceError(
            f"manifest {path} must have one column 'path' or 'url'; it has: "
            f"{describe(dict.fromkeys(names))}."
        )
    bad = [n for n in names if not n.isprintable() or not 0 < len(n) <= MAX_NAME]
    if bad or len(set(names)) != len(names) or len(names) > MAX_COLUMNS:
        raise SourceError(
            f"manifest {path}: at most {MAX_COLUMNS} columns with names of their own, each of 1 to "
            f"{MAX_NAME} printable characters; {(bad or names)[0][:80]!r} is not one."
        )


def _row(
    columns: Mapping[str, Any], where: str, path: Path, roots: list[Path], rules: Rules
) -> Row:
    name = next(n for n in PLACES if n in columns)
    place = columns[name]
    if not isinstance(place, str) or not place or "\x00" in place:
        raise SourceError(f"{where}: its {name} is empty or no text.")
    own = {n: _value(v, n, where) for n, v in columns.items() if n != name}
    if scheme_of(place):
        check_location(place, rules, where)
        return Row(place, own)
    try:
        local = (path.parent / place).resolve()
        there = local.is_file()
    except (OSError, RuntimeError) as error:  # too long; a loop of links
        why = getattr(error, "strerror", None) or "a loop of links"
        raise SourceError(f"{where}: {place[:200]!r}: {why}.") from None
    if not any(local.is_relative_to(root) for root in roots):
        raise SourceError(
            f"{where}: {place[:200]!r} leads out of {roots[0]}. If that is meant, allow its folder "
            "with --root."
        )
    if not there:
        raise SourceError(f"{where}: {place[:200]!r} is no file.")
    return Row(str(path.parent / place), own)


def _value(value: Any, name: str, where: str) -> Value:
    if isinstance(value, str):
        if len(value) > MAX_VALUE:
            raise SourceError(f"{where}: {name!r} has more than {MAX_VALUE} characters.")
        try:
            value.encode()
        except UnicodeEncodeError:
            raise SourceError(f"{where}: {name!r} is no valid text.") from None
        return value
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is None or isinstance(value, bool | int | float):
        return value
    raise SourceError(f"{where}: {name!r} is {type(value).__name__}, which cannot be carried.")


def rows_text(rows: list[Mapping[str, Value]]) -> str:
    """The user's columns of one asset as canonical JSON: a list, equal rows once; '' for none."""
    texts = {json.dumps(dict(r), sort_keys=True, ensure_ascii=False) for r in rows if r}
    return f"[{', '.join(sorted(texts))}]" if texts else ""
