"""Reading Parquet that nobody vouches for: checked whole, and wrong only in our words."""

from __future__ import annotations

from collections.abc import Collection, Sequence
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
    optional: Collection[str] = (),
) -> pa.Table:
    """The table of a file or of its bytes, with exactly these columns if they are named.

    what: the file, for messages. schema: columns and types to read it as. optional: of them, those
    that a file of an earlier version may lack: they are null. Raises DatasetError for
    what is no Parquet, lacks a column, or holds text that is no UTF-8 or offsets that lead out.
    """
    try:
        place = pa.BufferReader(source) if isinstance(source, bytes) else source
        wanted = schema.names if schema is not None else columns
        with pq.ParquetFile(place) as file:  # read_table() would load datasets, and pandas
            table = file.read(None if wanted is None else list(wanted), use_threads=False)
        table.validate(full=True)
        if len(set(table.column_names)) != table.num_columns:
            raise ValueError("two columns have one name")
        lacking = [name for name in wanted or () if name not in table.column_names]
        if schema is not None:
            for name in set(lacking).intersection(optional):
                void = pa.nulls(table.num_rows, schema.field(name).type)
                table = table.append_column(name, void)
                lacking.remove(name)
            table = table if lacking else table.select(schema.names).cast(schema)
    except FileNotFoundError as error:
        raise DatasetError(f"{what} is missing.") from error
    except (pa.ArrowException, OSError, ValueError, TypeError, MemoryError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DatasetError(f"{what} cannot be read: {reason}") from error
    if lacking:
        raise DatasetError(f"{what} has no column {lacking[0]!r}.")
    return table


def column_names(path: Path) -> list[str]:
    """Names of a file's columns. Raises DatasetError."""
    try:
        return list(pq.read_schema(path).names)
    except (pa.ArrowException, OSError, ValueError, MemoryError) as error:
        raise DatasetError(f"{path} cannot be read: {error}") from error
