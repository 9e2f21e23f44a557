"""`reelmill kernels`: what computes attention here."""

from __future__ import annotations

from typing import Annotated

import typer

from reelmill import console
from reelmill.commands.options import Json, examples

app = typer.Typer(help="What computes attention on this machine.", no_args_is_help=True)


@app.callback()
def _kernels() -> None:
    """Keeps `check` a command of its own while it is the only one."""


@app.command(epilog=examples("reelmill kernels check", "reelmill kernels check --head-dim 64"))
def check(
    dtype: Annotated[
        str, typer.Option(help="float32, bfloat16 or float16. Default: bfloat16 on a GPU.")
    ] = "",
    head_dim: Annotated[int, typer.Option(min=1, help="Width of a head.")] = 128,
    as_json: Json = False,
) -> None:
    """Says what would compute attention here and why, and tries the sparse one on a small case."""
    import torch

    from reelmill.errors import UsageError
    from reelmill.kernels.dispatch import Case, choose_dense, choose_sparse
    from reelmill.kernels.trial import trial

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    types = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    name = dtype or ("bfloat16" if device.type == "cuda" else "float32")
    if name not in types:
        raise UsageError(f"--dtype is one of {', '.join(types)}, not {dtype!r}.")
    case = Case(device, types[name], head_dim, grad=True)
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else "the CPU"
    console.say(f"{name}, heads of {head_dim}, on {where} (torch {torch.__version__})")
    choices = {"dense": choose_dense(case), "sparse": choose_sparse(case)}
    for kind, choice in choices.items():
        console.say(f"{kind} attention: {choice.name}")
        for each, reason in choice.lacks.items():
            text = f"no: {reason}" if reason else "in use" if each == choice.name else "could"
            console.say(f"  {each:12} {text}")
    found = trial(case)
    console.say(
        f"tried: {choices['sparse'].name} against float64, relative error "
        f"{found.output:.1e} (output), {found.gradients:.1e} (gradients); "
        f"twice the same bits: {'yes' if found.repeats else 'NO'}"
    )
    console.say(f"accurate enough for {name}: {'yes' if found.good else 'NO'}")
    console.answer(
        {
            "device": where,
            "dtype": name,
            "head_dim": head_dim,
            **{k: {"uses": c.name, "lacks": c.lacks} for k, c in choices.items()},
            "error": {"output": found.output, "gradients": found.gradients},
            "repeats": found.repeats,
            "good": found.good,
        }
    )
    raise typer.Exit(0 if found.good else 1)
