"""`reelmill model`: what a model is made of, and models of others."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer

from reelmill import console
from reelmill.commands.options import Json, examples

app = typer.Typer(help="Look at models, take in and give out weights.", no_args_is_help=True)


@app.command(
    epilog=examples("reelmill model info 14b", "reelmill model info work/checkpoints/demo/export")
)
def info(
    model: Annotated[
        str, typer.Argument(help="A preset, or a folder that training exported.", metavar="MODEL")
    ],
    as_json: Json = False,
) -> None:
    """Says a model's size, its towers and, for a trained one, what it was trained with."""
    import torch

    from reelmill.model.config import preset
    from reelmill.model.mmdit import MMDiT, part_of
    from reelmill.model.weights_file import read_model

    details: dict[str, Any] = {}
    if Path(model).is_dir():
        made, details = read_model(Path(model))
    else:
        with torch.device("meta"):
            made = MMDiT(preset(model))
    config, parts = made.config, Counter[str]()
    for name, parameter in made.named_parameters():
        parts[part_of(name)] += parameter.numel()
    console.say(f"{model}: {parts.total():,} parameters, config {config.hash[:16]}")
    for name, count in sorted(parts.items()):
        console.say(f"  {name:6} {count:>16,}")
    for name in ("video", "audio"):
        tower = getattr(config, name)
        if tower is not None:
            console.say(
                f"  {name} tower: {tower.dual} dual + {tower.single} single blocks, width "
                f"{tower.dim}, {tower.heads} heads, patch {'x'.join(map(str, tower.patch))}"
            )
    for name, value in details.get("fingerprints", {}).items():
        console.say(f"  {name} codec or encoder {str(value)[:16]}")
    console.answer(
        {
            "model": model,
            "parameters": parts.total(),
            "parts": dict(parts),
            "config": config.to_json(),
            "hash": config.hash,
            **details,
        }
    )


@app.command(
    "import",
    epilog=examples(
        "reelmill model import Wan2.1-T2V-1.3B-Diffusers -o wan/",
        "reelmill model import hunyuan.safetensors -o hunyuan/ --text-dim 3584",
    ),
)
def import_(
    source: Annotated[
        Path, typer.Argument(help="A safetensors file, or a folder with some.", metavar="SOURCE")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write.")],
    dual: Annotated[
        int | None, typer.Option(min=0, help="Dual blocks of a Wan model. Default: a third.")
    ] = None,
    heads: Annotated[
        int | None, typer.Option(min=1, help="Heads. Default: config.json, else 128 wide.")
    ] = None,
    text_dim: Annotated[
        int | None, typer.Option(min=1, help="Width of prompts, for HunyuanVideo-1.5.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Makes a video tower of Wan 2.1/2.2, SkyReels-V2/V3 or HunyuanVideo-1.5, and accounts for
    every tensor."""
    from reelmill.errors import UsageError
    from reelmill.model.pretrained.imported import import_video

    if output.exists():
        raise UsageError(f"{output} is there already. Name a new folder.")
    got = import_video(source, dual=dual, heads=heads, text_dim=text_dim)
    got.save(output)
    count = sum(value.numel() for value in got.weights.values())
    console.say(f"{output}: {got.family}, {count:,} parameters, config {got.config.hash[:16]}")
    _list("not used, we have no place for them", got.unmatched)
    _list("new, they do not have them", got.fresh)
    console.answer(
        {
            "output": str(output),
            "family": got.family,
            "parameters": count,
            "hash": got.config.hash,
            "files": got.files,
            "unmatched": got.unmatched,
            "fresh": got.fresh,
        }
    )


@app.command(epilog=examples("reelmill model export wan/ -o wan.safetensors --names wan"))
def export(
    model: Annotated[Path, typer.Argument(help="A model folder.", metavar="MODEL")],
    output: Annotated[Path, typer.Option("--output", "-o", help="File to write: *.safetensors.")],
    names: Annotated[
        str, typer.Option(help="reelmill: all of it. wan: the video tower, as diffusers has it.")
    ] = "reelmill",
    dtype: Annotated[str, typer.Option(help="keep, float32, float16 or bfloat16.")] = "keep",
    as_json: Json = False,
) -> None:
    """Writes weights as one safetensors file, and lists what it leaves out."""
    from reelmill.model.pretrained.exported import export_weights

    left, count = export_weights(model, output, names=names, dtype=dtype)
    console.say(f"{output}: {count:,} parameters")
    _list("left out", left)
    console.answer({"output": str(output), "parameters": count, "left_out": left})


def _list(what: str, names: list[str]) -> None:
    """All of them: nothing is dropped in silence."""
    if names:
        console.say(f"  {len(names)} {what}:")
    for name in names:
        console.say(f"    {name}")
