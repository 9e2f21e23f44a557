"""`report.html`: one self-contained page, rendered from a run's JSON alone.

save(report, run_dir)     run.json and <stage>/stage.json
load(run_dir)             the RunReport, checked
render(run_dir)           report.html: no network, at most 5 MB, the same bytes every time
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from markupsafe import Markup
from pydantic import ValidationError

from reelmill.errors import DatasetError, UsageError
from reelmill.reports.coverage import coverage
from reelmill.reports.document import document, report_style
from reelmill.reports.embed import Previews
from reelmill.reports.funnel import conservation, funnel, strip
from reelmill.reports.gallery import CARDS, trimmed, wanted
from reelmill.reports.markup import (
    count,
    duration,
    el,
    join,
    path_text,
    percent,
    plural,
    size,
    table,
    text,
    visible,
)
from reelmill.reports.reasons import reasons
from reelmill.reports.schema import RunReport, Tally
from reelmill.reports.section import section

BUDGET = 5_000_000
MAX_JSON = 64_000_000
MAX_SHARDS = 500
MAX_NOTES = 50
_HERE = Path(__file__).parent


def save(report: RunReport, run_dir: Path) -> Path:
    """Writes run.json, last, and <stage>/stage.json for each stage. Returns run.json's path."""
    for stage in report.stages:
        folder = run_dir / stage.slug
        folder.mkdir(parents=True, exist_ok=True)
        _write(folder / "stage.json", stage.model_dump_json(indent=1))
    run_dir.mkdir(parents=True, exist_ok=True)
    path = run_dir / "run.json"
    _write(path, report.model_dump_json(indent=1))
    return path


def load(run_dir: Path) -> RunReport:
    """Reads run.json.

    Raises UsageError when there is none, DatasetError when it is not a report of this version,
    ConservationError when its amounts do not add up.
    """
    path = run_dir / "run.json"
    if not path.is_file():
        raise UsageError(f"{run_dir} holds no run.json. Name the folder of a run: runs/<id>.")
    if path.stat().st_size > MAX_JSON:
        raise DatasetError(f"{path} has {path.stat().st_size} bytes, more than a report can have.")
    try:
        return RunReport.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise DatasetError(
            f"{path} is not a run report that this version reads: {where}: {first['msg']}. Run "
            "the same curate command again: it writes the report anew from the ledger."
        ) from error


def render(run_dir: Path) -> Path:
    """Writes report.html beside run.json and returns its path. Raises what `load` raises."""
    path = run_dir / "report.html"
    _write(path, rendered(load(run_dir), run_dir))
    return path


def rendered(whole: RunReport, run_dir: Path, ballot: Markup | None = None) -> str:
    """The page of a report. ballot: what a server that takes votes puts before it."""
    # First without previews, to know what cards may cost and what is left for previews.
    for cards in (CARDS, 8, 5, 3, 2, 1):
        report = trimmed(whole, cards)
        cost = len(_page(report, Previews(run_dir, (), 0), ballot).encode())
        if cost <= BUDGET * 0.6:
            break
    room = max(BUDGET - cost - 4096, 0)
    return _page(report, Previews(run_dir, wanted(report), room), ballot)


def _write(path: Path, content: str) -> None:
    temporary = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    try:
        temporary.write_text(content + "\n", encoding="utf-8")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _page(report: RunReport, previews: Previews, ballot: Markup | None) -> str:
    script, policy = _script("report.js"), "img-src 'self' data:; media-src 'self' data:"
    if ballot is not None:
        script, policy = script + _script("vote.js"), f"{policy}; connect-src 'self'"
    body = join(
        ballot,
        el("a", "Skip to the report", href="#main", class_="skip"),
        el("div", _contents(report), el("main", _main(report, previews), id="main"),
           class_="frame"),
        previews.block(),
    )  # fmt: skip
    return document(
        f"Reelmill report {visible(report.run, 80)}",
        body,
        style=report_style(),
        script=script,
        policy=policy,
    )


def _script(name: str) -> str:
    return (_HERE / name).read_text(encoding="utf-8")


