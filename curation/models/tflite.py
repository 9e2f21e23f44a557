"""Reads the tensors of a TFLite file: what is stored in it, not how it would be run.

Only as much of the schema as the constant tensors of one graph need (TensorFlow Lite's
schema.fbs, version 3).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np

from reelmill.errors import WeightsError

MAX_BYTES = 1 << 28
DEQUANTIZE = 6
_TYPES = {0: "<f4", 2: "<i4", 9: "i1"}


@dataclass(frozen=True, slots=True)
class Operator:
    """code: number of the builtin operator. inputs: tensors, -1 for one left out."""

    code: int
    inputs: tuple[int, ...]


class TFLite:
    """The first graph of a file. Raises WeightsError for what is no such file."""

    def __init__(self, path: Path):
        self._path = path
        if path.stat().st_size > MAX_BYTES:
            raise WeightsError(f"{path} is larger than {MAX_BYTES} bytes.")
        data = path.read_bytes()
        if data[4:8] != b"TFL3":
            raise WeightsError(f"{path} is no TFLite file.")
        try:
            model = _Table(data, _u32(data, 0))
            codes = [max(c.i8(0), c.i32(3)) for c in model.tables(1)]
            graph = model.tables(2)[0]
            self._tensors = graph.tables(0)
            self._buffers = model.tables(4)
            self.operators = tuple(
                Operator(codes[op.i32(0)], tuple(op.numbers(1, "<i4").tolist()))
                for op in graph.tables(3)
            )
            outputs = [op.numbers(2, "<i4") for op in graph.tables(3)]
            self._unscaled = {
                int(out[0]): op.inputs[0]
                for op, out in zip(self.operators, outputs, strict=True)
                if op.code == DEQUANTIZE
            }
        except (struct.error, IndexError, ValueError) as error:
            raise WeightsError(f"{path} is a damaged TFLite file: {error}.") from error

    def tensor(self, index: int) -> np.ndarray:
        """A constant tensor as float32, its scales applied. Raises WeightsError if not stored."""
        index = self._unscaled.get(index, index)
        try:
            table = self._tensors[index]
            shape = tuple(table.numbers(0, "<i4").tolist())
            stored = self._buffers[table.i32(2)].numbers(0, "u1").view(_TYPES[table.i8(1)])
            scaling = table.table(4)
            scales = scaling.numbers(2, "<f4") if scaling else np.zeros(0, np.float32)
            zeros = scaling.numbers(3, "<i8") if scaling else np.zeros(0, np.int64)
            axis = scaling.i32(6) if scaling else 0
        except (struct.error, IndexError, KeyError, ValueError) as error:
            raise WeightsError(f"{self._path}: tensor {index} cannot be read: {error}.") from error
        if index < 0 or len(stored) != prod(shape) or not len(stored):
            raise WeightsError(f"{self._path}: tensor {index} of shape {shape} is not stored.")
        values = stored.astype(np.float32).reshape(shape)
        if not len(scales):
            return values
        over = [1] * len(shape)
        if len(scales) > 1:
            over[axis] = len(scales)
        zero = zeros.astype(np.float32) if len(zeros) else np.zeros(1, np.float32)
        if len(zero) != len(scales):
            zero = np.broadcast_to(zero[:1], scales.shape)
        return (values - zero.reshape(over)) * scales.reshape(over)


class _Table:
    """One table of a FlatBuffer: fields by their number in the schema."""

    def __init__(self, data: bytes, at: int):
        self._data, self._at = data, at
        fields = at - struct.unpack_from("<i", data, at)[0]
        count = (struct.unpack_from("<H", data, fields)[0] - 4) // 2
        self._fields = struct.unpack_from(f"<{count}H", data, fields + 4)

    def _place(self, field: int) -> int:
        """Where a field lies; 0 where it has its default."""
        offset = self._fields[field] if field < len(self._fields) else 0
        return self._at + offset if offset else 0

    def i32(self, field: int) -> int:
        place = self._place(field)
        return struct.unpack_from("<i", self._data, place)[0] if place else 0

    def i8(self, field: int) -> int:
        place = self._place(field)
        return struct.unpack_from("<b", self._data, place)[0] if place else 0

    def table(self, field: int) -> _Table | None:
        place = self._place(field)
        return _Table(self._data, place + _u32(self._data, place)) if place else None

    def numbers(self, field: int, dtype: str) -> np.ndarray:
        start, count = self._vector(field)
        if start < 0 or start + count * np.dtype(dtype).itemsize > len(self._data):
            raise ValueError("a vector runs over the end")
        return np.frombuffer(self._data, dtype, count, start)

    def tables(self, field: int) -> list[_Table]:
        start, count = self._vector(field)
        places = range(start, start + 4 * count, 4)
        return [_Table(self._data, at + _u32(self._data, at)) for at in places]

    def _vector(self, field: int) -> tuple[int, int]:
        place = self._place(field)
        if not place:
            return 0, 0
        start = place + _u32(self._data, place)
        return start + 4, _u32(self._data, start)


def _u32(data: bytes, at: int) -> int:
    return struct.unpack_from("<I", data, at)[0]
