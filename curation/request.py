"""What a run was asked to do, so that a later run can be asked the same with a bound moved.

    runs/<run>/request.json    written with the report

Paths are whole, secrets in locations left out: a source that needs one has to be named again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from reelmill.datasets.ingest.remote import shown
from reelmill.datasets.ingest.select import Selection
from reelmill.datasets.manifest import printable
from reelmill.datasets.sample import Kind
from reelmill.datasets.workspace import commit_bytes
from reelmill.errors import DatasetError, UsageError

if TYPE_CHECKING:
    from reelmill.curation.engine import CurateOptions

FILE = "request.json"
MAX_BYTES = 16 << 20


class Request(BaseModel):
    """The options of a run, as `CurateOptions` and the flow `curate` name them.

    lacking: sources whose secrets were left out.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = 1
    sources: tuple[str, ...]
    lacking: tuple[str, ...] = ()
    recipe: str | None = None
    overrides: tuple[str, ...] = ()
    weights: str | None = None
    allow_missing: bool = False
    measure_all: bool = False
    max_failed: float | None = None
    workers: int | None = None
    engine: Literal["local", "ray"] = "local"
    address: str | None = None
    ingest: dict[str, Any] = {}
    only: tuple[str, ...] = ()
    since: str | None = None
    until: str | None = None
    date_column: str | None = None

    @property
    def select(self) -> Selection:
        """What the run took up of its sources."""
        since, until = (day and date.fromisoformat(day) for day in (self.since, self.until))
        return Selection(self.only, since or None, until or None, self.date_column or "")

    def moved(self, workspace: Path, bounds: Sequence[str]) -> dict[str, Any]:
        """Parameters of the run that decides anew, with `bounds` (Stage.field=value) besides.

        A bound that was moved before gives way to the new value. Raises UsageError when a source
        cannot be read again without its secret.
        """
        if self.lacking:
            raise UsageError(
                f"{self.lacking[0]} had a secret in it, which was not kept. Move the bounds with "
                "`reelmill curate SOURCE --set Stage.field=value`."
            )
        fresh = {bound.partition("=")[0] for bound in bounds}
        kept = [old for old in self.overrides if old.partition("=")[0] not in fresh]
        given = self.model_dump(exclude={"schema_version", "lacking"})
        given |= {"sources": list(self.sources), "overrides": [*kept, *bounds]}
        return given | {"workspace": str(workspace)}


def save_request(options: CurateOptions, run: Path) -> None:
    """Writes request.json into a run's folder."""

    def whole(place: str) -> str:
        return shown(place) if "://" in place else str(Path(place).absolute())

    def beginning(place: str) -> str:
        return whole(place).rstrip("/") + ("/" if place.endswith("/") else "")

    recipe = options.recipe
    if recipe is not None and recipe not in set(Kind):
        recipe = whole(recipe)
    request = Request(
        sources=tuple(printable(whole(source)) for source in options.sources),
        lacking=tuple(shown(s) for s in options.sources if "://" in s and shown(s) != s),
        recipe=recipe,
        overrides=options.overrides,
        weights=None if options.weights is None else whole(str(options.weights)),
        allow_missing=options.allow_missing,
        measure_all=options.measure_all,
        max_failed=options.max_failed,
        workers=options.workers,
        engine=options.engine,
        address=options.address,
        ingest=asdict(options.ingest),
        only=tuple(printable(beginning(place)) for place in options.select.only),
        since=options.select.since.isoformat() if options.select.since else None,
        until=options.select.until.isoformat() if options.select.until else None,
        date_column=options.select.column or None,
    )
    commit_bytes(run / FILE, (request.model_dump_json(indent=1) + "\n").encode())


def read_request(run: Path) -> Request:
    """What the run of this folder was asked to do. Raises UsageError, DatasetError."""
    path = run / FILE
    if not path.is_file():
        raise UsageError(
            f"{run} does not say what was asked for: it was made by an earlier version. Move the "
            "bounds with `reelmill curate SOURCE --set Stage.field=value`."
        )
    try:
        if path.stat().st_size > MAX_BYTES:
            raise DatasetError(f"{path} is larger than {MAX_BYTES} bytes.")
        return Request.model_validate_json(path.read_bytes())
    except (ValidationError, OSError) as error:
        raise DatasetError(f"{path} is damaged. Curate again: {error}") from error
