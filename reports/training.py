"""The page of a training run, from what it leaves: metrics, the checkpoints' config, samples.

<run>/<stage>/metrics.jsonl                          a line a step, and a validation
<run>/<stage>/checkpoints/step-*/manifest.json       what the stage was asked to do
<run>/<stage>/samples/step-*.jpg                     what its model made, in time
<run>/<stage>/held_out.json                          how it was judged when it was done
<run>/training.html                                  this page
"""

from __future__ import annotations

import base64
import json
import math
import os
import re
import statistics
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from markupsafe import Markup

from reelmill.errors import DatasetError, UsageError
from reelmill.reports.document import document, report_style
from reelmill.reports.lines import lines, thinned
from reelmill.reports.markup import count, duration, el, join, number, percent, plural, table, text

PAGE = "training.html"
METRICS = "metrics.jsonl"
JUDGEMENT = "held_out.json"
MAX_LINE = 1 << 20
MAX_JSON = 4 << 20
MAX_SAMPLES = 24
SAMPLE_BYTES = 3_000_000  # of all pictures together, so that the page stays below 5 MB
STEPS_KEPT = 200_000
MAX_SPIKES = 500
MAX_TASKS = 100
_SAMPLE = re.compile(r"^step-(\d{1,12})\.jpg$")
SHADES = 6


@dataclass
class StageLog:
    """What one stage left. steps: (step, task, loss or None, seconds). checks: validations. asked:
    the stage as its newest checkpoint holds it. spikes: (step, clip, why) of updates left out, the
    first MAX_SPIKES of them; left_out: how many updates. judged: its judgement, where it is done.
    damaged: lines that are no record."""

    name: str
    steps: list[tuple[int, str, float | None, float]] = field(default_factory=list)
    checks: list[dict[str, Any]] = field(default_factory=list)
    asked: Mapping[str, Any] = field(default_factory=dict)
    samples: list[tuple[int, Path]] = field(default_factory=list)
    spikes: list[tuple[int, str, str]] = field(default_factory=list)
    judged: Mapping[str, Any] = field(default_factory=dict)
    left_out: int = 0
    damaged: int = 0
    modified: float = 0.0


def read_stages(run: Path) -> list[StageLog]:
    """The stages of a run in the order in which they ran. Raises UsageError where there is none."""
    found = [_read(path) for path in run.glob(f"*/{METRICS}") if path.is_file()]
    if not found:
        raise UsageError(
            f"{run} holds no {METRICS} of a stage. Name a training run's folder, such as "
            "WORKSPACE/checkpoints/demo."
        )
    return sorted(found, key=lambda log: (log.modified, log.name))


def _read(path: Path) -> StageLog:
    log = StageLog(path.parent.name, modified=path.stat().st_mtime)
    with path.open("rb") as file:
        while line := file.readline(MAX_LINE):
            try:
                _take(log, json.loads(line))
            except (ValueError, KeyError, TypeError, AttributeError, ArithmeticError,
                    RecursionError):  # fmt: skip
                log.damaged += 1
    every = len(log.steps) // STEPS_KEPT + 1
    log.steps = log.steps[::every] if every > 1 else log.steps
    log.asked = _asked(path.parent / "checkpoints")
    log.judged = _judged(path.parent / JUDGEMENT)
    for sample in sorted((path.parent / "samples").glob("step-*.jpg")):
        if found := _SAMPLE.match(sample.name):
            log.samples.append((int(found[1]), sample))
    return log


def _take(log: StageLog, record: Any) -> None:
    if "held_out" in record:
        check: dict[str, Any] = {"step": int(record["step"]), "held_out": float(record["held_out"])}
        if not math.isfinite(check["held_out"]):
            raise ValueError("a held-out loss that is no number")
        check["by_task"] = _numbers(record.get("held_out_by_task", {}))
        check["train"] = _numbers(record.get("train", {}))
        log.checks.append(check)
    else:
        loss = record["loss"]
        told = None if loss is None or not math.isfinite(loss) else float(loss)
        seconds = float(record.get("seconds", 0.0))
        if not math.isfinite(seconds):
            raise ValueError("seconds that are no number")
        step = int(record["step"])
        log.steps.append((step, str(record["task"])[:60], told, seconds))
        if skipped := record.get("skipped"):
            log.left_out += 1
            named = skipped.items() if isinstance(skipped, dict) else [(k, "") for k in skipped]
            spikes = [(step, str(key)[:200], str(why)[:300]) for key, why in named]
            log.spikes += spikes[: MAX_SPIKES - len(log.spikes)]


def _numbers(values: Any) -> dict[str, float]:
    found = {str(name)[:120]: float(value) for name, value in values.items()}
    return {name: value for name, value in found.items() if math.isfinite(value)}


def _asked(folder: Path) -> Mapping[str, Any]:
    for path in sorted(folder.glob("step-*/manifest.json"), reverse=True):
        try:
            if path.stat().st_size > MAX_JSON:
                raise DatasetError(f"{path} is larger than {MAX_JSON >> 20} MiB.")
            config = json.loads(path.read_bytes())["config"]
            if isinstance(config, dict) and isinstance(config["stage"], dict):
                return config
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return {}


