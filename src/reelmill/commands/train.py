"""`reelmill train`: latent shards in, checkpoints and a model to generate with out."""

from __future__ import annotations

import os
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reelmill import console
from reelmill.commands import train_plan
from reelmill.commands.options import Json, Seed, Via, examples

if TYPE_CHECKING:
    from reelmill.training.config import TrainOptions, TrainResult


class Launcher(Enum):
    TORCHRUN = "torchrun"
    RAY = "ray"


class Device(Enum):
    CPU = "cpu"
    CUDA = "cuda"


class Precision(Enum):
    FP32 = "fp32"
    BF16 = "bf16"
    FP64 = "fp64"


EPILOG = examples(
    "reelmill train --workspace work",
    "reelmill train -w work --curriculum demo_full --output work/checkpoints/long",
    "reelmill train -w work --unreviewed",
    "reelmill train -w work --ranks 2",
    "reelmill train plan --model 14b",
)


def train(
    ctx: typer.Context,
    workspace: Annotated[
        Path | None,
        typer.Option("--workspace", "-w", help="Folder that holds all that a pipeline makes."),
    ] = None,
    curriculum: Annotated[
        str, typer.Option(help="Name of a built-in curriculum, or a YAML file.")
    ] = "demo",
    stage: Annotated[
        list[str] | None, typer.Option(help="Run this stage only. Repeatable.")
    ] = None,
    latents: Annotated[
        Path | None, typer.Option(help="Folder of latent shards. Default: the workspace's.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(help="The run's folder. Default: checkpoints/CURRICULUM in the workspace."),
    ] = None,
    seed: Seed = 0,
    unreviewed: Annotated[
        bool,
        typer.Option(
            "--unreviewed", help="Train on shards nobody approved; checkpoints record it."
        ),
    ] = False,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Write TensorBoard logs too.")
    ] = False,
    threads: Annotated[int, typer.Option(help="Of torch; 0 leaves them as they are.")] = 0,
    base: Annotated[
        Path | None, typer.Option(help="Exported model that a Refiner is trained for.")
    ] = None,
    gate: Annotated[
        Path | None,
        typer.Option(help="YAML of what no stage's clips may lose (docs/how-to-evaluate.md)."),
    ] = None,
    ranks: Annotated[
        int, typer.Option(min=1, help="Processes that share each batch (torchrun), same result.")
    ] = 1,
    context: Annotated[
        int, typer.Option(min=1, help="Ranks that share the tokens of their samples.")
    ] = 1,
    accumulate: Annotated[
        int, typer.Option(min=1, help="Parts of a rank's share that are computed in turn.")
    ] = 1,
    recompute: Annotated[
        bool, typer.Option("--recompute", help="Compute activations again: less memory.")
    ] = False,
    compiled: Annotated[
        bool, typer.Option("--compile", help="Compile every layer (torch.compile).")
    ] = False,
    launcher: Annotated[Launcher, typer.Option(help="Who starts the ranks.")] = Launcher.TORCHRUN,
    precision: Annotated[
        Precision | None, typer.Option(help="Of all stages. Default: as the curriculum says.")
    ] = None,
    device: Annotated[Device, typer.Option(help="Each rank of a machine has its own GPU.")] = (
        Device.CPU
    ),
    log_clips: Annotated[
        bool, typer.Option("--log-clips", help="Log the clips of every step (clips.jsonl).")
    ] = False,
    as_json: Json = False,
) -> None:
    """Trains the stages of a curriculum in order; goes on from the newest checkpoint.

    With a gate, each stage's clips are measured before the next stage starts. Exit code 4: they
    fell below a bound, and no later stage was started.
    """
    if ctx.invoked_subcommand is not None:
        return
    from reelmill.datasets.workspace import open_workspace
    from reelmill.errors import UsageError
    from reelmill.training.config import Execution, TrainOptions
    from reelmill.training.curricula import curriculum as built_in
    from reelmill.training.curriculum import read_gate
    from reelmill.training.ranks import launched

    if workspace is None:
        raise UsageError("name a workspace: --workspace W. `reelmill train plan` needs none.")
    place = open_workspace(workspace, create=False)
    chosen = built_in(curriculum)
    if precision:
        chosen = chosen.in_precision(precision.value)
    options = TrainOptions(
        latents=latents or place.latents,
        output=output or place.checkpoints / Path(curriculum).stem,
        curriculum=chosen.gated(read_gate(gate)) if gate else chosen,
        stages=tuple(stage or ()),
        seed=seed,
        unreviewed=unreviewed,
        tensorboard=tensorboard,
        threads=threads,
        base=base,
        log_clips=log_clips,
        execution=Execution(
            ranks,
            context,
            accumulate,
            recompute,
            compiled,
            launcher=launcher.value,
            device=device.value,
        ),
    )
    if launched() and os.environ["RANK"] != "0":
        quietly(options)
        return
    home = place.root / ".prefect"
    result = through_prefect(options, home, gate) if ctx.obj is Via.FLOW else directly(options)
    show(result)
    console.answer(as_object(result))


