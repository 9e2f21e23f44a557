"""Members of latent shards, many at once: read into one buffer, checked there, and looked at there.

Nothing is copied: a batch's tensors are views of the bytes as they were read. Samples of one bucket
have one safetensors header, which is parsed once. Records are parsed when somebody asks for them.
"""

from __future__ import annotations

import json
import math
import os
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

import numpy as np

from reelmill.errors import DatasetError

MAX_SAMPLE_BYTES = 1 << 30
ALIGNED = 64  # bytes between the samples that are read at once
NAMES = ("video", "audio", "text", "low")
MAX_HEADER_BYTES = 1 << 16
_DTYPES: dict[str, np.dtype[Any]] = {"F16": np.dtype("<f2"), "F32": np.dtype("<f4")}


class DamagedSampleError(DatasetError):
    """One sample that is not what was written. row: in the index."""

    def __init__(self, message: str, row: int):
        super().__init__(message)
        self.row = row


class Field(NamedTuple):
    """A tensor in the bytes of its sample. start: first of its bytes."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    start: int


@dataclass(frozen=True)
class Members:
    """Samples as they lie in their shards. buffer: uint8 [n, stride], a row for each sample.

    layouts: where each tensor lies, per sample. records: their JSON, not parsed yet.
    """

    buffer: np.ndarray
    layouts: Sequence[Mapping[str, Field]]
    records: Sequence[Record]

    def one(self, number: int, name: str) -> np.ndarray | None:
        """A tensor of a sample, None where it has none."""
        field = self.layouts[number].get(name)
        return None if field is None else _view(self.buffer[number : number + 1], field)[0]

    @cached_property
    def _alike(self) -> bool:
        """Whether all samples have one layout; those of equal headers share the object."""
        first = self.layouts[0]
        return all(layout is first for layout in self.layouts)

    def stacked(self, name: str) -> np.ndarray | None:
        """[n, ...] in the type it is stored in, None unless all samples have it.

        Raises DatasetError where shapes differ.
        """
        layouts = self.layouts[:1] if self._alike else self.layouts
        fields = [layout.get(name) for layout in layouts]
        there = [field for field in fields if field is not None]
        if len(there) < len(fields):
            return None
        if len(set(there)) == 1:
            return _view(self.buffer, there[0])
        shapes = {field.shape for field in there}
        if len(shapes) > 1:
            raise DatasetError(f"samples of one bucket have {name} of shapes {sorted(shapes)}.")
        whole = np.empty((len(there), *there[0].shape), max(field.dtype for field in there))
        for number, field in enumerate(there):
            whole[number] = _view(self.buffer[number : number + 1], field)[0]
        return whole

    def texts(self) -> tuple[np.ndarray, np.ndarray] | tuple[None, None]:
        """Embeddings [n, longest, D], padded with zeros, and bool [n, longest]: which are none."""
        if self._alike and (whole := self.stacked("text")) is not None and whole.shape[1]:
            return whole, np.ones(whole.shape[:2], np.bool_)
        found = [self.one(number, "text") for number in range(len(self.layouts))]
        texts = [text for text in found if text is not None]
        if len(texts) < len(found):
            return None, None
        lengths = np.array([len(text) for text in texts])
        longest = max(1, int(lengths.max()))
        mask = np.arange(longest) < lengths[:, None]
        padded = np.zeros((len(texts), longest, texts[0].shape[1]), max(t.dtype for t in texts))
        for row, text in zip(padded, texts, strict=True):
            row[: len(text)] = text
        return padded, mask


def read_members(
    files: Sequence[int], places: np.ndarray, rows: Sequence[int], where: Callable[[int], str]
) -> Members:
    """Reads samples, each with one call, and compares them with their crc32.

    files: descriptors, one for each sample. places: int64 [n, 6], offset, bytes and crc32 of its
    tensors, then of its record. rows, where: for messages. Raises DamagedSampleError.
    """
    offsets = places[:, (0, 3)]
    first = offsets.min(1)
    sizes = (offsets + places[:, (1, 4)]).max(1) - first
    bad = (sizes > MAX_SAMPLE_BYTES) | (places < 0).any(1)
    if bad.any():
        number = int(bad.argmax())
        told = places[number].tolist()
        raise DamagedSampleError(f"{where(rows[number])}: its index has {told}.", rows[number])
    stride = -(-int(sizes.max()) // ALIGNED) * ALIGNED
    whole = np.empty((len(rows), stride), np.uint8)
    view, begin, crc = memoryview(whole.reshape(-1)), 0, zlib.crc32  # type: ignore[arg-type]
    within = places.copy()
    within[:, (0, 3)] -= first[:, None]
    layouts, records = [], []
    layout: Mapping[str, Field] = {}
    header, like = b"", (-1, -1)  # of the sample before, which most are like
    for file, row, at, size, place in zip(
        files, rows, first.tolist(), sizes.tolist(), within.tolist(), strict=True
    ):
        mine = view[begin : begin + size]
        begin += stride
        try:
            got = os.preadv(file, [mine], at)
        except OSError as error:
            raise DatasetError(f"{where(row)} cannot be read: {error.strerror}.") from error
        data_at, data_size, data_crc, record_at, record_size, record_crc = place
        data = mine[data_at : data_at + data_size]
        record = mine[record_at : record_at + record_size]
        if got != size or crc(data) != data_crc or crc(record) != record_crc:
            raise DamagedSampleError(
                f"{where(row)} is damaged: {got} of {size} bytes, or their crc32 is not the "
                "index's. Encode that part again.",
                row,
            )
        if data_at != like[0] or data_size != like[1] or data[: len(header)] != header:
            try:
                layout = _layout_of(data, data_at)
            except ValueError as error:
                told = f"{where(row)} is no latent sample: {error}."
                raise DamagedSampleError(told, row) from error
            header, like = (
                bytes(data[: 8 + int.from_bytes(data[:8], "little")]),
                (data_at, data_size),
            )
        layouts.append(layout)
        records.append(Record(record, row, where))
    return Members(whole, layouts, records)


def _view(rows: np.ndarray, field: Field) -> np.ndarray:
    """A tensor of each row of bytes [n, stride], as views."""
    size = math.prod(field.shape) * field.dtype.itemsize
    if not size:
        return np.zeros((len(rows), *field.shape), field.dtype)
    part = rows[:, field.start : field.start + size]
    return part.view(field.dtype).reshape(len(rows), *field.shape)


class Record(Mapping[str, Any]):
    """A sample's JSON, parsed when it is first looked into. where: names its row in messages."""

    def __init__(self, data: memoryview, row: int, where: Callable[[int], str]):
        self._data, self._row, self._where = data, row, where
        self._fields: dict[str, Any] | None = None

    @property
    def fields(self) -> dict[str, Any]:
        """Raises DatasetError for what is no JSON object."""
        if self._fields is None:
            try:
                found = json.loads(bytes(self._data))
            except (ValueError, RecursionError) as error:
                told = f"{self._where(self._row)} is no latent sample: {error}"
                raise DamagedSampleError(told, self._row) from error
            if not isinstance(found, dict):
                told = f"{self._where(self._row)} is no latent sample: its record is no object."
                raise DamagedSampleError(told, self._row)
            self._fields = found
        return self._fields

    def __getitem__(self, name: str) -> Any:
        return self.fields[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.fields)

    def __len__(self) -> int:
        return len(self.fields)


