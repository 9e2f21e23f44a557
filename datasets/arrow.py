"""Arrow arrays of numbers and of texts, made from their parts.

`pa.array` asks of everything that it is given whether it is pandas's, and loads pandas to know.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pyarrow as pa


def numbers(values: np.ndarray) -> pa.Array:
    """[n] numbers of any of numpy's plain types but bool, without copying them."""
    held = np.ascontiguousarray(values)
    kind = pa.from_numpy_dtype(held.dtype)
    return pa.Array.from_buffers(kind, len(held), [None, pa.py_buffer(held)])


def texts(values: Iterable[str | None]) -> pa.Array:
    """Texts, None for null. Raises UnicodeEncodeError for what is no UTF-8."""
    builder = pa.lib.StringBuilder()
    builder.append_values(values)
    return builder.finish()


def whole_numbers(column: pa.ChunkedArray) -> np.ndarray:
    """int64 [n] of a column of int32 or int64 without nulls; `to_numpy` would load pandas."""
    kind = np.dtype(f"i{column.type.bit_width // 8}")
    parts = [
        np.frombuffer(chunk.buffers()[1], kind, chunk.offset + len(chunk))[chunk.offset :]
        for chunk in column.chunks
        if len(chunk)
    ]
    return np.concatenate(parts).astype(np.int64) if parts else np.zeros(0, np.int64)
