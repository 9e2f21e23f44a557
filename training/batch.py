"""Many clips from a JSONL file, one request a line; run again, it goes on where it stopped."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from reelmill.datasets.workspace import commit_bytes
from reelmill.errors import MediaError, PromptError, UsageError
from reelmill.model.pipeline import Pipeline
from reelmill.training.generate import GenerateOptions, generate

MAX_BYTES, MAX_REQUESTS = 64 << 20, 1_000_000
FILES = ("image", "end", "video", "audio", "keep")
_NAME = re.compile(r"[\w][\w .-]{0,120}")
_OPTIONS: TypeAdapter[GenerateOptions] = TypeAdapter(GenerateOptions)


@dataclass(frozen=True)
class Request:
    """One line of a batch. digest: of the options, the model and the files that it goes by."""

    line: int
    options: GenerateOptions
    digest: str


@dataclass(frozen=True)
class BatchResult:
    """made, reused: outputs. failed: message by the name of the output. All add up to `requests`.

    failures: the JSON file that names them, None where there are none.
    """

    requests: int
    made: tuple[Path, ...]
    reused: tuple[Path, ...]
    failed: Mapping[str, str]
    failures: Path | None


def read_requests(batch: Path, defaults: GenerateOptions) -> list[Request]:
    """All requests of a batch; nothing is generated unless every line is one.

    A line is an object with `prompt`, and any other field of GenerateOptions but `model`; `output`
    is a file name, by default the line's number with the suffix of the defaults' output. Paths are
    taken from the batch's own folder. Raises UsageError with the line for anything else.
    """
    try:
        if batch.stat().st_size > MAX_BYTES:
            raise UsageError(f"batch {batch} is larger than {MAX_BYTES >> 20} MiB; split it.")
        lines = batch.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"batch {batch} cannot be read: {error}.") from error
    requests: list[Request] = []
    seen: dict[str, int] = {}
    model = _digest(defaults.model / "model.json")
    for number, text in enumerate(lines, 1):
        if not text.strip():
            continue
        options = _options(batch, number, text, defaults)
        if options.output.name in seen:
            raise UsageError(
                f"batch {batch}, line {number}: output {options.output.name} is that of line "
                f"{seen[options.output.name]} too."
            )
        seen[options.output.name] = number
        requests.append(Request(number, options, _request_digest(options, model)))
    if not 1 <= len(requests) <= MAX_REQUESTS:
        raise UsageError(
            f"batch {batch} has {len(requests)} requests; 1 to {MAX_REQUESTS} are needed."
        )
    return requests


def generate_batch(
    requests: list[Request], progress: Callable[[float, float | None, str], None]
) -> BatchResult:
    """Generates what is not there yet. A request that does not fit fails by name; others go on.

    Raises CheckpointError (model) and WorkspaceError (disk).
    """
    made, reused, failed = [], [], {}
    pipeline: Pipeline | None = None
    for done, request in enumerate(requests):
        options = request.options
        progress(done, len(requests), options.output.name)
        if is_there(request):
            reused.append(options.output)
            continue
        pipeline = pipeline or Pipeline.load(options.model)
        try:
            generate(options, pipeline=pipeline, notes={"request": request.digest})
            made.append(options.output)
        except (UsageError, MediaError) as error:
            failed[options.output.name] = str(error)
    progress(len(requests), len(requests), "")
    failures = requests[0].options.output.parent / "failed.json"
    if failed:
        commit_bytes(failures, json.dumps(failed, indent=1, ensure_ascii=False).encode() + b"\n")
    else:
        failures.unlink(missing_ok=True)
    return BatchResult(
        len(requests), tuple(made), tuple(reused), failed, failures if failed else None
    )


def is_there(request: Request) -> bool:
    """Whether the clip was made by this very request."""
    output = request.options.output
    try:
        told = json.loads(output.with_name(f"{output.name}.json").read_text("utf-8"))
    except (OSError, ValueError):
        return False
    return output.is_file() and isinstance(told, dict) and told.get("request") == request.digest


def _options(batch: Path, number: int, text: str, defaults: GenerateOptions) -> GenerateOptions:
    where = f"batch {batch}, line {number}"
    try:
        row = json.loads(text)
    except ValueError as error:
        raise UsageError(f"{where} is no JSON: {error}.") from error
    known = {f.name for f in fields(GenerateOptions)} - {"model"}
    if not isinstance(row, dict) or "prompt" not in row or set(row) - known:
        strange = sorted(set(row) - known) if isinstance(row, dict) else []
        told = f" It has {', '.join(strange)}; known are {', '.join(sorted(known))}."
        raise UsageError(f"{where}: an object with `prompt` is needed.{told if strange else ''}")
    name = row.get("output", f"{number:06d}{defaults.output.suffix}")
    if not (isinstance(name, str) and _NAME.fullmatch(name)):
        raise UsageError(f"{where}: output {name!r} is no plain file name.")
    try:
        read = _OPTIONS.validate_python(
            {
                **{f.name: getattr(defaults, f.name) for f in fields(GenerateOptions)},
                **row,
                "output": defaults.output.parent / name,
            }
        )
        read = replace(
            read,
            references={key: batch.parent / path for key, path in read.references.items()},
            **{f: batch.parent / row[f] for f in FILES if row.get(f) is not None},
        )
        read.check()
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        at = ".".join(map(str, first["loc"]))
        raise UsageError(f"{where}, {at}: {first['msg']} (is {first['input']!r}).") from error
    except PromptError as error:
        raise PromptError(f"{where}: {error}") from error
    return read


def _request_digest(options: GenerateOptions, model: str) -> str:
    told: dict[str, Any] = {f.name: getattr(options, f.name) for f in fields(options)}
    told |= {"model": model, "output": options.output.name}
    told |= {name: _digest(told[name]) for name in FILES if told[name] is not None}
    told["references"] = {name: _digest(path) for name, path in options.references.items()}
    return hashlib.sha256(json.dumps(told, sort_keys=True, default=str).encode()).hexdigest()


def _digest(path: Path) -> str:
    """sha256 of a file; of nothing where there is none, which generation will tell."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return "absent"
