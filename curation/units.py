"""Units and their facts as columns: what decisions and reports read.

A unit is an asset (before the recipe's Segmenter) or a clip (after it). Columns are numpy arrays
over units, so that deciding 100,000 clips takes milliseconds per bound.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from reelmill.curation.stage import (
    Fact,
    Facts,
    FactTable,
    NotApplicable,
    NotMeasured,
    NoValue,
    Stage,
)
from reelmill.datasets.arrow import numbers, texts
from reelmill.datasets.ledger import latest_rows
from reelmill.datasets.sample import Clip, Status

MEASURED, NOT_APPLICABLE, NOT_MEASURED, FAILED = range(4)
STATUS = (Status.MEASURED, Status.NOT_APPLICABLE, Status.NOT_MEASURED, Status.FAILED)
_ARROW = {float: pa.float64(), int: pa.int64(), bool: pa.bool_(), str: pa.string()}


def facts_schema(stage: Stage) -> pa.Schema:
    """Columns of a stage's facts table: each fact, and why it has no value (`<fact>?`)."""
    columns: list[tuple[str, pa.DataType]] = [("unit", pa.string())]
    for fact in stage.adds:
        columns += [(fact.name, _ARROW[fact.dtype]), (f"{fact.name}?", pa.string())]
    return pa.schema([*columns, ("cause", pa.string()), ("message", pa.string())])


def facts_row(unit: str, stage: Stage, facts: Facts) -> dict[str, object]:
    """A row of the facts table. Raises TypeError when a stage does not return what it declares."""
    row: dict[str, object] = {"unit": unit}
    declared = {fact.name for fact in stage.adds}
    if set(facts) != declared:
        raise TypeError(
            f"{stage.name} returned facts {sorted(facts)}, it declares {sorted(declared)}"
        )
    for fact in stage.adds:
        value = facts[fact.name]
        if isinstance(value, NotApplicable):
            row[f"{fact.name}?"] = f"{Status.NOT_APPLICABLE}: {value.why}"
        elif isinstance(value, NotMeasured):
            row[f"{fact.name}?"] = f"{Status.NOT_MEASURED}: {value.why}"
        elif fact.dtype is float and not np.isfinite(float(value)):  # type: ignore[arg-type]
            raise ValueError(f"{stage.name} measured {fact.name} = {value}, which is no number")
        else:
            row[fact.name] = fact.dtype(value)
    return row


def failed_row(unit: str, cause: str, message: str) -> dict[str, object]:
    return {"unit": unit, "cause": cause, "message": message[:1000]}


@dataclass
class Column:
    """One fact over all units. values: float64 with NaN, or object with None for text.

    status: int8 codes of this module. why: reason for having no value, by row.
    """

    fact: Fact
    values: np.ndarray
    status: np.ndarray
    why: dict[int, str] = field(default_factory=dict)

    def digest(self) -> str:
        """sha256 of the values."""
        parts = texts(self.values).buffers() if self.fact.dtype is str else [self.values.tobytes()]
        whole = hashlib.sha256()
        for part in parts:  # of texts: which there are, where they end, all letters
            whole.update(b"" if part is None else part)
        return whole.hexdigest()

    @classmethod
    def empty(cls, fact: Fact, count: int) -> Column:
        text = fact.dtype is str
        values = np.full(count, None, dtype=object) if text else np.full(count, np.nan)
        return cls(fact, values, np.full(count, NOT_MEASURED, dtype=np.int8))


class Columns(Mapping[str, Column]):
    """Columns by the name of their fact. One that is made `later` is made when it is looked at."""

    def __init__(self) -> None:
        self._held: dict[str, Column | Callable[[], Column]] = {}

    def later(self, name: str, make: Callable[[], Column]) -> None:
        self._held[name] = make

    def __getitem__(self, name: str) -> Column:
        held = self._held[name]
        if not isinstance(held, Column):
            held = self._held[name] = held()
        return held

    def __contains__(self, name: object) -> bool:
        return name in self._held

    def __iter__(self) -> Iterator[str]:
        return iter(self._held)

    def __len__(self) -> int:
        return len(self._held)


class _Chosen(Mapping[str, np.ndarray]):
    """The values of columns at some rows."""

    def __init__(self, columns: Mapping[str, Column], rows: np.ndarray):
        self._columns, self._rows = columns, rows
        self._values: dict[str, np.ndarray] = {}

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self._values:
            self._values[name] = self._columns[name].values[self._rows]
        return self._values[name]

    def __contains__(self, name: object) -> bool:
        return name in self._columns

    def __iter__(self) -> Iterator[str]:
        return iter(self._columns)

    def __len__(self) -> int:
        return len(self._columns)


