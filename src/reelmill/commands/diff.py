"""`reelmill diff`: what changed between two runs."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from reelmill import console
from reelmill.commands.options import Json, Workspace, examples

EPILOG = examples(
    "reelmill diff 20260301-101500-a1b2 last --workspace work",
    "reelmill diff 20260301-101500-a1b2 20260302-090000-c3d4 -w work --json",
)
SHOWN = 5


def diff(
    before: Annotated[str, typer.Argument(help="A run's name.", metavar="RUN")],
    after: Annotated[str, typer.Argument(help="A run's name, or `last`.", metavar="RUN")],
    workspace: Workspace,
    as_json: Json = False,
) -> None:
    """Says which rule moved how many assets and clips, and which of them changed side."""
    from reelmill.curation.explain.difference import Difference
    from reelmill.datasets.workspace import open_workspace

    found = Difference.of(open_workspace(workspace, create=False), before, after)
    console.say(f"{found.before} -> {found.after}")
    for kind, changes in found.changes.items():
        for change in changes:
            console.say(f"recipe {kind}: {change}")
    for level in ("asset", "clip"):
        lost, won = found.count(level, lost=True), found.count(level, lost=False)
        console.say(f"{level}s: {lost} lost, {won} won, {found.same[level]} the same")
    for move in found.moves:
        side = "" if move.changed_side else "  (same side)"
        console.say(f"{len(move.units):6} {move.level}s  {move.before}  ->  {move.after}{side}")
        for unit in move.units[:SHOWN]:
            console.say(f"         {unit}")
    sides = {
        level: {
            "lost": found.count(level, lost=True),
            "won": found.count(level, lost=False),
            "same": found.same[level],
        }
        for level in ("asset", "clip")
    }
    console.answer(asdict(found) | {"sides": sides})
