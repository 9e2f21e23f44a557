"""`reelmill evaluate`: which clips are better, on what, and how sure that is."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reelmill import console
from reelmill.commands.options import Json, Seed, examples

if TYPE_CHECKING:
    from reelmill.evaluation.adapter import Adapter
    from reelmill.evaluation.bench import Bench
    from reelmill.evaluation.summary import Summary

app = typer.Typer(help="Measures generated clips; no weights needed.", no_args_is_help=True)

FAILURES_SHOWN = 5
PromptFiles = Annotated[
    list[Path] | None,
    typer.Option("--prompts", help="YAML file of prompts, instead of the bench. Repeatable."),
]
AdapterFile = Annotated[
    Path | None,
    typer.Option(
        "--adapters", help="YAML: commands of metrics that need weights (docs/how-to-evaluate.md)."
    ),
]
Workers = Annotated[int, typer.Option(help="Processes. 0: one per usable CPU.")]
Seeds = Annotated[int, typer.Option(min=1, help="Clips of each prompt, seeds from 0 on.")]
Limit = Annotated[int, typer.Option(min=0, help="Only the first so many prompts. 0: all.")]


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
    adapters: AdapterFile = None,
    workers: Workers = 0,
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
    from reelmill.evaluation.suite import suite_for

    bench = read_bench(prompts) if prompts else own_bench()
    entries = find_clips(source)
    with console.bar("evaluate", len(entries)) as bar:
        made = measure(
            entries,
            suite_for(bench),
            out,
            bench=bench,
            adapters=_adapters(adapters),
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
            "standings": [asdict(made.summary.standing(a, b)) for a, b in _pairs(made.summary)],
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


@app.command(
    epilog=examples("reelmill evaluate corpus corpus --latents work/latents -o bench.yaml")
)
def corpus(
    folder: Annotated[Path, typer.Argument(help="What `corpus make` wrote.", metavar="CORPUS")],
    latents: Annotated[Path, typer.Option(help="Latent shards that were trained on.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Prompts to write (.yaml).")],
    share: Annotated[float, typer.Option(help="Share of files that training held out.")] = 0.1,
    frames: Annotated[int, typer.Option(help="Length of the clips.")] = 33,
    as_json: Json = False,
) -> None:
    """Makes prompts of clips that training held out: their captions, and their pictures alone.

    All of it is known, so clips are held against the truth: what is seen, and when it sounds.
    """
    from reelmill.evaluation.corpus_bench import write_corpus_bench

    made = write_corpus_bench(folder, latents, out, share=share, frames=frames)
    console.say(f"{len(made.prompts)} prompts: {out}")
    console.answer({"prompts": str(out), "count": len(made.prompts)})


@app.command(
    epilog=examples(
        "reelmill evaluate generate --model export/ --out clips/long --seeds 2",
        "reelmill evaluate generate --model export/ --out clips/long --frames 81 --height 256",
    )
)
def generate(
    model: Annotated[Path, typer.Option(help="Folder that training exported.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the clips of this model.")],
    prompts: PromptFiles = None,
    limit: Limit = 0,
    seeds: Seeds = 1,
    frames: Annotated[
        int | None, typer.Option(help="Length: 1 + a multiple of 4. Default: the prompt's.")
    ] = None,
    height: Annotated[int, typer.Option(help="Pixels.")] = 64,
    width: Annotated[int, typer.Option(help="Pixels.")] = 64,
    steps: Annotated[int, typer.Option(help="Steps of the sampler.")] = 50,
    as_json: Json = False,
) -> None:
    """Makes a clip of every prompt of the bench with every seed, `<prompt>_<seed>.mp4`.

    Run again, it makes only what is missing. Each clip has its provenance beside it.
    """
    bench = _bench(prompts, limit)
    console.answer(_generate(model, out, bench, seeds, _size(frames, height, width, steps)))


@app.command(
    epilog=examples(
        "reelmill evaluate adopt rival/ --name rival -o rival.jsonl",
        "reelmill evaluate adopt rival/ --name rival --names '{index}/take{seed}' -o rival.jsonl",
    )
)
def adopt(
    folder: Annotated[Path, typer.Argument(help="Clips of another system.", metavar="FOLDER")],
    name: Annotated[str, typer.Option(help="What to call the system.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Manifest to write (.jsonl).")],
    names: Annotated[
        str,
        typer.Option(help="How files are named, of {prompt} or {index}, and {seed}; no suffix."),
    ] = "{prompt}_{seed}",
    prompts: PromptFiles = None,
    limit: Limit = 0,
    seeds: Seeds = 1,
    as_json: Json = False,
) -> None:
    """Finds the bench's clips among those of another system, and names those that are missing."""
    import json

    from reelmill.datasets.workspace import commit_bytes
    from reelmill.errors import SourceError
    from reelmill.evaluation import takes

    found = takes.adopt(folder, name, _bench(prompts, limit), range(seeds), names)
    for what, which in (("missing", found.missing), ("of no prompt", found.strange)):
        for one in which[:FAILURES_SHOWN]:
            console.note(f"{what}: {one}")
        if len(which) > FAILURES_SHOWN:
            console.note(f"{what}: {len(which) - FAILURES_SHOWN} more")
    if not found.entries:
        raise SourceError(f"{folder} holds no clip named {names} of the bench. See --names.")
    rows = [json.dumps(e.model_dump(mode="json", exclude_none=True)) for e in found.entries]
    commit_bytes(out, ("\n".join(rows) + "\n").encode())
    console.say(f"{len(found.entries)} clips, {len(found.missing)} missing: {out}")
    console.answer(
        {
            "manifest": str(out),
            "clips": len(found.entries),
            "missing": list(found.missing),
            "strange": list(found.strange),
        }
    )


