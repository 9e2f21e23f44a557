"""`reelmill recipe`: look at a recipe, check one of your own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from reelmill import console
from reelmill.commands.options import Json, Settings, examples

if TYPE_CHECKING:
    from reelmill.curation.recipe import Recipe

app = typer.Typer(
    help="Show and check recipes: ordered stages with their bounds.", no_args_is_help=True
)

Named = Annotated[str, typer.Argument(help="video, image, audio or a YAML file.", metavar="RECIPE")]


def _resolve(recipe: str, settings: list[str] | None) -> Recipe:
    from reelmill.curation.engine import CurateOptions, resolve

    options = CurateOptions((), Path(), recipe=recipe, overrides=tuple(settings or ()))
    (resolved,) = resolve(options).values()
    return resolved


@app.command(
    epilog=examples(
        "reelmill recipe show video",
        "reelmill recipe show audio --set SilenceRatio.max_ratio=0.15 > mine.yaml",
    )
)
def show(recipe: Named, settings: Settings = None, as_json: Json = False) -> None:
    """Prints a recipe as YAML, ready to edit and to run with `curate --recipe FILE`."""
    from reelmill.curation.recipe import to_mapping, to_yaml

    resolved = _resolve(recipe, settings)
    console.say(to_yaml(resolved).rstrip("\n"))
    console.answer({**to_mapping(resolved), "digest": resolved.digest})


@app.command(epilog=examples("reelmill recipe check mine.yaml"))
def check(recipe: Named, settings: Settings = None, as_json: Json = False) -> None:
    """Checks a recipe whole, as `curate` does before it starts."""
    resolved = _resolve(recipe, settings)
    console.say(f"{recipe}: {len(resolved.stages)} stages for {resolved.kind}, fit to run.")
    console.answer({"stages": resolved.names, "kind": resolved.kind, "digest": resolved.digest})
