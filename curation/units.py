"""Units and their facts as columns: what decisions and reports read.

A unit is an asset (before the recipe's Segmenter) or a clip (after it). Columns are numpy arrays
over units, so that deciding 100,000 clips takes milliseconds per bound.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

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
        if self.fact.dtype is str:
            data = "\n".join("" if v is None else f"{len(v)} {v}" for v in self.values).encode()
        else:
            data = self.values.tobytes()
        return hashlib.sha256(data).hexdigest()

    @classmethod
    def empty(cls, fact: Fact, count: int) -> Column:
        text = fact.dtype is str
        values = np.full(count, None, dtype=object) if text else np.full(count, np.nan)
        return cls(fact, values, np.full(count, NOT_MEASURED, dtype=np.int8))


@dataclass
class Units:
    """All units of one level of one kind, sorted by id."""

    ids: list[str]
    clips: list[Clip]
    columns: dict[str, Column] = field(default_factory=dict)
    errors: dict[str, dict[int, tuple[str, str]]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def drawn(self) -> np.ndarray:
        """A number for each unit, [units]: an order that is random, yet the same for the same."""
        digests = b"".join(hashlib.sha256(unit.encode()).digest()[:8] for unit in self.ids)
        return np.frombuffer(digests, ">u8").astype(np.uint64)

    def load(self, stage: Stage, table: pa.Table | None) -> np.ndarray:
        """Fills the stage's columns from its facts table. Returns the rows that it has (bool)."""
        if table is not None:
            table = table.combine_chunks()  # take() of many chunks is slow
            rows = latest_rows(table, self.ids)
        else:
            rows = np.full(len(self), -1, dtype=np.int64)
        have = rows >= 0
        chosen = table.take(pa.array(rows[have])) if table is not None else None
        places = np.flatnonzero(have)
        errors: dict[int, tuple[str, str]] = {}
        if chosen is not None and chosen["cause"].null_count < len(chosen):
            lost = pc.indices_nonzero(pc.is_valid(chosen["cause"])).to_numpy()
            causes, messages = (chosen[n].take(lost).to_pylist() for n in ("cause", "message"))
            found = zip(causes, messages, strict=True)
            errors = dict(zip(places[lost].tolist(), found, strict=True))
        self.errors[stage.name] = errors
        for fact in stage.adds:
            column = Column.empty(fact, len(self))
            if chosen is not None and len(chosen):
                _fill(column, places, chosen[fact.name], chosen[f"{fact.name}?"])
            for row in errors:
                column.status[row] = FAILED
            self.columns[fact.name] = column
        return have

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
            {name: column.values[rows] for name, column in self.columns.items()},
            findings,
            rows,
        )


def _fill(
    column: Column, places: np.ndarray, values: pa.ChunkedArray, why: pa.ChunkedArray
) -> None:
    if column.fact.dtype is str:
        column.values[places] = np.array(values.to_pylist(), dtype=object)
        measured = np.array([v is not None for v in column.values[places]])
    else:
        numbers = (
            values.cast(pa.float64())
            if column.fact.dtype is not bool
            else values.cast(pa.int8()).cast(pa.float64())
        )
        column.values[places] = numbers.fill_null(float("nan")).to_numpy()
        measured = ~np.isnan(column.values[places])
    status = np.where(measured, MEASURED, NOT_MEASURED).astype(np.int8)
    if why.null_count < len(why):
        void = pc.indices_nonzero(pc.is_valid(why)).to_numpy()
        said = why.take(pa.array(void)).combine_chunks().dictionary_encode()  # few, many times
        parts = [text.partition(": ") for text in said.dictionary.to_pylist()]
        kinds = [
            NOT_APPLICABLE if kind == Status.NOT_APPLICABLE else NOT_MEASURED for kind, *_ in parts
        ]
        codes = said.indices.to_numpy()
        status[void] = np.array(kinds, dtype=np.int8)[codes]
        reasons = (parts[code][2] for code in codes.tolist())
        column.why.update(zip(places[void].tolist(), reasons, strict=True))
    column.status[places] = status
