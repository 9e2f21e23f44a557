"""`reelmill weights`: the pretrained weights that stages may ask for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from reelmill import console
from reelmill.commands.options import Json, WeightsDir, examples

if TYPE_CHECKING:
    from reelmill.curation.models.weights import Weights

app = typer.Typer(help="Pretrained weights: what there is, fetch, verify.", no_args_is_help=True)

Names = Annotated[
    list[str] | None, typer.Argument(help="Names; none: all of them.", metavar="[NAME]...")
]


def _states(store: Weights, names: list[str] | None) -> list[dict[str, Any]]:
    from reelmill.curation.models.weights import catalogue

    found = []
    for name in names or catalogue():
        state, text = store.state(name)
        entry = store.entry(name)
        found.append(
            {
                "name": name,
                "state": str(state),
                "what": entry.what,
                "licence": entry.licence,
                "source": entry.source,
                "files": {file.name: file.sha256 for file in entry.files},
                "text": text,
            }
        )
    return found


@app.command(
    "list", epilog=examples("reelmill weights list", "reelmill weights list --weights nets/ --json")
)
def list_(weights: WeightsDir = None, as_json: Json = False) -> None:
    """Lists all weights with their state, licence and public source."""
    from reelmill.curation.models.weights import Weights

    found = _states(Weights(weights), None)
    for one in found:
        console.say(f"{one['name']:12} {one['state']:8} {one['what']} ({one['licence']})")
        console.say(f"{'':12} {'':8} {one['source']}")
    console.answer({"weights": found})


@app.command(epilog=examples("reelmill weights fetch yamnet --weights nets/"))
def fetch(
    names: Annotated[list[str], typer.Argument(help="Which.", metavar="NAME...")],
    weights: WeightsDir = None,
    as_json: Json = False,
) -> None:
    """Downloads weights from their public source and checks their sha256."""
    from reelmill.curation.models.weights import Weights

    store = Weights(weights)
    folders = {name: str(store.fetch(name)) for name in names}
    for name, folder in folders.items():
        console.say(f"{name}: {folder}")
    console.answer({"folders": folders})


@app.command(epilog=examples("reelmill weights verify", "reelmill weights verify dnsmos whisper"))
def verify(names: Names = None, weights: WeightsDir = None, as_json: Json = False) -> None:
    """Checks every byte of the weights that are there. Exit code 1 if any were altered."""
    from reelmill.curation.models.weights import Weights, WeightsState

    found = _states(Weights(weights), names)
    for one in found:
        console.say(f"{one['name']:12} {one['state']:8} {one['text']}")
    console.answer({"weights": found})
    raise typer.Exit(int(any(one["state"] == WeightsState.ALTERED for one in found)))
