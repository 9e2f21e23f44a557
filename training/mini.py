"""All rows of the paper's curriculum at CPU size: the same tasks in the same order, less of each.

Tiers of resolution become 64 and 96 lines, epochs a few hundred steps. Latents of the demo's corpus
with pictures and sounds of their own do for it (`reelmill demo --mini`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from reelmill.training.curriculum import (
    Curriculum,
    DataRule,
    Model,
    Objective,
    Optim,
    Retention,
    TrainStage,
)
from reelmill.training.paper import PAPER, PaperStage

LINES = {256: 64, 480: 96, 720: 96, 1080: 96}
TOKENS = 1600  # of a step: 32 clips of two seconds at 64 lines


@dataclass(frozen=True)
class Row:
    """What a row of the paper becomes. of_task: see Retention; what no row trains again fades."""

    steps: int
    lr: float
    of_task: dict[str, float] = field(default_factory=dict)


MASKED = {"inpaint": 0.35, "edit": 0.35, "v2v": 0.35}  # in no row after video_5
FADING = {**MASKED, "t2a": 0.75}  # sound alone is in no row after joint
ROWS = {
    "video_1": Row(600, 3e-3),
    "video_2": Row(800, 3e-3),
    "video_3": Row(600, 2e-3),
    "video_4": Row(500, 2e-3),
    "video_5": Row(300, 1e-3),
    "video_6": Row(400, 8e-4, MASKED),
    "audio": Row(800, 3e-3, MASKED),
    "joint": Row(1000, 1e-3, MASKED),
    "sft_1": Row(300, 5e-4, FADING),
    "sft_2": Row(250, 4e-4, FADING),
    "keyframes": Row(300, 5e-4, FADING),
    "refiner": Row(500, 1e-3),
}


def stage_of(row: PaperStage, mini: Row, before: str | None) -> TrainStage:
    """The row at CPU size, from the weights of the row before it."""
    heights = {LINES[lines] for lines in row.heights} | ({0} if row.sounds else set())
    if row.keyframes:
        heights = {min(LINES.values())}  # its keyframes have the larger size
    part: Literal["all", "video", "audio"] = "all" if row.audio else "video"
    if not row.heights:
        part = "audio"
    refiner = row.name == "refiner"
    return TrainStage(
        name=row.name,
        init_from=before,
        tasks=dict(row.tasks),
        data=DataRule(heights=tuple(sorted(heights))),
        steps=mini.steps,
        batch=64,
        tokens=TOKENS,
        share=2,
        trainable=part,
        refiner=refiner,
        optim=Optim(lr=mini.lr, warmup_steps=30, schedule="cosine"),
        objective=Objective(shift=3.0, video_floor=0.3),
        retention=Retention(of_task=mini.of_task),
        validate_every=mini.steps,
        checkpoint_every=100,
    )


def _mini() -> Curriculum:
    stages: list[TrainStage] = []
    for row in PAPER:
        before = stages[-1].name if stages else None
        stages.append(stage_of(row, ROWS[row.name], before))
    model = Model(
        preset="tiny",
        patch=(1, 4, 4),
        dim=96,
        heads=3,
        rope_dims=(20, 6, 6),
        predicts="data",
        cross_gain=1.5,
        cross_focus=2.8,
    )
    return Curriculum(name="mini", model=model, stages=tuple(stages), cumulative=True)


MINI = _mini()