def _contents(report: RunReport) -> Markup:
    def links(targets: Iterable[tuple[str, str]]) -> Markup:
        return el("ul", [el("li", el("a", name, href=f"#{key}")) for key, name in targets])

    parts = [("stages-strip", "Stages at a glance"), ("funnel", "Funnel"), ("reasons", "Reasons")]
    ends = [
        ("coverage", "Coverage"),
        ("failures", "Failures"),
        ("shards", "Shards"),
        ("provenance", "Provenance"),
    ]
    lanes = [
        (kind, [(s.slug, s.name) for s in report.of_recipe(kind)])
        for kind in dict.fromkeys(s.recipe for s in report.stages)
    ]
    return el(
        "nav",
        el("p", "Reelmill", class_="brand"),
        links(parts),
        [(el("p", f"{kind or 'all files'}", class_="lane"), links(found)) for kind, found in lanes],
        links(ends),
        aria_label="Contents",
    )


def _main(report: RunReport, previews: Previews) -> Markup:
    several = len(report.kinds) > 1
    return join(
        _header(report),
        _notes(report),
        _part("conservation", "Conservation", conservation(report), _law(report)),
        _part("stages-strip", "Stages at a glance", strip(report), "Share kept at each stage."),
        _part("funnel", "Funnel", funnel(report)),
        _part("reasons", "Why units were rejected", reasons(report)),
        el(
            "section",
            el("h2", "Stages"),
            [section(stage, previews, several=several) for stage in report.stages],
            aria_label="Stages",
        )
        if report.stages
        else None,
        _part("coverage", "Coverage", coverage(report), "What the result consists of."),
        _part("failures", "Failures", _failures(report)),
        _part("shards", "Shards", _shards(report)),
        _part("provenance", "Provenance", _provenance(report)),
    )


def _part(key: str, title: str, body: Markup, lead: str = "") -> Markup:
    return el("section", el("h2", title), el("p", lead, class_="lead") if lead else None, body,
              id=key)  # fmt: skip


def _law(report: RunReport) -> str:
    links = plural(len(report.stages), "stage")
    if report.finished is None:
        return f"In = kept + rejected + failed holds at each of {links}; the run is not finished."
    return f"In = kept + rejected + failed holds at each of {links} and from end to end."


def _state(report: RunReport) -> tuple[str, str]:
    if report.finished is None:
        return "unfinished", "warn"
    if report.over_budget:
        return "over its failure budget", "bad"
    return "finished", "good"


def _header(report: RunReport) -> Markup:
    clips = report.totals.clips
    state, tone = _state(report)
    when = f"{report.when:%Y-%m-%d %H:%M} {report.when.tzname() or ''}".strip()
    told = [when, f"took {duration(report.seconds)}"]
    if report.kinds:
        told.append("recipes " + ", ".join(report.kinds) if len(report.kinds) > 1 else
                    f"recipe {report.kinds[0]}")  # fmt: skip
    title = f"{count(clips.kept.count)} of {plural(clips.into.count, 'clip')} kept"
    return el(
        "header",
        el(
            "p",
            "Data report ",
            text(report.run, 80, mono=True),
            el("span", state, class_=f"state {tone}"),
            class_="over",
        ),
        el("h1", title),
        el("p", " · ".join(told), class_="quiet"),
        _tiles(report, clips),
    )


def _tiles(report: RunReport, clips: Tally) -> Markup:
    shard_bytes = sum(shard.bytes for shard in report.shards)
    assets = report.totals.assets
    tiles = [
        ("Clips kept", percent(clips.kept.count, clips.into.count),
         f"{count(clips.kept.count)} of {count(clips.into.count)}", ""),
        ("Media kept", duration(clips.kept.seconds), f"of {duration(clips.into.seconds)}", ""),
        ("Rejected", count(clips.rejected.count), f"clips, {duration(clips.rejected.seconds)}", ""),
        ("Failed", count(clips.failed.count),
         f"clips, and {plural(assets.failed.count, 'asset')}",
         "failed" if clips.failed.count or assets.failed.count else ""),
        ("Shards", count(len(report.shards)), size(shard_bytes), ""),
    ]  # fmt: skip
    return el(
        "dl",
        [
            el("div", el("dt", name), el("dd", el("b", big, class_=tone or None), el("small", sub)))
            for name, big, sub, tone in tiles
        ],
        class_="tiles",
    )


