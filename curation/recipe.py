"""A recipe: an ordered tuple of stages for one kind of asset; its YAML form and its check.

Recipes come from functions (reelmill.curation.recipes) or from YAML of this shape:

    kind: video
    max_failed: 0.01          # share of failed units above which the run exits with 3
    stages:
      - Probe: {min_seconds: 2.0}
      - Shots: {threshold: 27.0}

The order of the stages is the order of the decisions. A recipe is checked whole before anything
runs.
"""

from __future__ import annotations

import difflib
import re
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import yaml

from reelmill.curation.cut_stage import Cut
from reelmill.curation.keys import digest
from reelmill.curation.stage import AssetStage, Bound, Segmenter, Stage, TableStage
from reelmill.datasets.sample import Kind
from reelmill.errors import OverrideError, RecipeError

MAX_YAML_BYTES = 1 << 20
KEYS = ["kind", "max_failed", "stages"]


@dataclass(frozen=True)
class Recipe:
    """Stages in order, for one kind. max_failed: the failure budget, a share of what came in."""

    kind: Kind
    stages: tuple[Stage, ...]
    max_failed: float = 0.01

    @property
    def segmenter(self) -> int:
        """Position of the Segmenter: stages before it see assets, the others clips."""
        return next(i for i, stage in enumerate(self.stages) if isinstance(stage, Segmenter))

    @property
    def digest(self) -> str:
        return digest(to_mapping(self))

    def stage(self, name: str) -> Stage:
        found = next((s for s in self.stages if s.name == name), None)
        if found is None:
            raise OverrideError(
                f"recipe {self.kind} has no stage {name!r}{_suggest(name, self.names)}"
            )
        return found

    @property
    def names(self) -> list[str]:
        return [stage.name for stage in self.stages]


