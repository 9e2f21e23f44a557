"""Which clips a bench asks of a model: every prompt with every seed, and where each one lies."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reelmill.errors import UsageError
from reelmill.evaluation.bench import Bench, Prompt
from reelmill.evaluation.clips import PICTURES, SOUNDS, ClipEntry

OWN = "{prompt}_{seed}"
FIELDS = {
    "prompt": r"(?P<prompt>[a-z0-9][a-z0-9-]{0,63})",
    "index": r"(?P<index>\d{1,6})",
    "seed": r"(?P<seed>\d{1,9})",
}
MAX_SEEDS = 1000
MOST_FILES = 100_000


@dataclass(frozen=True)
class Take:
    """One prompt with one seed."""

    prompt: Prompt
    seed: int

    @property
    def name(self) -> str:
        """Stem of its file, as `find_clips` reads it."""
        return f"{self.prompt.id}_{self.seed}"


def plan_takes(bench: Bench, seeds: Sequence[int]) -> tuple[Take, ...]:
    """Prompt by prompt. Raises UsageError for no seeds, or one given twice."""
    if not 1 <= len(seeds) <= MAX_SEEDS or len(set(seeds)) != len(seeds) or min(seeds) < 0:
        raise UsageError(f"seeds {list(seeds)[:10]}: 1 to {MAX_SEEDS} different ones are needed.")
    return tuple(Take(prompt, seed) for prompt in bench.prompts for seed in seeds)


def request_lines(takes: Sequence[Take], options: Mapping[str, Any]) -> str:
    """A batch for `reelmill generate --batch`. options: further fields of every request."""
    rows = []
    for t in takes:
        row = {**options, "prompt": t.prompt.text, "seed": t.seed, "output": f"{t.name}.mp4"}
        if t.prompt.video:
            row |= {"task": "v2a", "video": t.prompt.video}
        rows.append(row)
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


@dataclass(frozen=True)
class Adopted:
    """Another system's clips. missing: takes without a clip, by name; strange: files of none."""

    entries: tuple[ClipEntry, ...]
    missing: tuple[str, ...]
    strange: tuple[str, ...]


def adopt(
    folder: Path, model: str, bench: Bench, seeds: Sequence[int], names: str = OWN
) -> Adopted:
    """Finds the takes of a bench in a folder of any layout.

    names: how its files are named below the folder, without suffix, of `{prompt}` (id) or `{index}`
    (place in the bench, from 0; leading zeros do not matter) and `{seed}` (left out: seed 0).
    Raises UsageError for a pattern that names no prompt, a missing folder, or two clips of a take.
    """
    pattern = re.compile(_regex(names))
    wanted = {take.name: take for take in plan_takes(bench, seeds)}
    found: dict[str, Path] = {}
    strange = []
    for path in _files(folder):
        below = path.relative_to(folder).with_suffix("").as_posix()
        name = _name(pattern.fullmatch(below), bench)
        if name not in wanted:
            strange.append(path.relative_to(folder).as_posix())
        elif name in found:
            raise UsageError(f"{path} and {found[name]} are both {name}; remove one.")
        else:
            found[name] = path
    entries = tuple(
        ClipEntry(
            path=str(found[name].resolve()), model=model, prompt=take.prompt.id, seed=take.seed
        )
        for name, take in wanted.items()
        if name in found
    )
    return Adopted(entries, tuple(n for n in wanted if n not in found), tuple(strange))


def _regex(names: str) -> str:
    parts = re.split(r"\{(\w+)\}", names)
    fields = parts[1::2]
    if set(fields) - set(FIELDS) or len(set(fields)) != len(fields):
        raise UsageError(f"names {names!r}: known are {{prompt}}, {{index}} and {{seed}}, once.")
    if ("prompt" in fields) == ("index" in fields):
        raise UsageError(f"names {names!r}: either {{prompt}} or {{index}} must be in it.")
    return "".join(FIELDS[p] if i % 2 else re.escape(p) for i, p in enumerate(parts))


def _name(match: re.Match[str] | None, bench: Bench) -> str:
    if match is None:
        return ""
    told = match.groupdict()
    prompt = told.get("prompt")
    if prompt is None:
        index = int(told["index"])
        prompt = bench.prompts[index].id if index < len(bench.prompts) else ""
    return f"{prompt}_{int(told.get('seed') or 0)}"


def _files(folder: Path) -> Iterator[Path]:
    if not folder.is_dir():
        raise UsageError(f"{folder}: there is no such folder.")
    paths = (p for p in folder.rglob("*") if p.suffix.lower() in PICTURES | SOUNDS and p.is_file())
    for count, path in enumerate(sorted(paths)):
        if count >= MOST_FILES:
            raise UsageError(f"{folder} holds more than {MOST_FILES} clips.")
        yield path
