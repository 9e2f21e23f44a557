"""Writes docs/stages.md and docs/flows.md from the code.

python docs/generate.py [FOLDER]
"""

from __future__ import annotations

import dataclasses
import importlib
import sys
from pathlib import Path
from typing import Any

import yaml

from reelmill.curation.recipe import Recipe
from reelmill.curation.recipes import KNOWN, audio, image, video
from reelmill.curation.stage import Bound, Stage, TableStage

ROOT = Path(__file__).parents[1]
FROM = "Written by `python docs/generate.py`; a test fails when the code says otherwise."


def cell(value: object) -> str:
    return " ".join(str(value).split()).replace("|", "\\|")


def table(head: tuple[str, ...], rows: list[tuple[object, ...]]) -> list[str]:
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    return [*lines, *(f"| {' | '.join(cell(value) for value in row)} |" for row in rows), ""]


def first_paragraph(thing: Any) -> str:
    return " ".join((thing.__doc__ or "").strip().split("\n\n")[0].split())


def stages() -> str:
    """Every stage that a recipe can name."""
    recipes: list[Recipe] = [video(), image(), audio()]
    lines = ["# Stages", "", FROM, "", "Bounds are decisions: moving one measures nothing.", ""]
    for name, stage in sorted(KNOWN.items()):
        used = [str(r.kind) for r in recipes if any(s.name == name for s in r.stages)]
        lines += [f"## {name}", "", first_paragraph(type(stage)), ""]
        told = [f"In the recipe of {', '.join(used)}" if used else "In no built-in recipe"]
        if stage.paper:
            told.append(f"paper: {stage.paper}")
        if stage.needs:
            told.append(f"needs {', '.join(f'`{need}`' for need in stage.needs)}")
        weights = stage.resources.weights
        if weights:
            told.append(f"weights {', '.join(f'`{w}`' for w in weights)}")
        lines += [f"{'; '.join(told)}.", ""]
        fields = [(f"`{f.name}`", *_field(stage, f.name)) for f in dataclasses.fields(stage)]
        if fields:
            lines += table(("Field", "Default", ""), fields)
        if stage.adds:
            lines += table(
                ("Fact", "Unit", ""), [(f"`{f.name}`", f.unit, f.what) for f in stage.adds]
            )
    return "\n".join(lines).rstrip() + "\n"


def _field(stage: Stage, name: str) -> tuple[str, str]:
    value = getattr(stage, name)
    if not isinstance(value, Bound):
        return f"`{value!r}`", "decision" if isinstance(stage, TableStage) else "measurement"
    shown = "off" if value.value is None else f"`{value.value:g}`"
    rule = f"keeps {value.fact} {value.op} it, else {value.reason}" if value.op else "decision"
    return shown, rule


def flows() -> str:
    """Every deployment, with the parameters of its form."""
    from prefect.utilities.callables import parameter_schema

    lines = ["# Flows", "", FROM, ""]
    lines += ["Deployments of `prefect.yaml`, and what their forms ask.", ""]
    for one in yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]:
        module, name = one["entrypoint"].split(":")
        schema = parameter_schema(getattr(importlib.import_module(module), name))
        lines += [f"## {one['name']}", "", one["description"], ""]
        told = [f"Pool `{one['work_pool']['name']}`"]
        told += [f"schedule `{s['cron']}` {s['timezone']}, off" for s in one.get("schedules", [])]
        told += [f"starts on `{event}`" for t in one.get("triggers", []) for event in t["expect"]]
        if limit := one.get("concurrency_limit"):
            told.append(f"at most {limit['limit']} at a time, others wait")
        lines += [f"{'; '.join(told)}.", ""]
        rows = [
            (
                f"`{key}`",
                _type(field),
                "required" if key in schema.required else f"`{field.get('default')!r}`",
                field["description"],
            )
            for key, field in schema.properties.items()
        ]
        lines += table(("Parameter", "Type", "Default", ""), rows)
    return "\n".join(lines).rstrip() + "\n"


def _type(field: dict[str, Any]) -> str:
    if "enum" in field:
        return " or ".join(field["enum"])
    if "anyOf" in field:
        return " or ".join(_type(one) for one in field["anyOf"] if one.get("type") != "null")
    if field.get("type") == "array":
        return f"list of {_type(field.get('items', {}))}"
    return str(field.get("format") or field.get("type") or "object")


def main(folder: Path) -> None:
    for name, text in (("stages.md", stages()), ("flows.md", flows())):
        (folder / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs")
