"""Checkpoints one after another: their clips, one measurement of all, a page for each.

HOME/history.json         checkpoints in order, and which were promoted
HOME/clips/<name>/        clips of one, <prompt>_<seed>.mp4, with provenance beside each
HOME/scores/              what `measure` writes; only new clips are measured
HOME/<name>.html          the page
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from reelmill.datasets.workspace import commit_bytes
from reelmill.errors import UsageError, WorkspaceError
from reelmill.evaluation.adapter import Adapter
from reelmill.evaluation.bench import Bench
from reelmill.evaluation.checkpoint_page import render_checkpoint
from reelmill.evaluation.clips import find_clips
from reelmill.evaluation.gate import Bounds, Decision, promote
from reelmill.evaluation.measure import Evaluation, measure
from reelmill.evaluation.metric import Metric
from reelmill.evaluation.summary import Summary

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")
MAX_BYTES = 16 << 20


class Passed(BaseModel):
    """One checkpoint of a history. promoted: it became the one that the next is held against."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: str = Field(max_length=80)
    promoted: bool


@dataclass(frozen=True)
class Judged:
    """A checkpoint that was measured. decision: None for the first, held against nothing."""

    summary: Summary
    decision: Decision | None
    page: Path
    evaluation: Evaluation


def clips_of(home: Path, name: str) -> Path:
    """Where the clips of a checkpoint belong. Raises UsageError for a name that is no file name."""
    if not NAME.fullmatch(name):
        raise UsageError(f"checkpoint name {name!r}: letters, digits, '.', '_' and '-' are used.")
    return home / "clips" / name


def read_history(home: Path) -> tuple[Passed, ...]:
    """Raises WorkspaceError for a history that is damaged."""
    path = home / "history.json"
    if not path.exists():
        return ()
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ValueError(f"larger than {MAX_BYTES >> 20} MiB")
        return TypeAdapter(tuple[Passed, ...]).validate_json(path.read_bytes())
    except (ValidationError, ValueError, OSError) as error:
        raise WorkspaceError(f"{path} is no history of checkpoints: {str(error)[:200]}.") from error


def judge(
    home: Path,
    name: str,
    metrics: Sequence[Metric],
    bounds: Bounds,
    *,
    bench: Bench,
    adapters: Sequence[Adapter] = (),
    workers: int = 1,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Judged:
    """Measures the clips of checkpoint `name`, holds them against the last promoted, writes a page.

    Clips of all checkpoints of the history are summed up together, so that they pair. Judging a
    checkpoint again replaces what was said of it, in its place, against those before it.
    """
    if not clips_of(home, name).is_dir():
        raise UsageError(f"no clips of {name} in {clips_of(home, name)}; generate them first.")
    told = read_history(home)
    place = next((i for i, p in enumerate(told) if p.name == name), len(told))
    before, after = told[:place], told[place + 1 :]
    known = {p.name for p in told} | {name}
    entries = [e for e in find_clips(home / "clips") if e.model in known]
    made = measure(
        entries,
        metrics,
        home / "scores",
        bench=bench,
        adapters=adapters,
        workers=workers,
        seed=seed,
        progress=progress,
    )
    incumbent = next((p.name for p in reversed(before) if p.promoted), None)
    decision = None if incumbent is None else promote(made.summary, name, incumbent, bounds)
    order = [*(p.name for p in before if p.name in made.summary.models), name]
    page = home / f"{name}.html"
    commit_bytes(page, render_checkpoint(made.summary, order, decision, bounds).encode())
    this = Passed(name=name, promoted=decision is None or decision.promoted)
    passed = [*before, this, *after]
    text = json.dumps([p.model_dump() for p in passed], indent=1)
    commit_bytes(home / "history.json", text.encode() + b"\n")
    return Judged(made.summary, decision, page, made)
