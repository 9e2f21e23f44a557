"""Clips in, scores out: every metric on every clip, in parallel, resumable.

OUT/done.jsonl      one line per measured clip, appended as it is done; a torn line is skipped
OUT/scores.parquet  one row per clip and metric
OUT/summary.json    per model and metric: applied / total, mean, interval; paired differences
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import multiprocessing
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import pyarrow as pa

from reelmill.datasets.sample import Status
from reelmill.datasets.workspace import commit_bytes, table_bytes, writing
from reelmill.errors import MediaError, UsageError, WorkspaceError
from reelmill.evaluation.adapter import Adapter
from reelmill.evaluation.bench import Bench, Prompt
from reelmill.evaluation.clip import read_clip
from reelmill.evaluation.clips import ClipEntry, digest
from reelmill.evaluation.metric import Metric, NotApplicable, NotMeasured
from reelmill.evaluation.summary import Described, SetValue, Summary, summarise
from reelmill.evaluation.weighted import Known, score_all

SCHEMA = pa.schema(
    [
        ("path", pa.string()),
        ("sha256", pa.string()),
        ("model", pa.string()),
        ("prompt", pa.string()),
        ("seed", pa.int64()),
        ("metric", pa.string()),
        ("value", pa.float64()),
        ("status", pa.string()),
        ("why", pa.string()),
    ]
)
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Score:
    """One metric of one clip. value is None unless status is `measured`; then `why` says why."""

    entry: ClipEntry
    sha256: str
    metric: str
    value: float | None
    status: Status
    why: str = ""


@dataclass(frozen=True)
class Evaluation:
    """What `measure` made. redone: clips that were measured now, not taken from before."""

    scores: tuple[Score, ...]
    summary: Summary
    folder: Path
    redone: int


def measure(
    entries: Sequence[ClipEntry],
    metrics: Sequence[Metric],
    out: Path,
    *,
    bench: Bench | None = None,
    adapters: Sequence[Adapter] = (),
    workers: int = 1,
    seed: int = 0,
    progress: Progress = lambda done, total: None,
) -> Evaluation:
    """Measures every clip, writes scores and summary into `out`, and returns them.

    adapters: programs that score what needs weights, see adapter.py. A clip is measured again only
    if its bytes, its prompt, its transcript or text, a metric's version or a metric's field
    changed. One that cannot be read is `failed` in every metric, and its neighbours are not harmed;
    so is one that kills its process twice. Failures that may pass (a file that is gone, a process
    that died) are tried again by the next call.
    Raises UsageError for no metric or no worker, WorkspaceError when the disk refuses or another
    process writes the same folder.
    """
    if not metrics or workers < 1:
        raise UsageError(f"{len(metrics)} metrics and {workers} workers: at least one of each.")
    suite = tuple(metrics)
    jobs = [_job(entry, suite, bench) for entry in entries]
    with writing(out), _alone(out):
        done = _read_done(out / "done.jsonl")
        todo = [job for job in {j.key: j for j in jobs}.values() if job.key not in done]
        count = 0
        with (out / "done.jsonl").open("ab") as log:
            if log.tell():
                log.write(b"\n")  # ends a line that was torn; empty lines are skipped
            for job, rows in _run(todo, workers):
                done[job.key] = rows
                if not isinstance(rows, _Passing):
                    log.write(json.dumps({"key": job.key, "rows": rows}).encode() + b"\n")
                    log.flush()
                count += 1
                progress(count, len(todo))
            os.fsync(log.fileno())
        scores = [
            Score(job.entry, job.sha256, name, value, Status(status), why)
            for job in jobs
            for name, value, status, why in done[job.key]
        ]
        more, sets = _weighted(adapters, jobs, out)
        scores += more
        known: tuple[Described, ...] = (
            *suite,
            *(m for a in adapters if a.per == "clip" for m in a.metrics),
        )
        summary = summarise(scores, known, bench=bench, seed=seed, sets=sets)
        commit_bytes(out / "scores.parquet", table_bytes(_table(scores)))
        text = json.dumps(asdict(summary), indent=1, ensure_ascii=False, allow_nan=False)
        commit_bytes(out / "summary.json", text.encode() + b"\n")
    return Evaluation(tuple(scores), summary, out, count)


Row = tuple[str, float | None, str, str]  # metric, value, status, why


class _Passing(list[Row]):
    """Failures that may pass: they count now, and are not kept."""


@dataclass(frozen=True)
class _Job:
    entry: ClipEntry
    prompt: Prompt | None
    metrics: tuple[Metric, ...]
    sha256: str
    key: str
    failure: str = ""


def _job(entry: ClipEntry, metrics: tuple[Metric, ...], bench: Bench | None) -> _Job:
    prompt = bench.get(entry.prompt) if bench is not None else None
    sha256, failure = "", ""
    try:
        sha256 = digest(Path(entry.path))
    except OSError as error:
        failure = f"cannot be read: {error.strerror}"
    identity = {
        "sha256": sha256,
        "failure": failure,
        "prompt": prompt.digest if prompt else "",
        "transcript": entry.transcript,
        "text": entry.text,
        "metrics": [metric.identity for metric in metrics],
    }
    text = json.dumps(identity, sort_keys=True, default=str)
    key = hashlib.sha256(text.encode()).hexdigest()[:32]
    return _Job(entry, prompt, metrics, sha256, key, failure)


def _weighted(
    adapters: Sequence[Adapter], jobs: Sequence[_Job], out: Path
) -> tuple[list[Score], list[SetValue]]:
    """Scores of clips, and values of whole sets. A clip that cannot be read is sent to no one."""
    readable = [Known(job.entry, job.prompt, job.sha256) for job in jobs if not job.failure]
    scores: list[Score] = []
    sets: list[SetValue] = []
    for adapter, found in score_all(adapters, readable, out):
        for metric in adapter.metrics:
            if adapter.per == "model":
                for model in dict.fromkeys(job.entry.model for job in jobs):
                    mine = [job for job in jobs if job.entry.model == model]
                    outcome = found.get((model, metric.name))
                    value = None if outcome is None else outcome.value
                    status = Status.FAILED if outcome is None else outcome.status
                    sets.append(SetValue(model, metric, value, status, len(mine)))
                continue
            for job in jobs:
                got = found.get((job.entry.key, metric.name))
                told = (
                    (None, Status.FAILED, job.failure)
                    if got is None
                    else (got.value, got.status, got.why)
                )
                scores.append(Score(job.entry, job.sha256, metric.name, *told))
    return scores, sets


def _rows_of(job: _Job) -> list[Row]:
    """All metrics of one clip; runs in a worker."""
    cv2.setNumThreads(1)
    if job.failure:
        return _Passing(_failed(job, job.failure))
    try:
        clip = read_clip(
            Path(job.entry.path),
            job.prompt,
            transcript=job.entry.transcript,
            seen_text=job.entry.text,
        )
    except MediaError as error:
        failed = _failed(job, str(error))
        return _Passing(failed) if error.cause == "transient" else failed
    rows: list[Row] = []
    for metric in job.metrics:
        value = metric.measure(clip)
        match value:
            case NotApplicable():
                rows.append((metric.name, None, Status.NOT_APPLICABLE, value.why))
            case NotMeasured():
                rows.append((metric.name, None, Status.NOT_MEASURED, value.why))
            case _:
                rows.append((metric.name, float(value), Status.MEASURED, ""))
    return rows


def _failed(job: _Job, why: str) -> list[Row]:
    return [(metric.name, None, Status.FAILED, why) for metric in job.metrics]


def _run(jobs: Sequence[_Job], workers: int) -> Iterator[tuple[_Job, list[Row]]]:
    if workers == 1 or len(jobs) < 2:
        for job in jobs:
            yield job, _rows_of(job)
        return
    suspects: list[_Job] = []
    with _pool(workers) as pool:
        waiting: dict[Future, _Job] = {}
        rest = iter(jobs)
        while True:
            for job in rest:
                try:
                    waiting[pool.submit(_rows_of, job)] = job
                except BrokenProcessPool:
                    suspects.append(job)
                if len(waiting) >= 2 * workers:
                    break
            if not waiting:
                break
            for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                job = waiting.pop(future)
                try:
                    yield job, future.result()
                except BrokenProcessPool:
                    suspects.append(job)
    yield from _one_by_one(suspects)


def _one_by_one(jobs: Sequence[_Job]) -> Iterator[tuple[_Job, list[Row]]]:
    """So that the one that kills its process is found."""
    rest = list(jobs)
    while rest:
        with _pool(1) as pool:
            while rest:
                job = rest.pop(0)
                try:
                    yield job, pool.submit(_rows_of, job).result()
                except BrokenProcessPool:
                    yield job, _Passing(_failed(job, "its process died while measuring it"))
                    break


def _pool(workers: int) -> ProcessPoolExecutor:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])  # imports once, not once a process
    return ProcessPoolExecutor(workers, mp_context=context)


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    out.mkdir(parents=True, exist_ok=True)
    with (out / ".lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise WorkspaceError(
                f"{out} is being written by another process. Wait for it or name another --out."
            ) from None
        yield


def _read_done(path: Path) -> dict[str, list[Row]]:
    """Finished clips by key; lines that are torn or not of this shape are measured again."""
    done: dict[str, list[Row]] = {}
    if not path.exists():
        return done
    for line in path.read_bytes().splitlines():
        try:
            found = json.loads(line)
            rows: list[Row] = [
                (str(m), _number(v), Status(s), str(w)) for m, v, s, w in found["rows"]
            ]
            done[str(found["key"])] = rows
        except (ValueError, KeyError, TypeError, RecursionError):
            continue
    return done


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


def _table(scores: Sequence[Score]) -> pa.Table:
    rows: list[Mapping[str, Any]] = [
        {
            "path": s.entry.path,
            "sha256": s.sha256,
            "model": s.entry.model,
            "prompt": s.entry.prompt,
            "seed": s.entry.seed,
            "metric": s.metric,
            "value": s.value,
            "status": str(s.status),
            "why": s.why,
        }
        for s in scores
    ]
    return pa.Table.from_pylist(rows, schema=SCHEMA)
