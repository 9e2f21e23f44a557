"""What the flows show in Prefect: tables, Markdown and links, under keys that stay the same.

A key's artifacts over several runs make its history. Only this file makes artifacts.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import UUID

import httpx
from prefect.artifacts import (
    create_link_artifact,
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)

from reelmill.reports.page import load

if TYPE_CHECKING:  # some bring torch, which takes longer to import than Prefect
    from reelmill.curation.lips.sync_training import SyncTrained
    from reelmill.curation.result import CurateResult
    from reelmill.datasets.approval import Approval
    from reelmill.training.config import TrainResult
    from reelmill.training.encode import EncodeResult
    from reelmill.training.generate import GenerateResult


log = logging.getLogger("reelmill")
PROGRESS_S = 30.0


class Progress:
    """Of a long step, as an artifact: made after PROGRESS_S, then moved as often; call it with how
    much was done since the last call. done: it ended."""

    def __init__(self, name: str, label: str, total: float):
        self.key = "progress-" + re.sub("[^a-z0-9]+", "-", name.lower()).strip("-")
        self.label, self.total, self.count = label, total, 0.0
        self._last = time.monotonic()
        self._artifact: UUID | None = None

    def __call__(self, n: int = 1) -> None:
        self.count += n
        now = time.monotonic()
        if self.total and now - self._last >= PROGRESS_S:
            self._last = now
            self._show(min(100.0, 100 * self.count / self.total))

    def done(self) -> None:
        if self._artifact is not None:
            self._show(100.0)

    def _show(self, percent: float) -> None:
        try:
            if self._artifact is None:
                made = create_progress_artifact(percent, self.key, description=cell(self.label))
                self._artifact = made if isinstance(made, UUID) else None
            else:
                update_progress_artifact(self._artifact, percent)
        except httpx.HTTPError as error:  # the work goes on, whoever looks or not
            log.warning("progress of %s is not shown: %s", self.label, error)
            self._last = float("inf")


def cell(text: object) -> str:
    """Text that cannot break out of a Markdown table: paths and messages are not ours."""
    escaped = str(text).replace("\\", "\\\\").replace("|", "\\|").replace("`", "'")
    return escaped.replace("<", "&lt;").replace("\r", " ").replace("\n", " ")


def facts_table(title: str, facts: Mapping[str, object]) -> str:
    """A Markdown table of names and values under a heading."""
    rows = [f"| {cell(name)} | {cell(value)} |" for name, value in facts.items()]
    return "\n".join([f"## {title}", "", "| | |", "|---|---|", *rows])


def curated(result: CurateResult) -> None:
    """Counts, stages, a summary and a link to the report of a curation run."""
    counts = {"files": result.files, "assets": result.assets, "clips": result.clips}
    create_table_artifact(
        key="curate-counts",
        table=[{"of": name, **count.to_json()} for name, count in counts.items()],
        description=f"Run {cell(result.run)}: in = kept + rejected + failed",
    )
    facts: dict[str, object] = {"workspace": result.workspace, **counts}
    facts |= {"measured anew": result.redone, "seconds": f"{result.seconds:.1f}"}
    facts |= {"over budget": result.over_budget} if result.over_budget else {}
    facts |= {f"note {i}": note for i, note in enumerate(result.notes, 1)}
    create_markdown_artifact(
        key="curate-summary", markdown=facts_table(f"Curation {cell(result.run)}", facts)
    )
    create_table_artifact(
        key="curate-stages",
        table=[
            {
                "stage": stage.slug,
                "in": stage.tally.into.count,
                "kept": stage.tally.kept.count,
                "rejected": stage.tally.rejected.count,
                "failed": stage.tally.failed.count,
                "measured": stage.measured,
                "seconds": round(stage.cost_seconds, 1),
            }
            for stage in load(Path(result.report).parent).stages
        ],
        description=f"Run {cell(result.run)}: what came into each stage, and what it cost",
    )
    link(key="curate-report", path=Path(result.report), text="report")


def summary(key: str, title: str, facts: Mapping[str, object]) -> None:
    """A Markdown artifact of names and values."""
    create_markdown_artifact(key=key, markdown=facts_table(title, facts))


def link(key: str, path: Path, text: str) -> None:
    """A link to a local file. Browsers open it from a page that is itself local."""
    create_link_artifact(key=key, link=path.resolve().as_uri(), link_text=text)


def trained(result: TrainResult) -> None:
    """Losses of a training run and where its model is."""
    create_table_artifact(
        key="train-stages",
        table=[
            {
                "stage": stage.name,
                "steps": stage.steps,
                "resumed from": stage.resumed_from,
                "held-out loss, start": round(stage.loss_start, 5),
                "held-out loss, end": round(stage.loss_end, 5),
                "seconds": round(stage.seconds, 1),
            }
            for stage in result.stages
        ],
        description="Held-out losses are of the EMA weights, on the same noise and times.",
    )
    facts = {"checkpoint": result.checkpoint, "model": result.export, "steps": result.steps}
    summary("train-summary", "Training", {**facts, "unreviewed": result.unreviewed})


def approved(made: Sequence[Approval]) -> None:
    """A decision on shards: who, on what, with which words."""
    create_table_artifact(
        key="approvals",
        table=[
            {
                "decision": a.decision,
                "reviewer": a.reviewer,
                "run": a.run,
                "shards": a.kind,
                "digest": a.dataset,
                "note": a.note,
            }
            for a in made
        ],
    )


def encoded(result: EncodeResult) -> None:
    """Counts of an encode run, and clips that could not be encoded."""
    facts: dict[str, object] = {"output": result.output, "samples": result.samples}
    facts |= {"clips": result.clips, "too short": result.short, "failed": len(result.failed)}
    summary("encode-summary", "Encoding", {**facts, "parts reused": result.reused})
    if result.failed:
        create_table_artifact(
            key="encode-failed",
            table=[{"clip": key, "why": why} for key, why in sorted(result.failed.items())][:200],
        )


def generated(result: GenerateResult) -> None:
    """What was generated, with what, and a link to it."""
    facts = {"file": result.output, "frames": result.frames, "seconds": f"{result.seconds:.2f}"}
    told = {name: result.provenance[name] for name in ("prompt", "task", "seed", "steps")}
    summary("generate-summary", "Generated clip", {**facts, **told})
    link("generate-clip", result.output, result.output.name)


def synced(result: SyncTrained) -> None:
    """What a training of a SyncNet gave, on clips that it was not trained on."""
    found = result.figures
    facts = {
        "clips trained on": result.trained_on,
        "clips held out": found.clips,
        "clips skipped": len(result.skipped),
        "loss": f"{result.loss_start:.3f} -> {result.loss_end:.3f}",
        "shifts within one frame": f"{found.accuracy:.1%}",
        "passed in sync": f"{found.in_sync:.1%}",
        "swapped pairs passed": f"{found.swapped_passed} of {found.swapped}",
        "network": result.output,
    }
    create_markdown_artifact(key="sync-summary", markdown=facts_table("SyncNet", facts))
