"""`reelmill arena`: a blind review of clips by people, from the first vote to the names."""

from __future__ import annotations

import json
import os
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from reelmill import console
from reelmill.commands.options import Json, examples

if TYPE_CHECKING:
    from reelmill.evaluation.review.results import Results

app = typer.Typer(help="Blind review: people compare or score clips.", no_args_is_help=True)

FAILURES_SHOWN = 5
RoundDir = Annotated[Path, typer.Argument(help="Folder of the round.", metavar="ROUND")]


class Mode(StrEnum):
    """What raters are asked."""

    PAIRS = "pairs"
    SCALES = "scales"
    BOTH = "both"


@app.command(
    epilog=examples(
        "reelmill arena build generated/ rivals/ --out round --rater anna --rater ben --rater cleo",
        "reelmill arena build clips/ --out round --rater anna --each 1 --mode scales",
    )
)
def build(
    sources: Annotated[
        list[Path],
        typer.Argument(
            help="Folders <model>/<prompt>_<seed>.mp4, or manifests (.jsonl, .parquet).",
            metavar="SOURCE...",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the round, new.")],
    rater: Annotated[list[str], typer.Option(help="Name of a rater. Repeatable.")],
    mode: Annotated[
        Mode, typer.Option(help="Two clips side by side, one on five scales, or both.")
    ] = Mode.PAIRS,
    each: Annotated[
        int, typer.Option(help="Raters per question. 0: three, or all where there are fewer.")
    ] = 0,
    repeats: Annotated[float, typer.Option(help="Share of questions asked a second time.")] = 0.05,
    gold: Annotated[
        float, typer.Option(help="Share of questions with a damaged clip, whose answer is known.")
    ] = 0.05,
    title: Annotated[str, typer.Option(help="What raters read on top.")] = "Review",
    prompts: Annotated[
        list[Path] | None,
        typer.Option("--prompts", help="YAML file of prompts, instead of the bench. Repeatable."),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(
            help="Seed of order, sides and names. Who knows it can undo the blinding; drawn at "
            "random by default."
        ),
    ] = None,
    workers: Annotated[int, typer.Option(help="Threads. 0: one per usable CPU.")] = 0,
    as_json: Json = False,
) -> None:
    """Makes a round: blind copies of the clips, a page for each rater, the names sealed."""
    from reelmill.evaluation.bench import own_bench, read_bench
    from reelmill.evaluation.review import build as making
    from reelmill.evaluation.review.plan import EACH, Shares
    from reelmill.evaluation.review.plan import Mode as Asked

    shares = Shares(each or min(EACH, len(rater)), repeats, gold)
    with console.bar("copy") as bar:
        built = making.build_round(
            sources,
            out,
            rater,
            bench=read_bench(prompts) if prompts else own_bench(),
            mode=Asked(mode.value),
            shares=shares,
            title=title,
            seed=seed,
            workers=workers or len(os.sched_getaffinity(0)),
            progress=bar.at,
        )
    for seat in built.round.seats:
        console.say(f"{seat.rater}: {len(seat.items)} questions, {built.link(seat.rater)}")
    console.say(f"{built.clips} blind clips in {out}. Next: reelmill arena serve {out}")
    for path, why in list(built.failed.items())[:FAILURES_SHOWN]:
        console.note(f"left out: {path}: {why}")
    if len(built.failed) > FAILURES_SHOWN:
        console.note(f"and {len(built.failed) - FAILURES_SHOWN} more are left out")
    for trait in built.told_apart_by:
        console.note(f"raters can tell the systems apart by {trait}")
    console.answer(
        {
            "round": str(out),
            "id": built.round.id,
            "clips": built.clips,
            "failed": dict(built.failed),
            "told_apart_by": list(built.told_apart_by),
            "raters": {
                s.rater: {"questions": len(s.items), "page": str(built.link(s.rater))}
                for s in built.round.seats
            },
        }
    )


@app.command(epilog=examples("reelmill arena serve round", "reelmill arena serve round -p 8765"))
def serve(
    round: RoundDir,
    host: Annotated[str, typer.Option(help="Address. Other machines reach 0.0.0.0.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option("--port", "-p", min=0, max=65535, help="0: any that is free.")
    ] = 0,
    as_json: Json = False,
) -> None:
    """Serves the pages of an open round, and keeps the votes. Ends with Ctrl-C; loses nothing."""
    from reelmill.errors import UsageError
    from reelmill.evaluation.review.round import RoundFolder
    from reelmill.evaluation.review.server import ReviewServer

    folder = RoundFolder(round)
    if folder.closed:
        raise UsageError(f"{round} is closed; it takes no more votes.")
    with ReviewServer(folder, host, port) as server:
        links = {seat.rater: server.link(seat) for seat in server.round.seats}
        for rater, link in links.items():
            console.say(f"{rater}: {link}")
        console.say("Give each rater his own link. Ctrl-C ends the service; votes are kept.")
        console.answer({"round": str(round), "links": links})
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            console.note("stopped; the same command goes on, with the same links but for the port.")


@app.command(epilog=examples("reelmill arena add round votes-anna.jsonl"))
def add(
    round: RoundDir,
    votes: Annotated[list[Path], typer.Argument(help="Exported by a page.", metavar="VOTES...")],
    as_json: Json = False,
) -> None:
    """Adds votes that pages exported. The same file twice adds nothing."""
    from reelmill.evaluation.review.ballot import VoteLog, read_export
    from reelmill.evaluation.review.round import RoundFolder

    folder = RoundFolder(round)
    round_ = folder.round()
    found = [ballot for path in votes for ballot in read_export(path, round_)]
    added = VoteLog(folder.votes, round_).add(found)
    console.say(f"{added} of {len(found)} votes are new")
    console.answer({"round": str(round), "read": len(found), "added": added})


@app.command(epilog=examples("reelmill arena status round --json"))
def status(round: RoundDir, as_json: Json = False) -> None:
    """Says how far each rater is. No names of systems."""
    from reelmill.evaluation.review.ballot import VoteLog, answered
    from reelmill.evaluation.review.round import RoundFolder

    folder = RoundFolder(round)
    round_ = folder.round()
    ballots = VoteLog(folder.votes, round_).last()
    done = {
        seat.rater: {"answered": answered(ballots, seat), "asked": len(seat.items)}
        for seat in round_.seats
    }
    for rater, so_far in done.items():
        console.say(f"{rater}: {so_far['answered']} of {so_far['asked']}")
    console.say("closed" if folder.closed else "open")
    console.answer({"round": str(round), "closed": folder.closed, "raters": done})


@app.command(epilog=examples("reelmill arena close round", "reelmill arena close round --early"))
def close(
    round: RoundDir,
    early: Annotated[bool, typer.Option("--early", help="Though votes are missing.")] = False,
    as_json: Json = False,
) -> None:
    """Ends the round: opens the sealed names, joins them with the votes, shows the results."""
    from reelmill.evaluation.review.close import close_round
    from reelmill.evaluation.review.round import RoundFolder

    folder = RoundFolder(round)
    close_round(folder, early=early)
    _report(folder.root, [])


@app.command(epilog=examples("reelmill arena report round --without ben"))
def report(
    round: RoundDir,
    without: Annotated[
        list[str] | None, typer.Option(help="Rater whose votes are left out. Repeatable.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Writes results.html and results.json of a closed round again."""
    _report(round, without or [])


def _report(root: Path, without: list[str]) -> None:
    from reelmill.datasets.workspace import commit_bytes
    from reelmill.evaluation.review.results import results
    from reelmill.evaluation.review.results_page import render_results
    from reelmill.evaluation.review.round import RoundFolder

    folder = RoundFolder(root)
    found = results(folder.closing(), without=without)
    commit_bytes(folder.results, render_results(found).encode())
    plain = found.as_json()
    text = json.dumps(plain, indent=1, ensure_ascii=False, allow_nan=False)
    commit_bytes(root / "results.json", text.encode() + b"\n")
    _show(found)
    console.say(f"\n{folder.results}")
    console.answer({"round": str(root), "report": str(folder.results), "results": plain})


def _show(found: Results) -> None:
    for result in found.pairs:
        if result.arena is None:
            continue
        alpha = "-" if result.alpha is None else f"{result.alpha:.2f}"
        console.say(f"\n{result.dimension} ({result.arena.votes} votes, alpha {alpha}):")
        for rating in result.arena.ratings:
            console.say(f"  {rating.system:30} {rating.elo:.0f}")
        for contest in result.contests:
            b = contest.bars
            console.say(f"  {b.first} - {b.second}: {b.good} good, {b.same} same, {b.bad} bad")
    for scale in found.scales:
        if scale.mean is not None:
            console.say(f"{scale.dimension:24} {scale.system:30} {scale.mean.mean:.2f}")
    for rater in found.raters:
        for warning in rater.warnings:
            console.note(f"{rater.name}: {warning}")
