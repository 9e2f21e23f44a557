"""Metrics that need weights: another program, in another environment, on a manifest.

A program gets the path of a manifest and of a file for its scores, both JSON lines:

    {"key": k, "path": p, "model": m, "prompt": id, "seed": 0, "text": "...", ...}
    {"key": k, "metric": name, "value": 3.2}           or {"value": null, "why": "no speech"}
    {"model": m, "metric": name, "value": 120.5}       for a metric of a whole set, such as FVD

It is never imported. It gets no more of our environment than PATH, HOME and what its YAML names; it
is stopped when it takes or writes too much, and what it wrote until then counts. Its scores are
checked like any input.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from reelmill.datasets.sample import Status
from reelmill.errors import UsageError
from reelmill.evaluation.bench import Prompt
from reelmill.evaluation.clips import ClipEntry
from reelmill.evaluation.metric import Better
from reelmill.evaluation.taxonomy import Stream, dimension_of

MAX_YAML = 1 << 20
MAX_OUTPUT = 64 << 20
TOLD = 300  # characters of what a program said before it failed
POLL_S = 0.05
KEPT = ("PATH", "HOME", "LANG", "TMPDIR", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES")
Name = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_-]{0,63}$")]


class WeightedMetric(BaseModel):
    """A metric of another program, as `Metric` describes ours."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: Name
    unit: str = Field(default="", max_length=40)
    better: Better
    low: float = 0.0
    high: float = 1.0
    part: str
    stream: Stream
    truth: bool = False

    @model_validator(mode="after")
    def _sound(self) -> WeightedMetric:
        try:
            dimension_of(self.part)
        except KeyError:
            raise ValueError(f"part {self.part!r} is not of the taxonomy") from None
        if not self.low < self.high:
            raise ValueError(f"low {self.low:g} must be below high {self.high:g}")
        return self