@app.command(
    epilog=examples(
        "reelmill evaluate checkpoint --model export/ --name step-150 --history evaluations/",
        "reelmill evaluate checkpoint --name step-150 --history evaluations/ --bounds gate.yaml",
    )
)
def checkpoint(
    name: Annotated[str, typer.Option(help="What to call the checkpoint.")],
    history: Annotated[Path, typer.Option(help="Folder of all checkpoints' evaluations.")],
    model: Annotated[
        Path | None,
        typer.Option(help="Folder that training exported. Left out: its clips are there already."),
    ] = None,
    bounds: Annotated[
        Path | None, typer.Option(help="YAML: how far metrics or dimensions may fall.")
    ] = None,
    prompts: PromptFiles = None,
    limit: Limit = 0,
    seeds: Seeds = 1,
    frames: Annotated[int | None, typer.Option(help="Length of the clips.")] = None,
    height: Annotated[int, typer.Option(help="Pixels.")] = 64,
    width: Annotated[int, typer.Option(help="Pixels.")] = 64,
    steps: Annotated[int, typer.Option(help="Steps of the sampler.")] = 50,
    adapters: AdapterFile = None,
    workers: Workers = 0,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Generates, measures and judges a checkpoint after a stage of training, and writes its page.

    It is held against the last one that was promoted. Exit code 4: a bound is broken, and it is not
    promoted.
    """
    from reelmill.errors import GateError
    from reelmill.evaluation.gate import read_bounds
    from reelmill.evaluation.history import clips_of, judge
    from reelmill.evaluation.suite import suite_for

    bench = _bench(prompts, limit)
    held = read_bounds(bounds) if bounds else {}
    if model is not None:
        size = _size(frames, height, width, steps)
        _generate(model, clips_of(history, name), bench, seeds, size)
    with console.bar("evaluate", None) as bar:
        found = judge(
            history,
            name,
            suite_for(bench),
            held,
            bench=bench,
            adapters=_adapters(adapters),
            workers=workers or len(os.sched_getaffinity(0)),
            seed=seed,
            progress=bar.at,
        )
    decision = found.decision
    if decision is None:
        console.say(f"{name}: the first checkpoint, nothing to compare. {found.page}")
    else:
        for c in found.summary.comparisons:
            if {c.first, c.second} == {name, decision.incumbent} and c.gain is not None:
                console.say(f"  {c.metric:20} {c.verdict}")
        console.say(f"  {found.summary.standing(name, decision.incumbent)}")
        for fall in decision.falls:
            console.say(f"  bound broken: {fall.metric}: {fall.why}")
        console.say(f"{name} against {decision.incumbent}: {found.page}")
    console.answer(
        {
            "name": name,
            "page": str(found.page),
            "incumbent": None if decision is None else decision.incumbent,
            "promoted": decision is None or decision.promoted,
            "standing": None
            if decision is None
            else asdict(found.summary.standing(name, decision.incumbent)),
            "falls": [] if decision is None else [f.metric for f in decision.falls],
        }
    )
    if decision is not None and not decision.promoted:
        names = ", ".join(dict.fromkeys(fall.metric for fall in decision.falls))
        raise GateError(f"{name} is not promoted over {decision.incumbent}: {names}. {found.page}")


def _bench(files: list[Path] | None, limit: int) -> Bench:
    from reelmill.evaluation.bench import Bench, own_bench, read_bench

    bench = read_bench(files) if files else own_bench()
    return Bench(prompts=bench.prompts[:limit]) if limit else bench


def _adapters(path: Path | None) -> tuple[Adapter, ...]:
    from reelmill.evaluation.adapter import read_adapters

    return read_adapters(path) if path else ()


def _size(frames: int | None, height: int, width: int, steps: int) -> dict[str, Any]:
    size: dict[str, Any] = {"height": height, "width": width, "steps": steps}
    return size if frames is None else size | {"frames": frames}


def _generate(
    model: Path, out: Path, bench: Bench, seeds: int, size: dict[str, Any]
) -> dict[str, Any]:
    """Makes the clips that are missing. Raises BudgetExceeded when some could not be made."""
    from reelmill.errors import BudgetExceeded
    from reelmill.flows.promotion import generate_takes

    with console.bar("generate") as bar:
        made = generate_takes(model, out, bench, seeds, size, bar.at)
    console.say(f"{out}: {len(made.made)} made, {len(made.reused)} there before")
    if made.failed:
        raise BudgetExceeded(f"{len(made.failed)} clips failed, see {made.failures}.")
    return {"out": str(out), "made": len(made.made), "reused": len(made.reused)}


def _pairs(summary: Summary) -> list[tuple[str, str]]:
    return list({(c.first, c.second): None for c in summary.comparisons})


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
    for first, second in _pairs(summary):
        console.say(f"\n{first} against {second}, paired by prompt and seed:")
        console.say(f"  {summary.standing(first, second)}")
        for c in summary.comparisons:
            if (c.first, c.second) == (first, second) and c.difference is not None:
                console.say(
                    f"  {c.metric:20} {c.difference.mean:+.4g} over {c.difference.prompts} "
                    f"prompts: {c.verdict}"
                )