def _suggest(name: str, names: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"; did you mean {close[0]!r}?" if close else "."
    return f"{hint} It has: {', '.join(names)}."


def _plain(value: Any) -> Any:
    if isinstance(value, Bound):
        return value.value
    return list(value) if isinstance(value, tuple) else value


def to_mapping(recipe: Recipe) -> dict[str, Any]:
    """The recipe as plain data, the content of its YAML."""
    return {
        "kind": str(recipe.kind),
        "max_failed": recipe.max_failed,
        "stages": [
            {stage.name: {f.name: _plain(getattr(stage, f.name)) for f in fields(stage)}}
            for stage in recipe.stages
        ],
    }


def to_yaml(recipe: Recipe) -> str:
    """YAML of a recipe, with the paper's section and each bound's meaning beside the numbers."""
    lines = [f"kind: {recipe.kind}", f"max_failed: {recipe.max_failed:g}", "stages:"]
    for stage in recipe.stages:
        note = f"  # {stage.paper}" if stage.paper else ""
        values = fields(stage)
        lines.append(f"  - {stage.name}:{'' if values else ' {}'}{note}")
        for f in values:
            value = getattr(stage, f.name)
            text = yaml.safe_dump(_plain(value), default_flow_style=True).split("\n")[0]
            meaning = ""
            if isinstance(value, Bound) and value.fact:
                meaning = f"  # keeps {value.fact} {value.op} it, else {value.reason}"
            lines.append(f"      {f.name}: {text}{meaning}")
    return "\n".join(lines) + "\n"


_EXPONENT = re.compile(r"[-+]?[0-9]+[eE][-+]?[0-9]{1,3}")  # a number, but to YAML 1.1 a text


def _coerce(stage: Stage, name: str, value: Any, where: str) -> Any:
    """A field's new value as its type, or OverrideError that says what is wanted."""
    old = getattr(stage, name)
    if isinstance(old, Bound):
        if isinstance(value, str) and _EXPONENT.fullmatch(value):
            value = float(value)
        if value is None or (isinstance(value, int | float) and not isinstance(value, bool)):
            number = None if value is None else float(value)
            if number is None or number == number:
                return number
        raise OverrideError(f"{where} is {value!r}; it must be a number, or null for no bound.")
    hint = typing.get_type_hints(type(stage))[name]
    allowed = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    kinds = tuple(typing.get_origin(a) or a for a in allowed)
    if float in kinds and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if tuple in kinds and isinstance(value, list):
        of = typing.get_args(allowed[kinds.index(tuple)])[0]
        if not all(type(item) is of for item in value):
            raise OverrideError(f"{where} is {value!r}; it must be a list of {of.__name__}.")
        return tuple(value)
    if isinstance(value, bool) and bool not in kinds:
        kinds = ()
    if not isinstance(value, kinds):
        wanted = " or ".join(getattr(k, "__name__", str(k)) for k in allowed)
        raise OverrideError(f"{where} is {value!r}; it must be {wanted}.")
    return value


def set_field(stage: Stage, name: str, value: Any) -> Stage:
    """A copy of a stage with one field set. Raises OverrideError, with a suggestion."""
    names = [f.name for f in fields(stage)]
    if name not in names:
        raise OverrideError(f"{stage.name} has no field {name!r}{_suggest(name, names)}")
    try:
        return stage.with_field(name, _coerce(stage, name, value, f"{stage.name}.{name}"))
    except ValueError as error:
        raise OverrideError(f"{stage.name}.{name} = {value!r}: {error}") from error


def override(recipes: Mapping[Kind, Recipe], settings: Sequence[str]) -> dict[Kind, Recipe]:
    """Applies `Stage.field=value` settings to every recipe that has the stage."""
    result = dict(recipes)
    for setting in settings:
        target, equals, text = setting.partition("=")
        stage_name, dot, name = target.strip().partition(".")
        if not (equals and dot and name):
            raise OverrideError(
                f"--set {setting!r} is not of the form Stage.field=value, "
                "e.g. --set SilenceRatio.max_ratio=0.15."
            )
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise OverrideError(f"--set {setting!r}: {text!r} is no YAML value.") from error
        holders = [kind for kind, recipe in result.items() if stage_name in recipe.names]
        if not holders:
            names = sorted({n for recipe in result.values() for n in recipe.names})
            raise OverrideError(
                f"--set {setting!r}: no stage {stage_name!r}{_suggest(stage_name, names)}"
            )
        for kind in holders:
            recipe = result[kind]
            stages = tuple(
                set_field(s, name, value) if s.name == stage_name else s for s in recipe.stages
            )
            result[kind] = replace(recipe, stages=stages)
    return result


def load_yaml(path: Path, known: Mapping[str, Stage]) -> Recipe:
    """Reads a recipe file. known: a default instance of every stage by name.

    Raises RecipeError or OverrideError that names the file and the place.
    """
    try:
        if path.stat().st_size > MAX_YAML_BYTES:
            raise RecipeError(f"recipe {path} is larger than {MAX_YAML_BYTES} bytes.")
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"recipe {path} cannot be read: {error}") from error
    except (yaml.YAMLError, RecursionError) as error:
        raise RecipeError(f"recipe {path} is not valid YAML: {error}") from error
    if not isinstance(data, dict):
        raise RecipeError(
            f"recipe {path} holds a {type(data).__name__}; it must be a mapping with kind and "
            "stages (see `reelmill recipe show video`)."
        )
    for key in data.keys() - set(KEYS):
        raise RecipeError(f"recipe {path}: unknown key {key!r}{_suggest(str(key), KEYS)}")
    try:
        kind = Kind(str(data.get("kind")))
    except ValueError:
        raise RecipeError(
            f"recipe {path}: kind is {data.get('kind')!r}; it must be video, image or audio."
        ) from None
    budget = data.get("max_failed", 0.01)
    if isinstance(budget, bool) or not isinstance(budget, int | float) or not 0 <= budget <= 1:
        raise RecipeError(f"recipe {path}: max_failed is {budget!r}; it must be from 0 to 1.")
    entries = data.get("stages")
    if not isinstance(entries, list) or not entries:
        raise RecipeError(f"recipe {path}: stages must be a list with one stage an item.")
    stages = [
        _stage_from(entry, f"recipe {path}, stage {i}", known) for i, entry in enumerate(entries, 1)
    ]
    return Recipe(kind, tuple(stages), float(budget))


