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
    "reelmill generate 'a blue ball' -w work --video clip.mp4 --change 16,16,32,32 -o edited.mp4",
    "reelmill generate '@image_1 rolls' -w work --ref image_1=ball.png -o clip.mp4",
    "reelmill generate 'a red ball bounces' --model refined/ --refine -o large.mp4",
    "reelmill generate -w work --batch prompts.jsonl -o clips/",
)
FILES, LENGTH, SAMPLER, GUIDANCE = "Files to go by", "Size and length", "Sampler", "Guidance"


def generate(
    ctx: typer.Context,
    output: Annotated[
        Path,
        typer.Option("--output", "-o", help="File to write, e.g. clip.mp4; a folder for --batch."),
    ],
    prompt: Annotated[str | None, typer.Argument(help="What is to be seen and heard.")] = None,
    workspace: Annotated[
        Path | None,
        typer.Option("--workspace", "-w", help="Its newest trained model is taken."),
    ] = None,
    model: Annotated[
        Path | None, typer.Option(help="Folder that training exported, instead of --workspace.")
    ] = None,
    batch: Annotated[
        Path | None,
        typer.Option(
            help="JSONL, a request a line: `prompt`, and any option by its name. What is there "
            "already is not made again."
        ),
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(
            help="t2i t2v t2av t2a i2v i2av ia2v v2a a2v inpaint start_end start_end_av extend "
            "edit edit_av v2v. Default: by the files."
        ),
    ] = None,
    image: Annotated[Path | None, typer.Option(help="First frame.", rich_help_panel=FILES)] = None,
    end: Annotated[Path | None, typer.Option(help="Last frame.", rich_help_panel=FILES)] = None,
    video: Annotated[
        Path | None,
        typer.Option(help="Gets sound, is edited or goes on (extend).", rich_help_panel=FILES),
    ] = None,
    audio: Annotated[
        Path | None, typer.Option(help="Sound that is to get a picture.", rich_help_panel=FILES)
    ] = None,
    keep: Annotated[
        Path | None,
        typer.Option(
            help="Mask, picture or video: light where image or video stays.", rich_help_panel=FILES
        ),
    ] = None,
    change: Annotated[
        str | None,
        typer.Option(
            metavar="X,Y,W,H",
            help="Instead of --keep: the box that is made anew, in pixels of the result.",
            rich_help_panel=FILES,
        ),
    ] = None,
    strength: Annotated[
        float | None,
        typer.Option(help="Share of noise over --video, above 0 to 1.", rich_help_panel=FILES),
    ] = None,
    ref: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=FILE",
            help="A file that the prompt names: image_1, Actor-0, video_1, Audio-0. Repeatable.",
            rich_help_panel=FILES,
        ),
    ] = None,
    seconds: Annotated[
        float | None, typer.Option(help="Length in seconds.", rich_help_panel=LENGTH)
    ] = None,
    frames: Annotated[
        int | None, typer.Option(help="Length: 1 + a multiple of 4.", rich_help_panel=LENGTH)
    ] = None,
    height: Annotated[int, typer.Option(help="Pixels.", rich_help_panel=LENGTH)] = 64,
    width: Annotated[int, typer.Option(help="Pixels.", rich_help_panel=LENGTH)] = 64,
    fps: Annotated[int, typer.Option(help="Frames per second.", rich_help_panel=LENGTH)] = 16,
    steps: Annotated[int, typer.Option(help="Steps of the sampler.", rich_help_panel=SAMPLER)] = 50,
    shift: Annotated[
        float, typer.Option(help="Shift of the sampler's times.", rich_help_panel=SAMPLER)
    ] = 5.0,
    solver: Annotated[
        str, typer.Option(help="euler, heun or unipc.", rich_help_panel=SAMPLER)
    ] = "euler",
    negative: Annotated[
        str, typer.Option(help="What guidance leads away from.", rich_help_panel=GUIDANCE)
    ] = "",
    negative_audio: Annotated[
        str | None,
        typer.Option(help="The same for the sound, if another.", rich_help_panel=GUIDANCE),
    ] = None,
    text_scale: Annotated[
        float, typer.Option(help="Guidance by the prompt; 1: off.", rich_help_panel=GUIDANCE)
    ] = 1.0,
    audio_text_scale: Annotated[
        float | None,
        typer.Option(help="The same for the sound, if another.", rich_help_panel=GUIDANCE),
    ] = None,
    modality_scale: Annotated[
        float,
        typer.Option(
            help="Guidance by the other modality: picture by sound, sound by picture; 1: off.",
            rich_help_panel=GUIDANCE,
        ),
    ] = 1.0,
    reference_scale: Annotated[
        float, typer.Option(help="Guidance by references; 1: off.", rich_help_panel=GUIDANCE)
    ] = 1.0,
    rescale: Annotated[
        float,
        typer.Option(help="0 to 1, against contrast from guidance.", rich_help_panel=GUIDANCE),
    ] = 0.0,
    refine: Annotated[
        bool, typer.Option("--refine", help="By the Refiner: larger, and twice the rate.")
    ] = False,
    scale: Annotated[int, typer.Option(help="With --refine: how many times as large.")] = 2,
    refine_steps: Annotated[int, typer.Option(help="With --refine: steps.")] = 12,
    seed: Seed = 0,
    preview: Annotated[
        bool, typer.Option(help="Write a sheet of frames beside it, <output>.preview.jpg.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="With --batch: say what would be made.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Generates a clip with sound, and writes its provenance beside it (`<output>.json`)."""
    from reelmill.errors import UsageError
    from reelmill.training.generate import GenerateOptions

    if (prompt is None) == (batch is None):
        raise UsageError("give a prompt, or --batch with many of them.")
    if batch is not None and ctx.obj is Via.FLOW:
        raise UsageError("--batch runs without Prefect: leave out `flow`.")
    options = GenerateOptions(
        prompt=prompt or "",
        model=find_model(workspace, model),
        output=output if batch is None else output / "000001.mp4",
        task=task,
        image=image,
        end=end,
        video=video,
        audio=audio,
        keep=keep,
        change=None if change is None else box(change),
        strength=strength,
        references=named(ref or []),
        negative=negative,
        negative_audio=negative_audio,
        seconds=seconds,
        frames=frames,
        height=height,
        width=width,
        fps=fps,
        steps=steps,
        shift=shift,
        solver=solver,
        text_scale=text_scale,
        audio_text_scale=audio_text_scale,
        modality_scale=modality_scale,
        reference_scale=reference_scale,
        rescale=rescale,
        refine=refine,
        scale=scale,
        refine_steps=refine_steps,
        seed=seed,
        preview=preview,
    )
    if batch is not None:
        many(batch, options, dry_run)
        return
    home = (workspace or options.model) / ".prefect"
    result = through_prefect(options, home) if ctx.obj is Via.FLOW else directly(options)
    console.say(f"{result.output}: {result.frames} frames, {result.seconds:.2f} s")
    console.answer(
        {"output": str(result.output), "seconds": result.seconds, "frames": result.frames}
    )


def many(batch: Path, defaults: GenerateOptions, dry_run: bool) -> None:
    """Generates a batch. Raises BudgetExceeded when a request failed."""
    from reelmill.errors import BudgetExceeded
    from reelmill.training.batch import generate_batch, is_there, read_requests

    requests = read_requests(batch, defaults)
    if dry_run:
        there = sum(is_there(request) for request in requests)
        console.say(f"{len(requests)} requests: {len(requests) - there} to make, {there} are there")
        console.answer({"requests": len(requests), "there": there})
        return
    with console.bar("generate", len(requests)) as bar:
        result = generate_batch(requests, bar.at)
    line = (
        f"{result.requests} requests = {len(result.made)} made + {len(result.reused)} there before "
        f"+ {len(result.failed)} failed"
    )
    console.say(line)
    for name, why in result.failed.items():
        console.note(f"failed: {name}: {why}")
    console.answer(
        {
            "requests": result.requests,
            "made": [str(p) for p in result.made],
            "reused": [str(p) for p in result.reused],
            "failed": dict(result.failed),
        }
    )
    if result.failed:
        raise BudgetExceeded(f"{len(result.failed)} requests failed, see {result.failures}.")


def box(text: str) -> tuple[int, int, int, int]:
    """`X,Y,W,H` as numbers. Raises UsageError."""
    from reelmill.errors import UsageError

    try:
        x, y, w, h = (int(part) for part in text.split(","))
    except ValueError as error:
        raise UsageError(f"--change {text}: four whole numbers X,Y,W,H are needed.") from error
    return x, y, w, h


def named(refs: list[str]) -> dict[str, Path]:
    """Files of `NAME=FILE`, by name. Raises UsageError."""
    from reelmill.errors import UsageError

    files: dict[str, Path] = {}
    for ref in refs:
        name, sign, path = ref.partition("=")
        if not (name and sign and path):
            raise UsageError(f"--ref {ref}: write NAME=FILE, such as image_1=ball.png.")
        if name in files:
            raise UsageError(f"--ref {name} is given twice.")
        files[name.removeprefix("@")] = Path(path)
    return files


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
