"""Measurement keys: when two measurements must be equal, their keys are; when not, they differ.

key = stage name + version + measuring fields + weights digests + digest of the stage's own code and
of what it imports inside reelmill (compiled, so without comments, docstrings, asserts and line
numbers) + keys of the stages it needs.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from types import CodeType
from typing import Any

from reelmill.curation.stage import Stage
from reelmill.datasets.media.decode import MediaInfo

KEY_CHARS = 16


def canonical(value: Any) -> str:
    """A value's canonical JSON."""
    return json.dumps(value, sort_keys=True, default=str, separators=(",", ":"))


def digest(value: Any) -> str:
    """sha256 of a value's canonical JSON."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()


def _parts(value: Any) -> Iterator[bytes]:
    """What a constant, or code with all that is inside it, comes to, but for where it stands."""
    if isinstance(value, CodeType):
        counts = (value.co_argcount, value.co_posonlyargcount, value.co_kwonlyargcount)
        names = (value.co_names, value.co_varnames, value.co_freevars, value.co_cellvars)
        yield repr((value.co_name, counts, value.co_flags, names)).encode()
        yield value.co_code
        yield value.co_exceptiontable
        yield from _parts(value.co_consts)
    elif isinstance(value, frozenset):  # their order is another one in each process
        yield from sorted(b"".join(_parts(item)) for item in value)
    elif isinstance(value, tuple):
        yield b"%d" % len(value)
        for item in value:
            yield from _parts(item)
    else:
        yield f"{type(value).__name__} {value!r}".encode()


def _imports(code: CodeType) -> Iterator[str]:
    """Modules of reelmill that code imports: no other name in it has a dot."""
    yield from (name for name in code.co_names if name.startswith("reelmill."))
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _imports(constant)


@cache
def _module(name: str) -> tuple[str, tuple[str, ...]]:
    """Digest of one module's compiled code, and the reelmill modules that it imports."""
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.origin or not spec.origin.endswith(".py"):
        return "", ()
    source = Path(spec.origin).read_bytes()
    code = compile(source, "", "exec", dont_inherit=True, optimize=2)
    whole = hashlib.sha256()
    for part in _parts(code):
        whole.update(b"%d " % len(part) + part)
    return whole.hexdigest(), tuple(sorted(set(_imports(code))))


@cache
def code_digest(module: str) -> str:
    """Digest of a module's code and of everything in reelmill that it imports, at any depth."""
    seen: dict[str, str] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name not in seen:
            seen[name], imports = _module(name)
            waiting += imports
    return digest(seen)


def decode_components() -> dict[str, Any]:
    """What the decode key is made of: the code that the engine itself reads an asset with."""
    return {"stage": "decode", "code": code_digest(MediaInfo.__module__)}


def decode_key() -> str:
    """Key of what the engine itself reads from an asset: its MediaInfo."""
    return digest(decode_components())[:KEY_CHARS]


def stage_components(
    stages: Sequence[Stage], weights: Mapping[str, str]
) -> dict[str, dict[str, Any]]:
    """What each stage's key is made of, by stage and component.

    weights: digest of each weights entry that is present. needs: keys of the stages that add what
    a stage needs or reads.
    """
    found: dict[str, dict[str, Any]] = {}
    keys: dict[str, str] = {}
    adds: dict[str, str] = {}
    for stage in stages:
        needed = sorted({adds[need] for need in (*stage.needs, *stage.reads) if need in adds})
        found[stage.name] = {
            "stage": stage.name,
            "version": stage.version,
            "fields": stage.measuring(),
            "weights": {name: weights.get(name, "") for name in stage.resources.weights},
            "code": code_digest(type(stage).__module__),
            "needs": {name: keys[name] for name in needed},
        }
        keys[stage.name] = key_of(found[stage.name])
        adds.update(dict.fromkeys((fact.name for fact in stage.adds), stage.name))
    return found


def key_of(parts: Mapping[str, Any]) -> str:
    """The key that components make."""
    return digest(parts)[:KEY_CHARS]
