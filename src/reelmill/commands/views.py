"""`reelmill views`: what every stage of the paper's curriculum can see of the shards."""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path
from typing import Annotated

import typer

from reelmill import console
from reelmill.commands.options import Json, Workspace, examples

EPILOG = examples(
    "reelmill views -w work",
    "reelmill views -w work --stage video_5 --output views.parquet",
)


def views(
    workspace: Workspace,
    stage: Annotated[
        list[str] | None, typer.Option(help="Row of the curriculum. Repeatable. Default: all.")
    ] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Parquet file.")] = None,
    as_json: Json = False,
) -> None:
    """Counts views by stage and resolution: spans of clips as they were cut, no new encode."""
    from reelmill.datasets.index import ShardIndex
    from reelmill.datasets.views import save_views
    from reelmill.datasets.views import views as find
    from reelmill.datasets.workspace import open_workspace
    from reelmill.errors import UsageError
    from reelmill.training.paper import wants

    known = wants()
    if unknown := sorted(set(stage or ()) - set(known)):
        raise UsageError(f"no stage {unknown[0]!r}; with pictures there are {', '.join(known)}.")
    chosen = {name: want for name, want in known.items() if not stage or name in stage}
    place = open_workspace(workspace, create=False)
    folders = [p.parent for p in sorted(place.root.glob("shards/*/manifest.json"))]
    found = sorted(view for folder in folders for view in find(ShardIndex.read(folder), chosen))
    counts = Counter((view.stage, view.tier) for view in found)
    seconds: dict[tuple[str, int], float] = defaultdict(float)
    for view in found:
        seconds[view.stage, view.tier] += view.frames / view.fps if view.frames > 1 else 0.0
    rows = [
        {
            "stage": name,
            "tier": tier,
            "views": counts[name, tier],
            "hours": seconds[name, tier] / 3600,
        }
        for name, want in chosen.items()
        for tier in want.heights
    ]
    console.say(f"{'stage':10} {'lines':>6} {'views':>9} {'hours':>9}")
    for row in rows:
        console.say(f"{row['stage']:10} {row['tier']:>6} {row['views']:>9,} {row['hours']:>9.3f}")
    if output is not None:
        save_views(output, found)
        console.say(f"views  {output}")
    console.answer({"views": rows, "output": None if output is None else str(output)})
