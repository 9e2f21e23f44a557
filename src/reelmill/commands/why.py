"""`reelmill why`: the whole path of an asset or clip through a run."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from reelmill import console
from reelmill.commands.options import Json, Run, Workspace, examples

if TYPE_CHECKING:
    from reelmill.curation.explain.history import FactLine, StageLine, UnitHistory

EPILOG = examples(
    "reelmill why clip.mp4 --workspace work",
    "reelmill why 3f2a9c0d11e4b567_0_4000000 -w work --json",
)
MARKS = {True: "holds", False: "broken", None: "not held against it"}
IN_FULL = 3


def why(
    what: Annotated[str, typer.Argument(help="Clip id, asset digest or path.", metavar="ID|PATH")],
    workspace: Workspace,
    run: Run = "last",
    as_json: Json = False,
) -> None:
    """Says what became of an asset or clip, stage by stage: facts, bounds, verdicts."""
    from reelmill.curation.explain.history import History
    from reelmill.datasets.workspace import open_workspace

    found = History.of(open_workspace(workspace, create=False), what, run)
    console.say(f"asset {found.sha256} {found.kind}, run {found.run}")
    for file in found.files:
        console.say(f"  {file['path']}: {file['outcome']}, {file['reason']} {file['detail']}")
    if found.asset is not None:
        _show(found.asset)
    for clip in found.clips:
        if len(found.clips) <= IN_FULL:
            _show(clip)
        else:
            ended = next((s for s in clip.stages if s.verdict), None)
            console.say(f"clip {clip.unit}: {clip.outcome} {_verdict(ended) if ended else ''}")
    console.answer(asdict(found))


def _show(unit: UnitHistory) -> None:
    console.say()
    console.say(f"{unit.level} {unit.unit}: {unit.outcome}")
    console.say(f"  of {unit.path}")
    for line in unit.stages:
        console.say(f"  {line.stage:14} {line.outcome:11} {_verdict(line)}")
        for fact in line.facts:
            console.say(f"    {fact.name} = {_value(fact)}")
        for bound in line.bounds:
            console.say(f"    bound {bound.field}: {bound.text}: {MARKS[bound.holds]}")


def _verdict(line: StageLine) -> str:
    if line.verdict is None:
        return "(would reject it)" if line.outcome == "not reached" and line.objects else ""
    said = line.verdict
    value = f" at {said['value']}" if said["value"] is not None else ""
    bound = f", must be {said['bound']}" if said["bound"] else ""
    return " ".join(f"{line.stage}: {said['reason']}{value}{bound} {said['detail'] or ''}".split())


def _value(fact: FactLine) -> str:
    if fact.value is None:
        return f"{fact.status}: {fact.why}" if fact.why else fact.status
    value = f"{fact.value:.6g}" if isinstance(fact.value, float) else str(fact.value)[:200]
    return f"{value} {fact.unit}".rstrip()
