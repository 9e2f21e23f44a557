"""Which of the files that sources name a run takes up: a backfill by place or by date.

What an earlier run of the workspace took up stays in, so that each backfill adds to the dataset and
none takes away from it. The rest waits for a later run, which measures that alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from fnmatch import fnmatchcase
from pathlib import Path

from reelmill.datasets.ingest.cache import Cache
from reelmill.datasets.ingest.find import Found
from reelmill.datasets.ingest.remote import Remote, Rules, scheme_of, shown
from reelmill.datasets.ingest.table import Value
from reelmill.datasets.manifest import HASHES, printable, read_hashes
from reelmill.datasets.workspace import Workspace
from reelmill.errors import SourceError, UsageError

_DAY = re.compile(r"\d{4}-\d\d-\d\d")


@dataclass(frozen=True)
class Selection:
    """only: beginnings of paths or locations, or patterns with * ? [; any may fit. since, until:
    first and last day (UTC). column: of a manifest, that holds the date; else it is the time at
    which a file or an object was last written."""

    only: tuple[str, ...] = ()
    since: date | None = None
    until: date | None = None
    column: str = ""

    def __post_init__(self) -> None:
        if self.since and self.until and self.since > self.until:
            raise UsageError(f"since {self.since} is after until {self.until}.")
        if self.column and not self.dated:
            raise UsageError(f"a date is to be read from {self.column!r}, but no day is given.")
        if not all(self.only):
            raise UsageError("an empty beginning fits everything; name one, or none at all.")

    @property
    def dated(self) -> bool:
        return bool(self.since or self.until)

    def __bool__(self) -> bool:
        return bool(self.only) or self.dated

    def __str__(self) -> str:
        told = [" or ".join(map(printable, map(shown, self.only)))] if self.only else []
        told += [f"from {self.since}"] if self.since else []
        told += [f"to {self.until}"] if self.until else []
        return " ".join([*told, *([f"by {self.column}"] if self.column else [])])


@dataclass(frozen=True)
class Chosen:
    """found: what the run takes up. waiting: files that it leaves, `undated` of them for want of a
    date."""

    found: Found
    waiting: int = 0
    undated: int = 0


def choose(found: Found, selection: Selection, root: Path, rules: Rules) -> Chosen:
    """Those files that the selection fits, and those that the workspace at `root` knows.

    Raises SourceError where none is left, or where a column is lacking or holds no date.
    """
    if not selection:
        return Chosen(found)
    hashes, fetched = _known(root, rules)
    columns = {name for rows in found.columns.values() for row in rows for name in row}
    if selection.column and selection.column not in columns:
        raise SourceError(
            f"no manifest has the column {selection.column!r} that dates are to be read from; "
            f"there are: {', '.join(sorted(columns)[:12]) or 'none'}."
        )
    files = {f: (_fits(found, selection, f), printable(f) in hashes) for f in found.files}
    remotes = {r: (_fits(found, selection, r), r.key in fetched) for r in found.remotes}
    every = [*files.values(), *remotes.values()]
    undated = sum(fits is None and not known for fits, known in every)
    chosen = [bool(fits or known) for fits, known in every]
    if not any(chosen):
        told = f"; {undated} of them have no date" if undated else ""
        raise SourceError(
            f"none of {len(every)} files is {selection}{told}. Name another beginning or other "
            "days."
        )
    kept = replace(
        found,
        files=[f for f, (fits, known) in files.items() if fits or known],
        remotes=[r for r, (fits, known) in remotes.items() if fits or known],
    )
    return Chosen(kept, chosen.count(False), undated)


def _known(root: Path, rules: Rules) -> tuple[Mapping[str, object], Mapping[str, object]]:
    """Paths and locations that earlier runs of a workspace took up; none where there is none."""
    workspace = Workspace(root)
    hashes = read_hashes(workspace) if (workspace.manifest / HASHES).is_file() else {}
    return hashes, Cache(workspace, rules.cache_bytes).records if hashes else {}


def _fits(found: Found, selection: Selection, item: Path | Remote) -> bool | None:
    """None: it would fit, but has no date."""
    name = item.name if isinstance(item, Remote) else str(item)
    whole = name if isinstance(item, Remote) else str(item.absolute())
    if selection.only and not any(_begins(whole, place) for place in selection.only):
        return False
    if not selection.dated:
        return True
    rows = found.columns.get(name, ())
    days = _column_days(rows, selection.column, name) if selection.column else _written(item)
    if not days:
        return None
    first, last = selection.since or date.min, selection.until or date.max
    return any(first <= day <= last for day in days)


def _begins(name: str, place: str) -> bool:
    whole = shown(place) if scheme_of(place) else str(Path(place).absolute())
    if not scheme_of(place) and place.endswith("/"):
        whole += "/"
    return fnmatchcase(name, whole) if any(c in place for c in "*?[") else name.startswith(whole)


def _written(item: Path | Remote) -> list[date]:
    """The day on which a file was last written, where it is known."""
    if isinstance(item, Remote):
        return [] if item.written is None else [item.written]
    try:
        return [datetime.fromtimestamp(item.stat().st_mtime, UTC).date()]
    except OSError:  # the run will say so
        return []


def _column_days(rows: Sequence[Mapping[str, Value]], column: str, name: str) -> list[date]:
    """Days in a column: ISO dates, or times that begin with one; with an offset, in UTC."""
    days = []
    for value in (row.get(column) for row in rows):
        if value is None or value == "":
            continue
        try:
            if _DAY.fullmatch(str(value)):
                days.append(date.fromisoformat(str(value)))
                continue
            moment = datetime.fromisoformat(str(value))
            days.append((moment.astimezone(UTC) if moment.tzinfo else moment).date())
        except ValueError:
            raise SourceError(
                f"{name}: its {column} is {str(value)[:80]!r}, which is no date such as 2026-10-31."
            ) from None
    return days
