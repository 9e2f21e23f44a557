"""`reelmill evaluate`: which clips are better, on what, and how sure that is."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from reelmill import console
from reelmill.commands.options import Json, Seed, examples

if TYPE_CHECKING:
    from reelmill.evaluation.summary import Summary

app = typer.Typer(help="Measures generated clips; no weights needed.", no_args_is_help=True)

FAILURES_SHOWN = 5
PromptFiles = Annotated[
    list[Path] | None,
    typer.Option("--prompts", help="YAML file of prompts, instead of the bench. Repeatable."),
]


@app.command(
    epilog=examples(
        "reelmill evaluate clips generated/ --out scores",
        "reelmill evaluate clips manifest.jsonl --out scores --workers 4 --json",
    )
)
def clips(
    source: Annotated[
        Path,
        typer.Argument(
            help="Folder <model>/<prompt>_<seed>.mp4, or a manifest (.jsonl, .parquet).",
            metavar="SOURCE",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for scores and summary.")],
    prompts: PromptFiles = None,
    workers: Annotated[int, typer.Option(help="Processes. 0: one per usable CPU.")] = 0,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Measures clips of one or several models, and compares them prompt by prompt.

    Writes scores.parquet and summary.json. The same command goes on where it was stopped.
    """
    from reelmill.datasets.sample import Status
    from reelmill.errors import BudgetExceeded
    from reelmill.evaluation.bench import own_bench, read_bench
    from reelmill.evaluation.clips import find_clips
    from reelmill.evaluation.measure import measure
    from reelmill.evaluation.suite import weight_free

    bench = read_bench(prompts) if prompts else own_bench()
    entries = find_clips(source)
    with console.bar("evaluate", len(entries)) as bar:
        made = measure(
            entries,
            weight_free(),
            out,
            bench=bench,
            workers=workers or len(os.sched_getaffinity(0)),
            seed=seed,
            progress=bar.at,
        )
    _show(made.summary)
    console.say(f"\n{len(entries)} clips, {made.redone} measured now: {out}")
    failures = {s.entry.path: s.why for s in made.scores if s.status is Status.FAILED}
    for path, why in list(failures.items())[:FAILURES_SHOWN]:
        console.note(f"failed: {path}: {why}")
    if len(failures) == len({entry.path for entry in entries}):
        raise BudgetExceeded(f"none of {len(failures)} clips could be measured; see {out}.")
    console.answer(
        {
            "out": str(out),
            "clips": len(entries),
            "redone": made.redone,
            "failed": len(failures),
            "models": list(made.summary.models),
            "verdicts": [
                {"first": c.first, "second": c.second, "metric": c.metric, "verdict": c.verdict}
                for c in made.summary.comparisons
            ],
        }
    )


@app.command(epilog=examples("reelmill evaluate prompts", "reelmill evaluate prompts --json"))
def prompts(prompts: PromptFiles = None, as_json: Json = False) -> None:
    """Shows the bench: id, language and text of every prompt. Checks files given by --prompts."""
    from reelmill.evaluation.bench import own_bench, read_bench

    bench = read_bench(prompts) if prompts else own_bench()
    for prompt in bench.prompts:
        console.say(f"{prompt.id}  [{prompt.language}]  {prompt.text}")
    missing = bench.missing_cells()
    console.note(f"{len(bench.prompts)} prompts, {len(missing)} cells without one")
    console.answer(
        {
            "prompts": [prompt.model_dump(mode="json") for prompt in bench.prompts],
            "missing_cells": [[str(part) for part in cell] for cell in missing],
        }
    )


def _show(summary: Summary) -> None:
    for model in summary.models:
        missing = summary.prompts_missing[model]
        failed = max(line.failed for line in summary.lines if line.model == model)
        console.say(
            f"\n{model}: {summary.clips[model]} clips, {failed} failed; {missing} prompts of the "
            "bench without a clip"
        )
        for line in summary.lines:
            if line.model != model:
                continue
            told = "-"
            if line.interval is not None:
                told = f"{line.interval.mean:.4g}"
                if line.interval.low is not None:
                    told += f" [{line.interval.low:.4g}, {line.interval.high:.4g}]"
            console.say(
                f"  {line.metric:20} {told:32} {line.unit:12} {line.better:16} "
                f"{line.applied}/{line.total}"
            )
    for first, second in {(c.first, c.second): None for c in summary.comparisons}:
        console.say(f"\n{first} against {second}, paired by prompt and seed:")
        for c in summary.comparisons:
            if (c.first, c.second) == (first, second) and c.difference is not None:
                console.say(
                    f"  {c.metric:20} {c.difference.mean:+.4g} over {c.difference.prompts} "
                    f"prompts: {c.verdict}"
                )
