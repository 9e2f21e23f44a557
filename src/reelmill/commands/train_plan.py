"""`reelmill train plan`: what the paper's curriculum would cost."""

from __future__ import annotations

from typing import Annotated

import typer

from reelmill import console
from reelmill.commands.options import Json, examples

EPILOG = examples(
    "reelmill train plan",
    "reelmill train plan --model 1.3b --gpu h100 --gpus 256 --mfu 0.4",
)


def plan(
    model: Annotated[str, typer.Option(help="Preset, see `reelmill model info`.")] = "14b",
    gpu: Annotated[str, typer.Option(help="a100, h100, h200 or b200.")] = "h200",
    gpus: Annotated[int, typer.Option(min=1, help="How many, for the days.")] = 1024,
    mfu: Annotated[
        float, typer.Option(help="Share of the GPU's peak that training reaches.")
    ] = 0.45,
    recompute: Annotated[
        bool, typer.Option(help="Blocks are computed again on the way back.")
    ] = True,
    as_json: Json = False,
) -> None:
    """Tokens, FLOPs, GPU hours and storage of every row of the paper's Table 1.

    FLOPs are counted on the model itself; what the table leaves open is told in training/paper.py.
    """
    from reelmill.model.config import preset
    from reelmill.training.paper import PAPER
    from reelmill.training.plan import Codecs, cost

    config, codecs = preset(model), Codecs()
    rows = []
    console.say(
        f"{'stage':8} {'samples':>9} {'tokens':>9} {'FLOPs':>9} {'GPU hours':>11} {'days':>8} "
        f"{'latents':>9}"
    )
    for stage in PAPER:
        found = cost(stage, config, codecs, gpu=gpu, mfu=mfu, recompute=recompute)
        days = found.gpu_hours / gpus / 24
        rows.append({"stage": stage.name, "tasks": dict(stage.tasks), **vars(found), "days": days})
        console.say(
            f"{stage.name:8} {found.samples:>9.2g} {found.tokens:>9.2g} {found.flops:>9.2g} "
            f"{found.gpu_hours:>11,.0f} {days:>8.2f} {found.latent_bytes / 1e12:>6.1f} TB"
        )
    total = {name: sum(row[name] for row in rows) for name in ("flops", "gpu_hours", "days")}
    console.say(
        f"{'all':8} {'':9} {'':9} {total['flops']:>9.2g} {total['gpu_hours']:>11,.0f} "
        f"{total['days']:>8.2f}  on {gpus} {gpu} at {mfu:.0%} of their peak"
    )
    console.answer({"model": model, "gpu": gpu, "gpus": gpus, "stages": rows, "total": total})