def _notes(report: RunReport) -> Markup | None:
    notes = list(report.notes)
    if report.over_budget:
        notes.insert(0, f"Failure budget exceeded: {report.over_budget}")
    if report.finished is None:
        notes.insert(0, "The run did not reach its end: what follows is what it had done.")
    if not notes:
        return None
    more = len(notes) - MAX_NOTES
    return el(
        "section",
        el("h2", "Before you decide"),
        el("ul", [el("li", text(note, 500)) for note in notes[:MAX_NOTES]]),
        el("p", f"and {count(more)} more in run.json") if more > 0 else None,
        class_="notes",
        aria_label="Warnings",
    )


def _failures(report: RunReport) -> Markup:
    if not report.failures_total:
        return el("p", "Nothing failed.", class_="quiet")
    rows = [
        [
            (path_text(f.path, 48), el("small", text(f.clip, mono=True)) if f.clip else None),
            text(f.stage, 60),
            text(f.cause, 40),
            text(f.message, 240),
        ]
        for f in report.failures
    ]
    head = ["File", "Stage", "Cause", "Message"]
    lead = None
    if report.failures_total > len(rows):
        lead = el("p", f"The first {len(rows)} of {count(report.failures_total)}.", class_="quiet")
    return join(lead, table(head, rows, class_="failures", caption="Files and clips that failed"))


def _shards(report: RunReport) -> Markup:
    if not report.shards:
        return el("p", "No shards were written.", class_="quiet")
    rows = [
        (
            path_text(shard.file, 60),
            el("td", count(shard.samples), class_="n"),
            el("td", size(shard.bytes), class_="n"),
            text(shard.sha256, 64, mono=True, class_="hash"),
        )
        for shard in report.shards[:MAX_SHARDS]
    ]
    more = len(report.shards) - MAX_SHARDS
    rest = el("p", f"and {count(more)} more in run.json", class_="quiet") if more > 0 else None
    head = ["File", "Samples", "Size", "sha256"]
    return join(table(head, rows, class_="shards", caption="Shards with their checksums"), rest)


def _provenance(report: RunReport) -> Markup:
    made = report.provenance
    code = made.version + (f" ({made.commit})" if made.commit else "")
    facts = [
        ("Reelmill", code),
        ("Command", made.command),
        ("Python", made.python),
        ("Platform", made.platform),
        ("Started", report.started.isoformat(timespec="seconds")),
        ("Finished", report.finished.isoformat(timespec="seconds") if report.finished else "no"),
    ]
    sources = report.sources[:50]
    listed = [
        (el("dt", name), el("dd", text(value, 500, mono=name == "Command")))
        for name, value in facts
        if value
    ]
    listed.append((el("dt", "Sources"), el("dd", [el("div", path_text(s, 90)) for s in sources])))
    weights = [
        (
            text(w.name, 80, mono=True),
            text(w.stage, 60),
            el("span", "absent", class_="warn") if w.absent else
            ("bundled" if w.bundled else "found"),
            text(w.licence, 60),
            text(w.sha256, 64, mono=True, class_="hash"),
        )
        for w in made.weights
    ]  # fmt: skip
    libraries = [[text(name, 60), text(version, 60, mono=True)]
                 for name, version in made.libraries.items()]  # fmt: skip
    return join(
        el("dl", listed, class_="provenance"),
        [
            el(
                "details",
                el("summary", f"Recipe {kind} ", text(recipe.hash[:16], mono=True)),
                el("pre", el("code", visible(recipe.yaml, 60_000))),
            )
            for kind, recipe in report.recipes.items()
        ],
        el(
            "details",
            el("summary", f"Weights ({len(weights)})"),
            table(["Name", "Stage", "", "Licence", "sha256"], weights, caption="Weights"),
            open=any(w.absent for w in made.weights),
        )
        if weights
        else None,
        el(
            "details",
            el("summary", f"Libraries ({len(libraries)})"),
            table(["Library", "Version"], libraries, caption="Libraries"),
        )
        if libraries
        else None,
    )