app = typer.Typer()
app.callback(invoke_without_command=True, epilog=EPILOG)(train)
app.command(epilog=train_plan.EPILOG)(train_plan.plan)


def quietly(options: TrainOptions) -> None:
    """Trains as one of torchrun's ranks, of which the first one says what came of it."""
    from reelmill.flows.promotion import train as run
    from reelmill.training.ranks import speak

    speak(int(os.environ["RANK"]))
    run(options)


def directly(options: TrainOptions) -> TrainResult:
    """Trains in this process, with a progress bar."""
    from reelmill.flows.promotion import train as run

    with console.bar("train") as bar:
        return run(options, bar.at)


def through_prefect(options: TrainOptions, home: Path, gate: Path | None) -> TrainResult:
    """Trains as a task of a Prefect flow, whose form knows fewer options."""
    from reelmill.errors import UsageError
    from reelmill.flows import settings
    from reelmill.training.config import Execution
    from reelmill.training.curricula import curriculum as built_in

    plain = built_in(options.curriculum.name)
    if (
        options.execution != Execution(ranks=options.execution.ranks)
        or options.log_clips
        or [s.precision for s in options.curriculum.stages] != [s.precision for s in plain.stages]
    ):
        raise UsageError(
            "the flow takes --ranks alone of what says how a run is carried out: use `reelmill "
            "train` for --context, --accumulate, --recompute, --compile, --launcher, --precision, "
            "--device and --log-clips."
        )

    settings.start(home)
    from reelmill.flows.train import train as flow

    with settings.connected():
        return flow(
            latents=options.latents,
            output=options.output,
            curriculum=options.curriculum.name,
            stages=list(options.stages),
            seed=options.seed,
            unreviewed=options.unreviewed,
            tensorboard=options.tensorboard,
            threads=options.threads,
            base=options.base,
            gate=gate,
            ranks=options.execution.ranks,
        )


def show(result: TrainResult) -> None:
    """The result for a person."""
    for stage in result.stages:
        console.say(
            f"stage {stage.name}: {stage.steps} steps, held-out loss {stage.loss_start:.4f} -> "
            f"{stage.loss_end:.4f}, {stage.seconds:.0f} s"
            + (f", resumed from step {stage.resumed_from}" if stage.resumed_from else "")
        )
    console.say(f"checkpoint {result.checkpoint}")
    console.say(f"model      {result.export}")


def as_object(result: TrainResult) -> dict[str, Any]:
    return {
        "checkpoint": str(result.checkpoint),
        "model": str(result.export),
        "steps": result.steps,
        "resumed_from": result.resumed_from,
        "loss_start": result.loss_start,
        "loss_end": result.loss_end,
        "unreviewed": result.unreviewed,
        "stages": [stage.name for stage in result.stages],
    }
