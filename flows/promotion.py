"""Training with a gate between stages: what the next stage starts from is measured first.

<output>/evaluations/     a history of the stages, as `reelmill evaluate checkpoint` keeps one

This file needs no Prefect: the command line and the flow call it alike.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from reelmill.datasets.workspace import commit_bytes
from reelmill.errors import BudgetExceeded, GateError, UsageError
from reelmill.evaluation.bench import Bench, own_bench, read_bench
from reelmill.evaluation.gate import Bound
from reelmill.evaluation.history import Judged, clips_of, judge
from reelmill.evaluation.suite import suite_for
from reelmill.evaluation.takes import plan_takes, request_lines
from reelmill.reports.training import write_training
from reelmill.training import trainer
from reelmill.training.batch import BatchResult, generate_batch, read_requests
from reelmill.training.config import Progress, TrainOptions, TrainResult, silent
from reelmill.training.curriculum import StageGate
from reelmill.training.generate import GenerateOptions
from reelmill.training.ranks import launched

EVALUATIONS = "evaluations"


def train(options: TrainOptions, progress: Progress = silent) -> TrainResult:
    """Trains stage after stage; one whose gate is not passed ends the run, before the next starts.

    A stage is held against the last that passed, the first against nothing. Run again, stages that
    are done are not trained again, clips that are there not made again, and the gate is asked anew.
    However it ends, <output>/training.html shows how it went. Raises what the trainer raises, and
    GateError naming what fell.
    """
    try:
        return _train(options, progress)
    finally:
        if not launched() or os.environ["RANK"] == "0":
            with suppress(UsageError, OSError):  # nothing was trained, or there is no room for it
                write_training(options.output)


def _train(options: TrainOptions, progress: Progress) -> TrainResult:
    stages = options.curriculum.wanted(options.stages)
    if not any(stage.gate for stage in stages):
        return trainer.train(options, progress)
    if launched():
        raise UsageError("a gate measures clips between stages: use --ranks N, not torchrun.")
    parts = []
    for stage in stages:
        parts.append(trainer.train(replace(options, stages=(stage.name,)), progress))
        if stage.gate:
            gated(stage.name, stage.gate, parts[-1].export, options, progress)
    return TrainResult.of(
        [done for part in parts for done in part.stages],
        parts[-1].export,
        unreviewed=any(part.unreviewed for part in parts),
    )


def gated(
    name: str, gate: StageGate, export: Path, options: TrainOptions, progress: Progress
) -> Judged:
    """Generates, measures and judges the clips of a stage. Raises GateError if it does not pass."""
    home = options.output / EVALUATIONS
    bench = read_bench([Path(gate.prompts)]) if gate.prompts else own_bench()
    bench = Bench(prompts=bench.prompts[: gate.limit]) if gate.limit else bench
    size = {"height": gate.height, "width": gate.width, "steps": gate.steps}
    if gate.frames is not None:
        size["frames"] = gate.frames
    made = generate_takes(export, clips_of(home, name), bench, gate.seeds, size, progress)
    if made.failed:
        raise BudgetExceeded(f"{len(made.failed)} clips of {name} failed, see {made.failures}.")
    found = judge(
        home,
        name,
        suite_for(bench),
        {key: Bound(**bound.model_dump()) for key, bound in gate.bounds.items()},
        bench=bench,
        workers=len(os.sched_getaffinity(0)),
        seed=options.seed,
        progress=lambda done, total: progress(done, total, f"{name}: measuring clips"),
    )
    if found.decision is not None and not found.decision.promoted:
        fallen = "; ".join(f"{fall.metric}: {fall.why}" for fall in found.decision.falls)
        raise GateError(
            f"stage {name!r} is not promoted over {found.decision.incumbent!r}: {fallen}. No later "
            f"stage was started. See {found.page}; train the stage otherwise, or change its gate."
        )
    return found


def generate_takes(
    model: Path,
    out: Path,
    bench: Bench,
    seeds: int,
    size: Mapping[str, Any],
    progress: Callable[[float, float | None, str], None],
) -> BatchResult:
    """Makes the clips of a bench that are missing in `out`, `<prompt>_<seed>.mp4`.

    size: further fields of GenerateOptions; without `frames`, clips are as long as their prompts
    say. What was made by another model of the same name is made again.
    """
    batch = out / "requests.jsonl"
    lines = [
        request_lines(
            [take],
            size if "frames" in size else {**size, "seconds": take.prompt.seconds},
        )
        for take in plan_takes(bench, range(seeds))
    ]
    commit_bytes(batch, "".join(lines).encode())
    requests = read_requests(batch, GenerateOptions("", model, out / "0_0.mp4"))
    return generate_batch(requests, progress)