class Adapter(BaseModel):
    """How a program is started. `{manifest}`, `{scores}` and `{python}` (ours) stand for paths.

    version: of program and weights; another one measures again. env: variables that it needs, by
    value; pass_env: names of ours that it may see. per: does a score belong to a clip, or to all
    clips of a model? No command: its metrics are not measured.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: Name
    version: str = Field(default="1", max_length=200)
    command: tuple[str, ...] = ()
    per: Literal["clip", "model"] = "clip"
    timeout_s: float = Field(default=3600, gt=0, le=7 * 86400)
    env: Mapping[str, str] = Field(default_factory=dict)
    pass_env: tuple[str, ...] = ()
    metrics: tuple[WeightedMetric, ...] = Field(default=(), max_length=100)

    @property
    def identity(self) -> dict[str, Any]:
        """What stored scores depend on besides clips and prompts."""
        return self.model_dump(mode="json", exclude={"timeout_s", "pass_env"})


@dataclass(frozen=True, slots=True)
class Outcome:
    """value is None unless status is `measured`; then `why` says why."""

    value: float | None
    status: Status
    why: str = ""


Keyed = Mapping[tuple[str, str], Outcome]  # by key (or model) and metric


def known_adapters() -> tuple[Adapter, ...]:
    """Those that come with the package. `dnsmos` and `lips` have commands that run as installed."""
    return _read(Path(__file__).parent / "adapters" / "known.yaml")


def read_adapters(path: Path) -> tuple[Adapter, ...]:
    """Those of a YAML file: a list; known ones need but a name and a command.

    Raises UsageError naming the adapter and the field that is wrong.
    """
    found = {adapter.name: adapter for adapter in known_adapters()}
    mine = []
    for adapter in _read(path):
        if not adapter.metrics and adapter.name in found:
            known = found[adapter.name]
            adapter = adapter.model_copy(update={"metrics": known.metrics, "per": known.per})
        if not adapter.metrics:
            raise UsageError(f"{path}: adapter {adapter.name} names no metrics.")
        mine.append(adapter)
    for what, names in (
        ("adapter", [a.name for a in mine]),
        ("metric", [m.name for a in mine for m in a.metrics]),
    ):
        twice = {name for name in names if names.count(name) > 1}
        if twice:
            raise UsageError(f"{path}: {what} {', '.join(sorted(twice))} is given twice.")
    return tuple(mine)


def _read(path: Path) -> tuple[Adapter, ...]:
    try:
        if path.stat().st_size > MAX_YAML:
            raise UsageError(f"{path} is larger than {MAX_YAML >> 20} MiB: no list of adapters.")
        rows = yaml.safe_load(path.read_text("utf-8"))
        return TypeAdapter(tuple[Adapter, ...]).validate_python(rows)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}.") from error
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise UsageError(f"{path}: adapter {where}: {first['msg']}.") from error
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise UsageError(f"{path} is no YAML: {str(error)[:200]}.") from error


def run_adapter(adapter: Adapter, clips: Sequence[tuple[ClipEntry, Prompt | None]]) -> Keyed:
    """An outcome for every clip (or model) and metric, whatever the program does.

    Not measured: it has no command, or is not on this machine. Failed: it ended badly, took too
    long, wrote too much, or gave no valid score for this clip.
    """
    keys = list(dict.fromkeys(e.model if adapter.per == "model" else e.key for e, _ in clips))
    wanted = [(key, metric) for key in keys for metric in adapter.metrics]
    if why := _absent(adapter):
        return {(k, m.name): Outcome(None, Status.NOT_MEASURED, why) for k, m in wanted}
    with tempfile.TemporaryDirectory(prefix="reelmill-") as folder:
        place = Path(folder)
        (place / "manifest.jsonl").write_text("".join(_line(e, p) for e, p in clips), "utf-8")
        trouble = _run(adapter, place)
        given, wrong = _scores(adapter, place / "scores.jsonl")
    missing = trouble or "the program gave no score"
    return {
        (k, m.name): given.get((k, m.name))
        or Outcome(None, Status.FAILED, f"{adapter.name}: {wrong.get((k, m.name), missing)}")
        for k, m in wanted
    }


def _absent(adapter: Adapter) -> str:
    if not adapter.command:
        return f"no command for {adapter.name}; name one by --adapters"
    program = adapter.command[0].replace("{python}", sys.executable)
    if shutil.which(program) is None:
        return f"{adapter.name}: {program} is not on this machine"
    return ""


def _line(entry: ClipEntry, prompt: Prompt | None) -> str:
    row: dict[str, Any] = {
        "key": entry.key,
        "path": entry.path,
        "model": entry.model,
        "prompt": entry.prompt,
        "seed": entry.seed,
        "transcript": entry.transcript,
    }
    if prompt is not None:
        row |= {
            "text": prompt.text,
            "language": prompt.language,
            "sound": prompt.sound,
            "dialogue": prompt.dialogue,
            "singing": prompt.singing,
            "effects": prompt.effects,
            "screen_text": prompt.screen_text,
            "cuts": prompt.cuts,
            "seconds": prompt.seconds,
        }
    return json.dumps(row, ensure_ascii=False) + "\n"


def _run(adapter: Adapter, place: Path) -> str:
    """What went wrong, or ""."""
    scores, log = place / "scores.jsonl", place / "log.txt"
    stand = {"{manifest}": str(place / "manifest.jsonl"), "{scores}": str(scores)}
    stand["{python}"] = sys.executable
    command = []
    for part in adapter.command:
        for name, path in stand.items():
            part = part.replace(name, path)
        command.append(part)
    env = {n: os.environ[n] for n in (*KEPT, *adapter.pass_env) if n in os.environ}
    with log.open("wb") as file:
        try:
            child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                cwd=place,
                env=env | dict(adapter.env),
                start_new_session=True,
            )
        except OSError as error:
            return f"cannot be started: {error.strerror}"
        try:
            trouble = _watch(child, adapter.timeout_s, (scores, log))
        finally:
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)  # and whatever it started
            child.wait()
    if trouble or child.returncode == 0:
        return trouble
    with log.open("rb") as said:
        said.seek(max(0, log.stat().st_size - TOLD))
        told = " ".join(said.read().decode("utf-8", "replace").split())
    return f"ended with code {child.returncode}: {told or 'it said nothing'}"


def _watch(child: subprocess.Popen[bytes], seconds: float, outputs: Iterable[Path]) -> str:
    end = time.monotonic() + seconds
    while True:
        with suppress(subprocess.TimeoutExpired):
            child.wait(POLL_S)
            return ""
        if time.monotonic() > end:
            return f"took longer than {seconds:g} s"
        for path in outputs:
            if path.exists() and path.stat().st_size > MAX_OUTPUT:
                return f"wrote more than {MAX_OUTPUT >> 20} MiB"


def _scores(
    adapter: Adapter, path: Path
) -> tuple[dict[tuple[str, str], Outcome], dict[tuple[str, str], str]]:
    """Valid scores, and what is wrong with others that can be named. The first of two counts."""
    metrics = {metric.name: metric for metric in adapter.metrics}
    given: dict[tuple[str, str], Outcome] = {}
    wrong: dict[tuple[str, str], str] = {}
    if path.is_symlink() or not path.is_file():
        return given, wrong
    with path.open("rb") as file:
        data = file.read(MAX_OUTPUT)
    for line in data.splitlines():
        try:
            row = json.loads(line)
            key = str(row["model" if adapter.per == "model" else "key"])
            metric = metrics[row["metric"]]
            value = row["value"]
        except (ValueError, KeyError, TypeError, RecursionError):
            continue  # torn, or of a metric that was not declared
        at = key, metric.name
        if at in given:
            continue
        if value is None:
            why = str(row.get("why") or "no reason given")[:TOLD]
            given[at] = Outcome(None, Status.NOT_APPLICABLE, why)
        elif isinstance(value, bool) or not isinstance(value, (int, float)):
            wrong[at] = f"its score {str(value)[:40]!r} is no number"
        elif not (math.isfinite(value) and metric.low <= value <= metric.high):
            wrong[at] = f"its score {value:g} is not within {metric.low:g} to {metric.high:g}"
        else:
            given[at] = Outcome(float(value), Status.MEASURED)
    return given, wrong
