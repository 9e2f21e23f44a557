"""Reading Parquet that nobody vouches for: checked whole, and wrong only in our words."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from reelmill.errors import DatasetError


def read_parquet(
    source: Path | bytes,
    what: str,
    *,
    schema: pa.Schema | None = None,
    columns: Sequence[str] | None = None,
) -> pa.Table:
    """The table of a file or of its bytes, with exactly these columns if they are named.

    what: the file, for messages. schema: columns and types to read it as. Raises DatasetError for
    what is no Parquet, lacks a column, or holds text that is no UTF-8 or offsets that lead out.
    """
    try:
        place = pa.BufferReader(source) if isinstance(source, bytes) else source
        if schema is not None:
            table = pq.read_table(place, schema=schema, partitioning=None)
        else:
            names = list(columns) if columns is not None else None
            table = pq.read_table(place, columns=names, partitioning=None)
        table.validate(full=True)
    except FileNotFoundError as error:
        raise DatasetError(f"{what} is missing.") from error
    except (pa.ArrowException, OSError, ValueError, TypeError, MemoryError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DatasetError(f"{what} cannot be read: {reason}") from error
    wanted = schema.names if schema is not None else columns or ()
    lacking = [name for name in wanted if name not in table.column_names]
    if lacking:
        raise DatasetError(f"{what} has no column {lacking[0]!r}.")
    return table


def column_names(path: Path) -> list[str]:
    """Names of a file's columns. Raises DatasetError."""
    try:
        return list(pq.read_schema(path).names)
    except (pa.ArrowException, OSError, ValueError, MemoryError) as error:
        raise DatasetError(f"{path} cannot be read: {error}") from error
