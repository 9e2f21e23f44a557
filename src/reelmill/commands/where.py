"""`reelmill where`: what a source file became part of."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from reelmill import console
from reelmill.commands.options import Json, Run, Workspace, examples

EPILOG = examples(
    "reelmill where clip.mp4 --workspace work", "reelmill where 3f2a9c -w work --json"
)


def where(
    what: Annotated[str, typer.Argument(help="Path, asset digest or clip id.", metavar="PATH|ID")],
    workspace: Workspace,
    run: Run = "last",
    as_json: Json = False,
) -> None:
    """Lists a file's clips, its bytes in shards and latent shards, and training that saw it."""
    from reelmill.curation.explain.whereabouts import Whereabouts
    from reelmill.datasets.workspace import open_workspace

    found = Whereabouts.of(open_workspace(workspace, create=False), what, run)
    console.say(f"asset    {found.sha256}")
    for path in found.paths:
        console.say(f"path     {path}")
    for clip in found.clips:
        why = f"by {clip['stage']}: {clip['reason']}" if clip["stage"] else ""
        console.say(f"clip     {clip['clip']} {clip['outcome']} {why}".rstrip())
    for name, members in (("shard", found.shards), ("latent", found.latents)):
        for member in members:
            console.say(
                f"{name:8} {member.shard}  {member.clip}.{member.member}  bytes "
                f"{member.offset} to {member.offset + member.size}"
            )
    for training in found.training:
        about = "its latents are gone, so this is not known" if not training.known else "on it"
        console.say(
            f"training {training.folder}  stage {training.stage}, step {training.step}: "
            f"{training.role} {about}"
        )
    if not (found.shards or found.latents or found.training):
        console.say("no shard, latent shard or training run holds it")
    console.answer(asdict(found))