def _stage_from(entry: Any, where: str, known: Mapping[str, Stage]) -> Stage:
    name, settings = entry, None
    if isinstance(entry, dict) and len(entry) == 1:
        name, settings = next(iter(entry.items()))
    if not isinstance(name, str):
        raise RecipeError(f"{where} is {entry!r}; write `- Name: {{field: value}}`.")
    if name not in known:
        raise RecipeError(f"{where}: no stage {name!r}{_suggest(name, sorted(known))}")
    if settings is not None and not isinstance(settings, dict):
        raise RecipeError(f"{where}: fields of {name} must be a mapping, not {settings!r}.")
    stage = known[name]
    for field, value in (settings or {}).items():
        try:
            stage = set_field(stage, str(field), value)
        except OverrideError as error:
            raise RecipeError(f"{where}: {error}") from error
    return stage


def check(recipe: Recipe) -> None:
    """Raises RecipeError for a recipe that cannot run: order, kinds, needs, names."""
    stages, count = recipe.stages, len(recipe.stages)
    where = [f"{s.name} (stage {i} of {count})" for i, s in enumerate(stages, 1)]
    segmenters = [i for i, s in enumerate(stages) if isinstance(s, Segmenter)]
    if len(segmenters) != 1:
        named = ", ".join(where[i] for i in segmenters) or "none"
        raise RecipeError(
            f"recipe {recipe.kind} needs exactly one stage that makes clips of assets (Shots for "
            f"video, WholeFile otherwise); it has {named}."
        )
    if not isinstance(stages[-1], Cut):
        raise RecipeError(
            f"recipe {recipe.kind} ends with {where[-1]}; its last stage must be Cut, which turns "
            "survivors into files. Add Cut() at the end."
        )
    segmenter = stages[segmenters[0]]
    listens = segmenter.listens() if isinstance(segmenter, Segmenter) else {}
    for name in (name for name, needed in listens.items() if needed and name not in recipe.names):
        raise RecipeError(
            f"{where[segmenters[0]]} joins shots by what {name} finds, which recipe {recipe.kind} "
            f"lacks. Add {name}() to it, or set {segmenter.name}.join=none."
        )
    first_measured: dict[str, int] = {}
    providers = {fact.name: s.name for s in stages for fact in s.adds}
    for i, stage in enumerate(stages):
        if stage.name in recipe.names[:i]:
            raise RecipeError(f"{where[i]} stands twice in recipe {recipe.kind}. Remove one.")
        if recipe.kind not in stage.kinds:
            raise RecipeError(f"{where[i]} does not apply to {recipe.kind} assets. Remove it.")
        if isinstance(stage, AssetStage) and i > segmenters[0]:
            raise RecipeError(
                f"{where[i]} reads whole files: move it before {where[segmenters[0]]}."
            )
        if isinstance(stage, TableStage) and i < segmenters[0]:
            raise RecipeError(f"{where[i]} compares clips: move it after {where[segmenters[0]]}.")
        for need in stage.needs:
            if need not in first_measured:
                remedy = (
                    f"Move {providers[need]}() before it."
                    if need in providers
                    else f"Add the stage that measures {need!r} before it."
                )
                raise RecipeError(
                    f"{where[i]} needs {need!r}, which no earlier stage adds. {remedy}"
                )
        for fact in stage.adds:
            if fact.name in first_measured:
                raise RecipeError(
                    f"{where[i]} adds {fact.name!r}, which {where[first_measured[fact.name]]} adds."
                )
            first_measured[fact.name] = i
        own = {fact.name for fact in stage.adds} | set(stage.needs)
        for name, bound in stage.bounds().items():
            if bound.fact and bound.fact not in own:
                raise RecipeError(f"{where[i]}: bound {name} is on {bound.fact!r}, not its fact.")
