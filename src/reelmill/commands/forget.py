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
    """Removes an asset from ledger, previews, reports, shards, latents; lists what learned from it.

    Later runs leave it out, should its file still lie in the sources; the file itself is not
    touched. Approvals of the rewritten shards no longer apply. Codecs that were fitted to it and
    checkpoints stay as they are: encode and train again to be rid of it there too.
    """
    from reelmill.curation.explain.removal import Removal
    from reelmill.datasets.workspace import open_workspace

    place = open_workspace(workspace, create=False)
    found = Removal.look(place, what)
    if not dry_run:
        found = found.carry_out(place)
    console.say(f"asset    {found.sha256}")
    for name in ("paths", "runs", "shards", "latents", "codecs"):
        for item in getattr(found, name):
            console.say(f"{name[:-1]:8} {item}")
    for training in found.training:
        console.say(f"training {training.folder}  step {training.step}: {training.role}")
    if dry_run:
        console.say(f"{found.samples} samples in {len(found.shards)} shards; nothing was removed")
    else:
        console.say(
            f"removed: {found.samples} samples from {len(found.shards)} shards, what "
            f"{len(found.latents)} latent shards held, {found.rows} rows of the ledger, "
            f"{found.files} files"
        )
    if found.codecs:
        console.note(
            "note: codecs were fitted to shards that held it: the next `reelmill encode` fits "
            "others, and encodes with them."
        )
    if found.training:
        console.note("note: models were trained on it: train again from shards without it.")
    console.answer(asdict(found) | {"removed": not dry_run})
