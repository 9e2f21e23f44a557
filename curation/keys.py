"""Measurement keys: when two measurements must be equal, their keys are; when not, they differ.

key = stage name + version + measuring fields + weights digests + digest of the stage's own code as
imported inside reelmill (comments and docstrings stripped) + keys of the stages it needs.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
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


class _Strip(ast.NodeTransformer):
    """Takes docstrings out of a tree, and notes what it imports."""

    def __init__(self) -> None:
        self.imports: set[str] = set()

    def visit(self, node: ast.AST) -> Any:
        """Expressions hold no statements, and so neither docstrings nor imports."""
        return node if isinstance(node, ast.expr) else super().visit(node)

    def visit_Import(self, node: ast.Import) -> ast.Import:
        self.imports.update(alias.name for alias in node.names)
        return node

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.ImportFrom:
        self.imports.update([node.module] if node.module else [])
        return node

    def _body(self, node: Any) -> Any:
        self.generic_visit(node)
        first = node.body[0] if node.body else None
        if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
            node.body = node.body[1:] or [ast.Pass()]
        return node

    visit_Module = visit_ClassDef = visit_FunctionDef = visit_AsyncFunctionDef = _body  # noqa: N815


@cache
def _module(name: str) -> tuple[str, tuple[str, ...]]:
    """Digest of one module's stripped code, and the reelmill modules that it imports."""
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.origin or not spec.origin.endswith(".py"):
        return "", ()
    strip = _Strip()
    tree = strip.visit(ast.parse(Path(spec.origin).read_bytes()))
    inside = tuple(sorted(i for i in strip.imports if i.startswith("reelmill.")))
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest(), inside


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