def _judged(path: Path) -> Mapping[str, Any]:
    try:
        if path.stat().st_size > MAX_JSON:
            return {}
        found = json.loads(path.read_bytes())
        tasks = [
            {
                "name": str(task["name"])[:120],
                "own": task["own"] is True,
                "broken": task["broken"] is True,
                **{n: _number(task[n]) for n in ("before", "after", "learned", "bound")},
            }
            for task in found["tasks"][:MAX_TASKS]
        ]
        reasons = [str(reason)[:300] for reason in found["reasons"][:MAX_TASKS]]
        before = _number(found["before"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}
    return {"tasks": tasks, "reasons": reasons, "before": before}


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def write_training(run: Path) -> Path:
    """Renders and writes the page; returns its path."""
    path = run / PAGE
    temporary = path.with_name(f".{PAGE}.tmp-{os.getpid()}")
    try:
        temporary.write_text(render_training(run), encoding="utf-8")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def render_training(run: Path) -> str:
    """The page: self-contained, at most 5 MB. Raises UsageError."""
    logs = read_stages(run)
    done = sum(len(log.steps) for log in logs)
    room = SAMPLE_BYTES // len(logs)
    contents = el(
        "nav",
        el("p", "Reelmill", class_="brand"),
        el("ul", [el("li", el("a", log.name, href=f"#stage-{i}")) for i, log in enumerate(logs)]),
        aria_label="Contents",
    )
    main = join(
        el("header", el("p", "Training ", text(run.name, 80, mono=True), class_="over"),
           el("h1", f"{plural(done, 'step')} in {plural(len(logs), 'stage')}")),
        [_stage(log, f"stage-{i}", room) for i, log in enumerate(logs)],
    )  # fmt: skip
    body = join(
        el("a", "Skip to the report", href="#main", class_="skip"),
        el("div", contents, el("main", main, id="main"), class_="frame"),
    )
    return document(f"Reelmill training {run.name}", body, style=report_style())


def _stage(log: StageLog, key: str, room: int) -> Markup:
    by_task: dict[str, list[tuple[float, float]]] = {}
    for step, task, loss, _ in log.steps:
        if loss is not None:
            by_task.setdefault(task, []).append((step, loss))
    held: dict[str, list[tuple[float, float]]] = {"all": []}
    for check in log.checks:
        held["all"].append((check["step"], check["held_out"]))
        for task, loss in check["by_task"].items():
            held.setdefault(task, []).append((check["step"], loss))
    if len(held) == 2:
        del held["all"]
    speed = {"seconds a step": [(step, seconds) for step, *_, seconds in log.steps]}
    return el(
        "section",
        el("h2", text(log.name, 80)),
        _tiles(log),
        _retention(log),
        lines("Loss by task", by_task, unit="of training steps, averaged"),
        lines("Held-out loss by task", held, unit="EMA weights, the same noise and times"),
        _by_time(log),
        _mix(log),
        _spikes(log),
        lines("Throughput", speed, unit="s"),
        _samples(log, room),
        id=key,
    )


def _tiles(log: StageLog) -> Markup:
    asked = log.asked.get("stage", {})
    done = log.steps[-1][0] + 1 if log.steps else 0
    seconds = [s for *_, s in log.steps if s > 0]
    each = statistics.median(seconds) if seconds else 0.0
    batch = asked.get("batch")
    whole = isinstance(batch, int) and not asked.get("tokens")  # else batches differ
    rate = f"{batch / each:,.1f} samples/s" if whole and each else ""
    first, last = ((log.checks[i]["held_out"] if log.checks else None) for i in (0, -1))
    if log.judged and log.judged["before"] is not None:
        first = log.judged["before"]  # the first record may be of the last step
    tiles = [
        ("Steps", count(done), f"of {count(asked['steps'])}" if "steps" in asked else ""),
        ("Held-out loss", "–", "not measured yet")
        if last is None
        else ("Held-out loss", number(last), f"was {number(first)}"),
        ("A step takes", f"{each:.3g} s", rate),
        ("Time in steps", duration(sum(seconds)), ""),
        ("Left out", count(log.left_out), "updates, for losses that spiked or are no number"),
    ]
    found = [el("div", el("dt", n), el("dd", el("b", v), el("small", s))) for n, v, s in tiles]
    told = el("p", f"{plural(log.damaged, 'line')} of {METRICS} could not be read.", class_="warn")
    return join(el("dl", found, class_="tiles"), told if log.damaged else None)


def _retention(log: StageLog) -> Markup | None:
    """Held-out losses over the stage, and whether what was learned before it has been kept."""
    if not log.judged:
        return None
    rows = []
    for task in log.judged["tasks"]:
        before, after, bound = (task[n] for n in ("before", "after", "bound"))
        told = "broken" if task["broken"] else "kept" if bound is not None else "–"
        moved = None if not before or after is None else f"{after / before - 1:+.1%}"
        cells = [before, after, task["learned"], bound]
        rows.append([
            text(task["name"], 60),
            "trained" if task["own"] else "learned before",
            *(el("td", "–" if v is None else number(v), class_="n") for v in cells),
            el("td", moved or "–", class_="n"),
            el("td", told, class_="n strong" if task["broken"] else "n"),
        ])  # fmt: skip
    head = ["Task", "Here", "Before", "After", "When learned", "May be", "Change", "Outcome"]
    reasons = [
        el("p", f"Not promoted: {reason}.", class_="warn") for reason in log.judged["reasons"]
    ]
    caption = "Held-out losses of all that was learned so far"
    return el("div", reasons, table(head, rows, class_="numbers", caption=caption), class_="chart")


def _by_time(log: StageLog) -> Markup:
    """Means of the losses since the last validation, by tenth of t, first and last."""
    checks = [check for check in log.checks if check["train"]]
    if not checks:
        return el("p", "Loss by time: no validation has recorded it yet.", class_="quiet")
    parts = []
    for check in dict.fromkeys((0, len(checks) - 1)):
        train = checks[check]["train"]
        names = [name for name in train if not re.search(r"/t\d+$", name)]
        values = [train.get(f"{n}/t{i}") for n in names for i in range(10)]
        known = sorted(v for v in values if v is not None)
        rows = []
        for name in names:
            tenths = [train.get(f"{name}/t{i}") for i in range(10)]
            cells = [
                el("td", "–" if v is None else number(v), class_=f"n{_shade(v, known)}")
                for v in tenths
            ]
            rows.append([text(name, 60), *cells, el("td", number(train[name]), class_="n strong")])
        head = ["Task and modality", *(f"{i / 10:.1f}" for i in range(10)), "all"]
        caption = f"Loss by t (0 noise, 1 data), until step {count(checks[check]['step'])}"
        parts.append(table(head, rows, class_="numbers heat", caption=caption))
    return el("div", parts, class_="chart")


def _shade(value: float | None, known: list[float]) -> str:
    """A class that says where a value stands among all: by rank, so that one cannot hide others."""
    if value is None or len(known) < 2:
        return ""
    rank = sum(v < value for v in known) / (len(known) - 1)
    return f" h{min(int(rank * SHADES), SHADES - 1)}"


def _mix(log: StageLog) -> Markup:
    """Of steps, each of which is of one task."""
    asked = log.asked.get("stage", {}).get("tasks", {})
    achieved = Counter(task for _, task, _, _ in log.steps)
    wanted, total = sum(asked.values()) or 1.0, sum(achieved.values()) or 1
    rows = []
    for task in dict.fromkeys([*asked, *achieved]):
        share, had = asked.get(task, 0) / wanted, achieved[task] / total
        rows.append([
            text(task, 60),
            el("td", percent(asked.get(task, 0), wanted) if asked else "–", class_="n"),
            el("td", percent(achieved[task], total), class_="n"),
            el("td", count(achieved[task]), class_="n"),
            el("td", f"{(had - share) * total:+.1f}" if asked else "–", class_="n"),
        ])  # fmt: skip
    head = ["Task", "Asked", "Achieved", "Steps", "Steps too many"]
    return el("div", table(head, rows, class_="numbers", caption="Data mix"), class_="chart")


def _spikes(log: StageLog) -> Markup | None:
    """Clips that updates were left out for."""
    if not log.spikes:
        return None
    rows = [[el("td", count(step), class_="n"), text(key, 200, mono=True), text(why, 300)]
            for step, key, why in log.spikes]  # fmt: skip
    caption = "Updates left out, and the clips they are traced to"
    return el("div", table(["Step", "Clip", "Its"], rows, caption=caption), class_="chart")


def _samples(log: StageLog, room: int) -> Markup | None:
    shown = _chosen(log.samples, room)
    if not shown:
        return None
    cards = [
        el(
            "li",
            el("img", src=f"data:image/jpeg;base64,{base64.b64encode(data).decode()}",
               alt=f"Frames that the model made at step {step}", loading="lazy"),
            el("p", f"step {count(step)}", class_="quiet"),
        )
        for step, data in shown
    ]  # fmt: skip
    return el("div", el("h3", "Samples"), el("ul", cards, class_="samples"), class_="chart")


def _chosen(samples: list[tuple[int, Path]], room: int) -> list[tuple[int, bytes]]:
    """Evenly spread over the steps, the last included, as many as there is room for."""
    places = [p for p, _ in thinned([(i, 0.0) for i in range(len(samples))], MAX_SAMPLES)]
    chosen = dict.fromkeys([len(samples) - 1, *(round(place) for place in places)])
    found = []
    for step, path in [samples[i] for i in chosen if 0 <= i < len(samples)]:
        try:
            size = path.stat().st_size * 4 // 3
            if size <= room:
                room -= size
                found.append((step, path.read_bytes()))
        except OSError:
            continue
    return sorted(found)