@dataclass
class Units:
    """All units of one level of one kind, sorted by id.

    lean: columns are made when they are looked at, which saves those that nothing decides on.
    """

    ids: list[str]
    clips: list[Clip]
    lean: bool = False
    columns: Columns = field(default_factory=Columns)
    errors: dict[str, dict[int, tuple[str, str]]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def drawn(self) -> np.ndarray:
        """A number for each unit, [units]: an order that is random, yet the same for the same."""
        digests = b"".join(hashlib.sha256(unit.encode()).digest()[:8] for unit in self.ids)
        return np.frombuffer(digests, ">u8").astype(np.uint64)

    @cached_property
    def names(self) -> pa.Array:
        """The ids, as the ledger looks for them."""
        return texts(self.ids)

    def load(
        self, stage: Stage, table: pa.Table | None, rows: np.ndarray | None = None
    ) -> np.ndarray:
        """Fills the stage's columns from its facts table. Returns the rows that it has (bool).

        rows: of each unit in the table, int64 [units], -1 for none; where that is known.
        """
        if rows is None and table is not None:
            rows = latest_rows(table, self.names)
        if rows is None:
            rows = np.full(len(self), -1, dtype=np.int64)
        have = rows >= 0
        places = np.flatnonzero(have)
        chosen = None if table is None or not len(places) else table
        at = numbers(rows[have])
        errors: dict[int, tuple[str, str]] = {}
        if chosen is not None and chosen["cause"].null_count < len(chosen):
            causes, messages = (_taken(chosen[name], at) for name in ("cause", "message"))
            lost = pc.indices_nonzero(pc.is_valid(causes))
            found = zip(causes.take(lost).to_pylist(), messages.take(lost).to_pylist(), strict=True)
            errors = dict(zip(places[lost.to_numpy()].tolist(), found, strict=True))
        self.errors[stage.name] = errors
        for fact in stage.adds:
            make = partial(self._column, fact, chosen, at, places, errors)
            self.columns.later(fact.name, make)
            if not self.lean:
                self.columns[fact.name]
        return have

    def _column(
        self,
        fact: Fact,
        table: pa.Table | None,
        at: pa.Array,
        places: np.ndarray,
        errors: Collection[int],
    ) -> Column:
        """at: rows of the table for the units at `places`."""
        column = Column.empty(fact, len(self))
        if table is not None:
            _fill(column, places, _taken(table[fact.name], at), _taken(table[f"{fact.name}?"], at))
        for row in errors:
            column.status[row] = FAILED
        return column

    def facts_of(self, row: int) -> dict[str, float | str | NoValue]:
        """All facts of one unit so far, as a ClipStage sees them."""
        found: dict[str, float | str | NoValue] = {}
        for name, column in self.columns.items():
            if column.status[row] == MEASURED:
                value = column.values[row]
                found[name] = value if isinstance(value, str) else float(value)
            elif column.status[row] == NOT_APPLICABLE:
                found[name] = NotApplicable(column.why.get(row, ""))
            else:
                found[name] = NotMeasured(column.why.get(row, ""))
        return found

    def table(
        self, rows: np.ndarray, findings: Mapping[str, np.ndarray] | None = None
    ) -> FactTable:
        return FactTable(
            [self.clips[r] for r in rows],
            _Chosen(self.columns, rows),
            findings,
            rows,
        )


def _taken(column: pa.ChunkedArray, at: pa.Array) -> pa.Array:
    whole = column.combine_chunks()  # take() of many chunks is slow
    return whole.take(at)


def _fill(column: Column, places: np.ndarray, values: pa.Array, why: pa.Array) -> None:
    if column.fact.dtype is str:
        column.values[places] = values.to_numpy(zero_copy_only=False)
        measured = values.is_valid().to_numpy(zero_copy_only=False)
    else:
        numbers = (
            values.cast(pa.float64())
            if column.fact.dtype is not bool
            else values.cast(pa.int8()).cast(pa.float64())
        )
        column.values[places] = numbers.fill_null(float("nan")).to_numpy(zero_copy_only=False)
        measured = ~np.isnan(column.values[places])
    status = np.where(measured, MEASURED, NOT_MEASURED).astype(np.int8)
    if why.null_count < len(why):
        lacking = pc.indices_nonzero(pc.is_valid(why))
        said = why.take(lacking).dictionary_encode()  # few, many times
        void = lacking.to_numpy()
        parts = [text.partition(": ") for text in said.dictionary.to_pylist()]
        kinds = [
            NOT_APPLICABLE if kind == Status.NOT_APPLICABLE else NOT_MEASURED for kind, *_ in parts
        ]
        codes = said.indices.to_numpy()
        status[void] = np.array(kinds, dtype=np.int8)[codes]
        reasons = (parts[code][2] for code in codes.tolist())
        column.why.update(zip(places[void].tolist(), reasons, strict=True))
    column.status[places] = status
