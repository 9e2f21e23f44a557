"""`reelmill forget`: a removal request."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from reelmill import console
from reelmill.commands.options import Json, Workspace, examples

EPILOG = examples(
    "reelmill forget clip.mp4 --workspace work --dry-run", "reelmill forget clip.mp4 -w work"
)


def forget(
    what: Annotated[str, typer.Argument(help="Path, asset digest or clip id.", metavar="PATH|ID")],
    workspace: Workspace,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only list what holds it; remove nothing.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Removes an asset from the ledger, previews, reports and shards; lists training that saw it.

    Later runs leave it out, should its file still lie in the sources; the file itself is not
    touched. Approvals of the rewritten shards no longer apply. Latent shards and checkpoints stay
    as they are: encode and train again to be rid of it there too.
    """
    from reelmill.curation.explain.removal import Removal
    from reelmill.datasets.workspace import open_workspace

    place = open_workspace(workspace, create=False)
    found = Removal.look(place, what)
    if not dry_run:
        found = found.carry_out(place)
    console.say(f"asset    {found.sha256}")
    for name in ("paths", "runs", "shards", "latents"):
        for item in getattr(found, name):
            console.say(f"{name[:-1]:8} {item}")
    for training in found.training:
        console.say(f"training {training.folder}  step {training.step}: {training.role}")
    if dry_run:
        console.say(f"{found.samples} samples in {len(found.shards)} shards; nothing was removed")
    else:
        console.say(
            f"removed: {found.samples} samples from {len(found.shards)} shards, {found.rows} rows "
            f"of the ledger, {found.files} files"
        )
    if found.latents:
        console.note("note: latent shards still hold it: run `reelmill encode` again.")
    if found.training:
        console.note("note: models were trained on it: train again from shards without it.")
    console.answer(asdict(found) | {"removed": not dry_run})