class Captions(Sequence[str]):
    """The captions of records, read when they are asked for."""

    def __init__(self, records: Sequence[Mapping[str, Any]]):
        self._records = records

    def __getitem__(self, place: Any) -> Any:
        if isinstance(place, slice):
            return Captions(self._records[place])
        return str(self._records[place].get("caption", ""))

    def __len__(self) -> int:
        return len(self._records)


def _layout_of(data: memoryview, at: int) -> Mapping[str, Field]:
    """Where the tensors of a safetensors file lie, `at` further on. Raises ValueError for what is
    none."""
    size = int.from_bytes(data[:8], "little")
    if len(data) < 8 or not 2 <= size <= min(MAX_HEADER_BYTES, len(data) - 8):
        raise ValueError(f"a header of {size} bytes in {len(data)}")
    return _layout(bytes(data[8 : 8 + size]), len(data) - 8 - size, at)


@lru_cache(maxsize=4096)
def _layout(header: bytes, payload: int, at: int) -> Mapping[str, Field]:
    """payload: bytes behind the header. at: where the file begins."""
    found: dict[str, Field] = {}
    try:
        entries = json.loads(header)
        for name in NAMES:
            if name not in entries:
                continue
            entry = entries[name]
            dtype, shape = _DTYPES[entry["dtype"]], tuple(entry["shape"])
            first, last = entry["data_offsets"]
            if not all(type(n) is int and n >= 0 for n in (*shape, first, last)):
                raise ValueError(f"{name} of shape {shape} at {first}")
            size = math.prod(shape) * dtype.itemsize
            if last - first != size or last > payload or first % dtype.itemsize:
                raise ValueError(f"{name} of shape {shape} at {first} to {last} of {payload} bytes")
            found[name] = Field(dtype, shape, at + 8 + len(header) + first)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"its header is none: {error!r}") from error
    if "video" not in found or len(found["video"].shape) != 4:
        raise ValueError(f"no video of 4 axes, but {', '.join(found) or 'nothing'}")
    low, video = found.get("low"), found["video"].shape
    if low is not None and (len(low.shape) != 4 or 2 * low.shape[1] - 1 != video[1]):
        raise ValueError(f"low of shape {low.shape} beside video of shape {video}")
    if any(len(found[name].shape) != 2 for name in ("audio", "text") if name in found):
        raise ValueError("sound or text that has not two axes")
    return found
