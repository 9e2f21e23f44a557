"""`reelmill encode`: curated shards in, latent shards out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from reelmill import console
from reelmill.commands.options import Json, Via, Workspace, examples

if TYPE_CHECKING:
    from reelmill.training.encode import EncodeOptions, EncodeResult

EPILOG = examples(
    "reelmill encode --workspace work",
    "reelmill encode -w work --height 256 --width 448 --frames 81 --video-codec codecs/wan",
    "reelmill encode -w work --height 480 --width 848 --views views.parquet",
    "reelmill encode -w work --dry-run",
)


def encode(
    ctx: typer.Context,
    workspace: Workspace,
    shards: Annotated[
        list[Path] | None,
        typer.Option(help="Folder of curated shards. Repeatable. Default: all of the workspace."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Folder of latent shards. Default: latents/.")
    ] = None,
    fps: Annotated[int, typer.Option(help="Frames per second.")] = 16,
    height: Annotated[int, typer.Option(help="Pixels, a multiple of 16.")] = 64,
    width: Annotated[int, typer.Option(help="Pixels, a multiple of 16.")] = 64,
    also: Annotated[
        list[str] | None,
        typer.Option(help="Another size, for stages of several. Repeatable.", metavar="WxH"),
    ] = None,
    frames: Annotated[
        list[int] | None, typer.Option(help="Bucket length, 1 + 4k. Repeatable. Default: 33, 17.")
    ] = None,
    stride: Annotated[int, typer.Option(help="Frames between the windows of a clip.")] = 8,
    video_codec: Annotated[
        Path | None, typer.Option(help="Folder of a saved codec. Default: PCA of these shards.")
    ] = None,
    audio_codec: Annotated[
        Path | None, typer.Option(help="Folder of a saved codec. Default: PCA of these shards.")
    ] = None,
    encoder: Annotated[
        Path | None, typer.Option(help="Folder of a saved prompt encoder. Default: hashed words.")
    ] = None,
    channels: Annotated[int, typer.Option(help="Of a video codec fitted to these shards.")] = 4,
    low: Annotated[
        int, typer.Option(help="For the Refiner: also N times smaller at half the rate; 0: not.")
    ] = 0,
    views: Annotated[
        Path | None,
        typer.Option(help="File of `reelmill views`: its views of this size are the windows."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be encoded; decode and write nothing.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Turns curated clips into latents, sound and captions too; goes on where it stopped."""
    from reelmill.datasets.workspace import open_workspace
    from reelmill.errors import UsageError
    from reelmill.training.encode import EncodeOptions
    from reelmill.training.encode_request import parse_size

    place = open_workspace(workspace, create=False)
    seen = [p.parent for p in sorted(place.root.glob("shards/*/manifest.json"))]
    pictured = [folder for folder in seen if folder.name != "audio"]
    if not shards and not pictured:
        raise UsageError(f"{workspace} holds no shards with pictures: curate first, see `status`.")
    options = EncodeOptions(
        shards=tuple(shards or seen),
        output=output or place.latents,
        fps=fps,
        height=height,
        width=width,
        frames=tuple(frames or (33, 17)),
        stride=stride,
        video_codec=video_codec,
        audio_codec=audio_codec,
        encoder=encoder,
        channels=channels,
        low=low,
        views=views,
        sizes=tuple(parse_size(size) for size in also or ()),
    )
    if dry_run:
        show_plan(options)
        return
    home = place.root / ".prefect"
    result = through_prefect(options, home) if ctx.obj is Via.FLOW else directly(options)
    console.say(
        f"{result.samples} samples of {result.clips} clips ({result.short} too short, "
        f"{len(result.failed)} failed); {result.reused} of {result.parts} parts were there"
    )
    console.say(f"latents  {result.output}")
    console.answer(
        {
            "latents": str(result.output),
            "samples": result.samples,
            "clips": result.clips,
            "short": result.short,
            "failed": dict(result.failed),
            "parts": result.parts,
            "reused": result.reused,
        }
    )


def show_plan(options: EncodeOptions) -> None:
    """What `encode` would do."""
    from reelmill.training.encode_plan import plan_encode

    plan = plan_encode(options)
    for name in plan.to_fit:
        console.say(f"fit      a codec for {name} to these shards, then encode all")
    console.say(f"encode   {plan.parts - plan.there} of {plan.parts} shards: {plan.clips} clips")
    console.say(f"samples  {plan.samples} more, {plan.held} are there")
    console.say(f"short    {plan.short} clips give none, as their records have them")
    if plan.unread:
        console.say(f"unread   {plan.unread} clips whose record does not tell their length")
    console.say(f"latents  {plan.output}, where nothing was written now")
    console.answer(asdict(plan) | {"output": str(plan.output)})


def directly(options: EncodeOptions) -> EncodeResult:
    """Encodes in this process, with a progress bar."""
    from reelmill.training.encode import encode as run

    with console.bar("encode") as bar:
        return run(options, bar.at)


def through_prefect(options: EncodeOptions, home: Path) -> EncodeResult:
    """Encodes as a task of a Prefect flow."""
    from reelmill.flows import settings

    settings.start(home)
    from reelmill.flows.encode import encode as flow

    run: Callable[..., EncodeResult] = flow

    given = asdict(options)
    with settings.connected():
        lists = {name: list(given[name]) for name in ("shards", "frames")}
        also = [f"{width}x{height}" for height, width in given.pop("sizes")]
        return run(**given | lists, also=also)
