"""`reelmill model`: what a model is made of."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer

from reelmill import console
from reelmill.commands.options import Json, examples

app = typer.Typer(help="Look at models.", no_args_is_help=True)


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
