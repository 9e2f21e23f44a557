"""`reelmill generate`: a prompt in, a clip out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from reelmill import console
from reelmill.commands.options import Json, Seed, Via, examples

if TYPE_CHECKING:
    from reelmill.training.generate import GenerateOptions, GenerateResult

EPILOG = examples(
    "reelmill generate 'a red ball bounces' --workspace work -o clip.mp4",
    "reelmill generate 'a red ball bounces' --model export/ --image first.png -o clip.mp4",
    "reelmill generate '' --model export/ --video silent.mp4 -o with_sound.mp4",
)


def generate(
    ctx: typer.Context,
    prompt: Annotated[str, typer.Argument(help="What is to be seen and heard.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="File to write, e.g. clip.mp4.")],
    workspace: Annotated[
        Path | None,
        typer.Option("--workspace", "-w", help="Its newest trained model is taken."),
    ] = None,
    model: Annotated[
        Path | None, typer.Option(help="Folder that training exported, instead of --workspace.")
    ] = None,
    task: Annotated[
        str | None, typer.Option(help="t2i t2v t2av t2a i2v i2av v2a a2v. Default: by the files.")
    ] = None,
    image: Annotated[Path | None, typer.Option(help="First frame.")] = None,
    video: Annotated[Path | None, typer.Option(help="Video that is to get sound.")] = None,
    audio: Annotated[Path | None, typer.Option(help="Sound that is to get a picture.")] = None,
    seconds: Annotated[float | None, typer.Option(help="Length in seconds.")] = None,
    frames: Annotated[int | None, typer.Option(help="Length: 1 + a multiple of 4.")] = None,
    height: Annotated[int, typer.Option(help="Pixels.")] = 64,
    width: Annotated[int, typer.Option(help="Pixels.")] = 64,
    fps: Annotated[int, typer.Option(help="Frames per second.")] = 16,
    steps: Annotated[int, typer.Option(help="Steps of the sampler.")] = 50,
    shift: Annotated[float, typer.Option(help="Shift of the sampler's times.")] = 5.0,
    text_scale: Annotated[float, typer.Option(help="Guidance by the prompt; 1: off.")] = 1.0,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Generates a clip with sound, and writes its provenance beside it (`<output>.json`)."""
    from reelmill.training.generate import GenerateOptions

    options = GenerateOptions(
        prompt=prompt,
        model=find_model(workspace, model),
        output=output,
        task=task,
        image=image,
        video=video,
        audio=audio,
        seconds=seconds,
        frames=frames,
        height=height,
        width=width,
        fps=fps,
        steps=steps,
        shift=shift,
        text_scale=text_scale,
        seed=seed,
    )
    home = (workspace or options.model) / ".prefect"
    result = through_prefect(options, home) if ctx.obj is Via.FLOW else directly(options)
    console.say(f"{result.output}: {result.frames} frames, {result.seconds:.2f} s")
    console.answer(
        {"output": str(result.output), "seconds": result.seconds, "frames": result.frames}
    )


def find_model(workspace: Path | None, model: Path | None) -> Path:
    """The model folder that is named, or the newest export of a workspace. Raises UsageError."""
    from reelmill.datasets.workspace import open_workspace
    from reelmill.errors import UsageError

    if model is not None:
        return model
    if workspace is None:
        raise UsageError("name a model: --workspace W for its newest one, or --model DIR.")
    place = open_workspace(workspace, create=False)
    exports = [p.parent for p in place.checkpoints.glob("*/export/model.json")]
    if not exports:
        raise UsageError(f"workspace {workspace} has no trained model. Train first, see `status`.")
    return max(exports, key=lambda folder: (folder / "model.json").stat().st_mtime_ns)


def directly(options: GenerateOptions) -> GenerateResult:
    """Generates in this process, with a progress bar."""
    from reelmill.training.generate import generate as run

    with console.bar("generate") as bar:
        return run(options, bar.at)


def through_prefect(options: GenerateOptions, home: Path) -> GenerateResult:
    """Generates as a task of a Prefect flow."""
    from reelmill.flows import settings

    settings.start(home)
    from reelmill.flows.generate import generate as flow

    run: Callable[..., GenerateResult] = flow

    with settings.connected():
        return run(**asdict(options))
