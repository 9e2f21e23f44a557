"""The built-in curricula: the two of the offline demo, the Refiner's, and all rows at CPU size."""

from __future__ import annotations

from pathlib import Path

from reelmill.errors import UsageError
from reelmill.training.curriculum import (
    Curriculum,
    Model,
    Objective,
    Optim,
    TrainStage,
    read_curriculum,
)
from reelmill.training.mini import MINI


def curriculum(name: str) -> Curriculum:
    """A built-in curriculum by name, or one of a YAML file. Raises UsageError that lists those
    there are, or says what is wrong in the file."""
    if name in CURRICULA:
        return CURRICULA[name]
    if name.endswith((".yaml", ".yml")):
        return read_curriculum(Path(name))
    raise UsageError(
        f"no curriculum {name!r}; there are: {', '.join(CURRICULA)}, or a file named *.yaml."
    )


# One token for each latent frame of 64 pixels: with four, pictures have sharper shapes, and sound
# follows them half as well (docs/adr/0003).
_MODEL = Model(
    preset="tiny",
    patch=(1, 8, 8),
    dim=96,
    heads=3,
    rope_dims=(20, 6, 6),
    predicts="data",
    cross_gain=1.5,
    cross_focus=2.8,
)
# First the sound of given pictures alone, where synchronisation is learned soonest; then everything
# together, with enough of it left that it is not forgotten.
_SYNC = {"v2a": 1.0}
_JOINT = {"v2a": 0.4, "t2av": 0.4, "a2v": 0.1, "i2v": 0.1}


def _demo(name: str, sync_steps: int, joint_steps: int, batch: int, every: int) -> Curriculum:
    stages = {}
    for stage, tasks, steps, lr in (
        ("sync", _SYNC, sync_steps, 4e-3),
        ("joint", _JOINT, joint_steps, 3e-3),
    ):
        stages[stage] = TrainStage(
            name=stage,
            init_from=None if stage == "sync" else "sync",
            tasks=tasks,
            steps=steps,
            batch=batch,
            optim=Optim(lr=lr, warmup_steps=50, schedule="cosine"),
            objective=Objective(shift=5.0),
            validate_every=every,
            checkpoint_every=every,
            samples=2,
        )
    return Curriculum(name=name, model=_MODEL, stages=tuple(stages.values()))


# The Refiner of any exported model: TrainOptions.base, on latents encoded with `low`.
_REFINER = TrainStage(
    name="refiner",
    refiner=True,
    tasks={"refine": 1.0},
    steps=1000,
    batch=8,
    # For a model like the demo's: at a rate of 1e-3 and a shift of 5 it gained half as much on it.
    optim=Optim(lr=4e-3, warmup_steps=50, schedule="cosine"),
    objective=Objective(shift=12.0, video_floor=0.3),  # near noise Z_up decides what is made
    validate_every=100,
    checkpoint_every=200,
)

CURRICULA = {
    "demo": _demo("demo", sync_steps=150, joint_steps=150, batch=16, every=50),
    "demo_full": _demo("demo_full", sync_steps=1500, joint_steps=1200, batch=32, every=300),
    "mini": MINI,
    "refiner": Curriculum(name="refiner", model=Model(), stages=(_REFINER,)),
}
