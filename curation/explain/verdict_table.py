"""The verdicts of a run as a table that questions are asked of, by DuckDB."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb

from reelmill.curation.run_record import RunRecord, read_run
from reelmill.datasets.manifest import printable
from reelmill.datasets.workspace import Workspace
from reelmill.errors import DatasetError, UsageError

MIN_PREFIX = 6
SHOWN = 5
_HEX = re.compile(r"[0-9a-f]+")

Row = dict[str, Any]


class VerdictTable:
    """One row per file without a recipe, per asset and per clip (reelmill.curation.verdicts)."""

    def __init__(self, workspace: Workspace, run: str = "last"):
        """Raises UsageError for a run that is not there, DatasetError for one that is damaged."""
        self.workspace = workspace
        self.record: RunRecord = read_run(workspace, run)
        self.path = self.record.verdicts(workspace)

    def rows(self, where: str = "true", values: Sequence[Any] = ()) -> list[Row]:
        """Rows for which a condition holds, in order. `where` is ours; values fill its `?`."""
        query = f"select * from read_parquet(?) where {where} order by asset, level, unit, path"
        try:
            with duckdb.connect() as database:
                found = database.execute(query, [str(self.path), *values])
                names = [column[0] for column in found.description or ()]
                return [dict(zip(names, row, strict=True)) for row in found.fetchall()]
        except duckdb.Error as error:
            raise DatasetError(
                f"verdicts {self.path} cannot be read: {str(error).splitlines()[0]}. Curate again."
            ) from error

    def find(self, text: str) -> list[Row]:
        """Rows of the one clip, asset or file that a user names.

        text: a clip's id, the beginning of an asset's sha256, or a path: as it was given to
        `curate`, from the root, or its last parts. Of an asset or path: rows of all levels.
        Raises UsageError when the text names nothing, or more than one asset.
        """
        clips = self.rows("unit = ? and level = 'clip'", [text])
        if clips:
            return clips
        found = self._of_asset(text) or self._of_path(text)
        if not found:
            raise UsageError(
                f"run {self.record.run} saw no {text!r}. Give a clip's id, {MIN_PREFIX} digits or "
                "more of an asset's sha256, or the path of a source file."
            )
        assets = sorted({row["asset"] for row in found})
        if len(assets) > 1:
            paths = sorted({row["path"] for row in found})
            named = ", ".join(paths[:SHOWN]) + (", ..." if len(paths) > SHOWN else "")
            raise UsageError(f"{text!r} names {len(assets)} assets: {named}. Say more of one.")
        return self.rows("asset = ?", [assets[0]])

    def _of_asset(self, text: str) -> list[Row]:
        if len(text) < MIN_PREFIX or not _HEX.fullmatch(text):
            return []
        return self.rows("starts_with(asset, ?)", [text])

    def _of_path(self, text: str) -> list[Row]:
        path = printable(text)
        same = {path, printable(Path(text).absolute()), printable(Path(text).resolve())}
        here = printable(Path.cwd())
        return self.rows(
            "list_contains(?, path) or list_contains(?, ? || '/' || path)",
            [sorted(same), sorted(same), here],
        ) or self.rows("ends_with(path, ?)", ["/" + path.lstrip("/")])
